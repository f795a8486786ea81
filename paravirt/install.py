"""Puts a bound op table into a paravirt kernel's image: guest code, gate page, tables.

The kernel's note names the room it has for each. All is written to physical memory before the first
instruction, as a hypervisor's domain builder fills the hypercall page.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

from paravirt.binding import NULL_SLOT, Slot, where
from paravirt.calls import Calls
from paravirt.counters import OpCounters
from paravirt.errors import PluginError
from paravirt.forms import GuestAddress, GuestCode, KernelFunction, MachineCode, OpTable, leaves_of
from paravirt.guest import Guest
from paravirt.hookspecs import OpInfo, Param, op_infos
from paravirt.hookspecs.tables import DATA_WORDS, TABLES
from paravirt.hookspecs.types import ArgType
from paravirt.host_ops import HostOp
from paravirt.image.elf import ElfImage
from paravirt.image.notes import ParavirtNote
from paravirt.image.symbols import SymbolTable
from paravirt.link import Area, LinkedCode, Linker
from paravirt.ops import Ops
from paravirt.steps import Steps

PAGE = 4096
RET = b"\xc3"
EX_ROW = struct.Struct("<II")
GATE_PREFIX, LEAF_PREFIX = "paravirt_gate_", "paravirt_leaf_"


def install(guest: Guest, backend: str, table: OpTable, slots: Mapping[str, Slot], steps: Steps,
            *, count_ops: bool = False) -> tuple[Ops, Calls]:
    """Place the code, fill the tables, connect the gate.

    :raises PluginError: naming all that does not fit or resolve.
    """
    note = guest.kernel.note
    assert note is not None
    placed = place(guest, backend, table, slots)
    for address, data in placed.writes:
        guest.write_image(address, data)
    counters = OpCounters(guest.machine.engine, enabled=count_ops)
    counters.watch(slots)
    ops, calls = connect_gate(guest, note.gate_page, table, slots, counters, steps)
    ops.linked = placed.linked
    ops.write_slot = lambda name, address: _write_slot(guest, note, name, address)
    return ops, calls


def connect_gate(guest: Guest, gate_page: int, table: OpTable | None, slots: Mapping[str, Slot], counters: OpCounters,
                 steps: Steps) -> tuple[Ops, Calls]:
    """Let the stubs of the gate page call the host functions among `slots`, and the leaves of `table`."""
    host_ops: list[HostOp | None] = [None] * len(op_infos())
    for slot in slots.values():
        host_ops[slot.number] = _host_op(slot)
    calls = Calls(guest.machine, gate_page, [*host_ops, *(_leaf_ops(table) if table is not None else ())])
    guest.ops = ops = Ops(slots, calls, steps, counters)
    for slot in slots.values():
        host_op = host_ops[slot.number]
        if host_op is not None and slot.wrapped:
            host_op.function = lambda *values, slot=slot: ops.call_function(slot, values)
    return ops, calls


class Placed(NamedTuple):
    """What must be written, by virtual address, and where the guest code lies."""

    writes: list[tuple[int, bytes]]
    linked: LinkedCode


def place(guest: Guest, backend: str, table: OpTable, slots: Mapping[str, Slot]) -> Placed:
    """Decide where everything goes; fills in the slots' addresses.

    :raises PluginError: naming all that does not fit or resolve.
    """
    note, image = guest.kernel.note, guest.kernel.image
    assert note is not None and isinstance(image, ElfImage)
    problems: list[str] = []
    linker = Linker(Area(note.code, PAGE * note.code_pages, "code"), Area(note.data, PAGE * note.data_pages, "data"),
                    resolver(guest.kernel.symbols, note.gate_page, table, slots))
    linked = LinkedCode()
    place_code(guest.kernel.symbols, linker, slots, problems)
    name = linker.place(table.name.encode() + b"\0", writable=True)
    try:
        linked = linker.finish()
        resolve_code(note.gate_page, slots, linked, problems)
        writes = [*linked.writes, (note.gate_page, Calls.page(len(op_infos()) + len(leaves_of(table))))]
        writes += _fixups(image, note, linked)
    except PluginError as error:
        problems.append(str(error))
    if problems:
        raise PluginError(f"backend {backend!r}: {'; '.join(problems)}")
    return Placed(writes + _tables(note, table, slots, name), linked)


def _host_op(slot: Slot) -> HostOp | None:
    if not slot.through_gate or slot.function is None:
        return None
    return HostOp(slot.info, slot.function, slot.where, blocking=slot.form is not None)


def _leaf_ops(table: OpTable) -> list[HostOp]:
    """A table's leaves as the gate calls them: every argument is a word."""
    found = []
    for name, function in leaves_of(table):
        signature = inspect.signature(function)
        params = tuple(Param(parameter, ArgType("u32", words=1, signed=False)) for parameter in signature.parameters)
        words = 1 if signature.return_annotation in (int, "int") else 0
        info = OpInfo(name=name, table="", nullable=False, jumped=False, params=params, result_words=words,
                      signed_result=False, prototype="", null_means="", doc=inspect.getdoc(function) or "")
        found.append(HostOp(info, function, where(function)))
    return found


