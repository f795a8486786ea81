"""A backend's op table in the place of a Linux kernel's own.

The backend's implementations are placed behind the kernel's slots: guest code in the platform's pages, host functions
as stubs there, each with an adaptor where the kernel calls differently (adapt.py). What the table does not have, and
what 2.6.23 does not know, stays the kernel's.

Guest code that may fault needs rows of the kernel's exception table. The ops that are replaced have given theirs
up, so those rows are taken: iret's, which sends a bad frame to the kernel's iret_exc, and those of the MSR ops.

Ref: Linux 2.6.32 lib/extable.c (search_extable: the table is sorted by instruction), arch/x86/kernel/entry_32.S
(native_iret, iret_exc), arch/x86/include/asm/msr.h (native_read_msr_safe).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from paravirt.binding import NULL_SLOT, Slot
from paravirt.calls import Calls
from paravirt.errors import PluginError
from paravirt.forms import KernelFunction, OpTable
from paravirt.guest import Guest
from paravirt.image.linux_ops import LinuxSlot
from paravirt.image.symbols import SymbolTable
from paravirt.install import place_code, resolve_code, resolver
from paravirt.link import Linker
from paravirt.linuxops import adapt
from paravirt.linuxops.pages import StubPages
from paravirt.linuxops.slots import KernelMemory
from paravirt.machine.outcome import End, GuestExit, Outcome

EX_ROW = struct.Struct("<II")
EX_START, EX_STOP = "__start___ex_table", "__stop___ex_table"
MAX_EX_ROWS = 1 << 16


class AssignedTable:
    """
    :param name: of the backend whose table it is, for messages.
    :param ops: the bound table; ops without a slot here are left alone.
    :ivar targets: by slot number, what the kernel's slot is to hold.
    :ivar writes: what must stand in the platform's pages, by virtual address.
    :raises PluginError: naming all that does not fit or resolve.
    """

    def __init__(self, guest: Guest, name: str, table: OpTable, ops: Mapping[str, Slot], slots: Sequence[LinuxSlot],
                 pages: StubPages) -> None:
        self._guest, self._name, self._pages, self.table = guest, name, pages, table
        symbols = guest.kernel.symbols
        served = [slot for slot in slots if slot.word.op in ops and _is_served(ops[slot.word.op], symbols)]
        used = {slot.word.op: ops[slot.word.op] for slot in served}
        code, data = pages.areas()
        linker = Linker(code, data, resolver(symbols, pages.virtual, table, ops))
        problems: list[str] = []
        place_code(symbols, linker, used, problems)
        adaptors = []
        for slot in served:
            adaptor = adapt.adaptor(slot.word, used[slot.word.op])
            adaptors.append((adaptor, linker.place(bytes(adapt.size(adaptor))) if adaptor else 0))
        try:
            linked = linker.finish()
            resolve_code(pages.virtual, used, linked, problems)
        except PluginError as error:
            problems.append(str(error))
        if problems:
            raise PluginError(f"backend {name!r}: {'; '.join(problems)}")
        self.targets: dict[int, int] = {}
        self.writes = list(linked.writes)
        self._fixups = [row for row in linked.fixups if row[1]]
        self._named: dict[int, Slot] = {op.address: op for op in used.values() if pages.contains(op.address)}
        for slot, (adaptor, place) in zip(served, adaptors, strict=True):
            op = used[slot.word.op]
            entry = Calls.stub_at(pages.virtual, op.number) if op.through_gate else op.address
            if adaptor:
                self.writes.append((place, adapt.assemble(adaptor, place, entry)))
                self._named[place] = op
            self.targets[slot.type] = place or entry
        self._starts = sorted(self._named)

    # ------------------------------------------------------------------ names

    def at(self, address: int) -> Slot | None:
        """The op whose code lies at `address`."""
        index = bisect_right(self._starts, address) - 1
        return self._named[self._starts[index]] if index >= 0 and self._pages.contains(address) else None

    def symbolize(self, address: int) -> str:
        """``set_pte_at of NAME`` for an address in the table's code, else ""."""
        op = self.at(address)
        return f"{op.info.name} of {self._name}" if op is not None else ""

    def invalid_opcode(self, at: int) -> None:
        """An op's code has raised #UD, and it went to the kernel: the kernel cannot know what that means.

        :raises GuestExit: naming the op.
        """
        op, vcpu = self.at(at), self._guest.machine.vcpu
        if op is None or self._pages.contains(vcpu.eip) or any(row[0] == at for row in self._fixups):
            return
        raise GuestExit(Outcome(End.CRASH, f"op {op.info.name} ({op.where}) of the assigned table {self._name!r}: "
                                           "invalid opcode", at, self.symbolize(at)))

    # ------------------------------------------------------------------ the exception table

    def take_rows(self, replaced: Sequence[tuple[LinuxSlot, int]]) -> None:
        """Give the table's code the exception-table rows of the functions that stood in the slots before.

        :raises PluginError: they have not enough of them.
        """
        symbols, memory = self._guest.kernel.symbols, KernelMemory(self._guest)
        start, stop = symbols.address(EX_START), symbols.address(EX_STOP)
        if start is None or stop is None or not 0 <= stop - start <= MAX_EX_ROWS * EX_ROW.size:
            rows: list[tuple[int, int]] = []
        else:
            rows = list(EX_ROW.iter_unpack(memory.read(start, (stop - start) // EX_ROW.size * EX_ROW.size)))
        missing = [row for row in self._fixups if row not in rows]
        functions = [symbols.extent(address) for _, address in replaced]
        spare = [index for index, (instruction, _) in enumerate(rows)
                 if any(low <= instruction < high for low, high in functions)]
        # What was replaced earlier has given its rows already, so only the first moment can fall short.
        if len(missing) > len(spare):
            raise PluginError(f"backend {self._name!r}: its ops need {len(missing)} rows of the kernel's exception "
                              f"table, and those that they replace have {len(spare)}")
        for index, row in zip(spare, missing, strict=False):
            rows[index] = row
        if missing and start is not None:
            memory.write(start, b"".join(EX_ROW.pack(*row) for row in sorted(rows)))


def _is_served(op: Slot, symbols: SymbolTable) -> bool:
    """Whether the table has something for a slot: an empty slot, and a function that this kernel lacks, are not."""
    if op.info.name == "patch" or op.kind == NULL_SLOT:
        return False  # `patch` knows the call sites of kernels with a note
    return not isinstance(op.form, KernelFunction) or op.through_gate or op.form.symbol in symbols