def _write_slot(guest: Guest, note: ParavirtNote, name: str, address: int) -> None:
    """One word of a table that is in use."""
    for layout in TABLES.values():
        if name in layout.words:
            guest.machine.vcpu.write_u32(getattr(note, layout.name) + 4 * layout.words.index(name), address)


def resolver(symbols: SymbolTable, gate_page: int, table: OpTable,
             slots: Mapping[str, Slot]) -> Callable[[str], int | None]:
    """What a linker asks for symbols that an object lacks: stubs of host functions and leaves, then the kernel's."""
    stubs = {f"{GATE_PREFIX}{name}": slot.number for name, slot in slots.items()}
    stubs |= {f"{LEAF_PREFIX}{name}": len(op_infos()) + index for index, (name, _) in enumerate(leaves_of(table))}

    def resolve(symbol: str) -> int | None:
        number = stubs.get(symbol)
        return Calls.stub_at(gate_page, number) if number is not None else symbols.address(symbol)

    return resolve


def place_code(symbols: SymbolTable, linker: Linker, slots: Mapping[str, Slot], problems: list[str]) -> None:
    """Give the linker all guest code of `slots`, and look up the kernel's functions."""
    for path in sorted({slot.form.object for slot in slots.values() if isinstance(slot.form, GuestCode)}):
        try:
            linker.add(path)
        except PluginError as error:
            problems.append(str(error))
    for name, slot in slots.items():
        if isinstance(slot.form, MachineCode):
            # A copy for each op, so that each can be told apart by its address.
            slot.address = linker.place(slot.form.code + RET, align=4)
            slot.inline = slot.form.code
        elif isinstance(slot.form, KernelFunction):
            address = symbols.address(slot.form.symbol)
            if address is None:
                problems.append(f"{name}: the kernel has no function {slot.form.symbol}")
            slot.address = address or 0


def resolve_code(gate_page: int, slots: Mapping[str, Slot], linked: LinkedCode, problems: list[str]) -> None:
    """Fill in where the linked code of `slots` lies, and the stubs of host functions."""
    for name, slot in slots.items():
        form = slot.form
        if isinstance(form, GuestCode):
            key = form.object, form.symbol
            if key in linked.symbols:
                slot.address, slot.inline = linked.symbols[key], linked.inline.get(key)
            else:
                problems.append(f"{name}: {form.object.name} has no symbol {form.symbol}")
        elif isinstance(form, GuestAddress):
            slot.address = form.address
        elif form is None:
            slot.address = Calls.stub_at(gate_page, slot.number)


def _tables(note: ParavirtNote, table: OpTable, slots: Mapping[str, Slot], name: int) -> list[tuple[int, bytes]]:
    gate = note.gate_page
    writes = []
    for layout in TABLES.values():
        words = []
        for word in layout.words:
            if word in DATA_WORDS:
                words.append(name if word == "name" else int(getattr(table, word)))
            else:
                slot = slots[word]
                words.append(Calls.stub_at(gate, slot.number) if slot.through_gate else
                             0 if slot.kind == NULL_SLOT else slot.address)
        writes.append((getattr(note, layout.name), struct.pack(f"<{len(words)}I", *words)))
    return writes


def _fixups(image: ElfImage, note: ParavirtNote, linked: LinkedCode) -> list[tuple[int, bytes]]:
    """Rows of the objects' exception tables go into the spare (zero) rows of the kernel's."""
    present = image.read(note.ex_table, EX_ROW.size * note.ex_table_entries) or b""
    spare = [index for index, row in enumerate(EX_ROW.iter_unpack(present)) if row == (0, 0)]
    if len(linked.fixups) > len(spare):
        raise PluginError(f"{len(linked.fixups)} exception-table rows, and the kernel has room for {len(spare)}")
    return [(note.ex_table + EX_ROW.size * index, EX_ROW.pack(*row))
            for index, row in zip(spare, linked.fixups, strict=False)]



