"""Stubs that show each call to Python before it goes on: one JSON object a line.

A stub is ``int 0x83; jmp target``. Its two instructions and what the exit is charged are given back, so that a
traced run is the same run.

``{"ns": 1234, "op": "set_pte_at", "slot": "pv_mmu_ops.set_pte_at", "arguments": {"mm": ..., ...}, "caller":
{"address": ..., "symbol": "do_wp_page+0x1f"}}``; a slot of which 2.6.23 has no op has null for ``op``. What is
jumped to has no caller; of iret the arguments are the frame that it returns to.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from paravirt.errors import GuestFault
from paravirt.hookspecs import op_infos
from paravirt.hookspecs.types import ARGUMENT_REGISTERS
from paravirt.image.linux_ops import JUMPED, LinuxSlot, Word
from paravirt.linuxops.counting import by_op
from paravirt.linuxops.pages import FIRST_SLOT_STUB, MAX_SLOTS, PAGE, STUB_BYTES
from paravirt.linuxops.slots import jump
from paravirt.machine.layout import ESP

if TYPE_CHECKING:
    from paravirt.guest import Guest

INT_83 = b"\xcd\x83"
CALLERS_KEPT = 1 << 16
WORD = 4
ONES = 0xFFFFFFFF
RETURN_ADDRESS = struct.Struct("<I")


def parameters(word: Word) -> list[tuple[str, int]]:
    """The arguments of a slot as the kernel passes them: name, and words of 32 bits."""
    if word.parameters is not None:
        named = (each.partition(":") for each in word.parameters.split())
        return [(name, int(words or 1)) for name, _, words in named]
    if word.name == "iret":
        return [("eip", 1), ("cs", 1), ("eflags", 1)]
    return [(param.name, param.type.words) for param in op_infos()[word.op].params]


class TracingStubs:
    """:param file: where the lines go. It is closed by whoever opened it."""

    def __init__(self, guest: Guest, slots: Sequence[LinuxSlot], file: TextIO) -> None:
        self._machine, self._vcpu = guest.machine, guest.machine.vcpu
        self._symbols, self._file, self._slots = guest.kernel.symbols, file, slots
        self._calls = [0] * MAX_SLOTS
        self._targets: dict[int, int] = {}
        self._named = lru_cache(CALLERS_KEPT)(self._place)
        dispatcher = guest.machine.dispatcher
        gates = list(dispatcher.gates)
        for slot in slots:
            gates[FIRST_SLOT_STUB + slot.type] = self._shown(slot)
        dispatcher.gates = gates

    def code(self, target: int, stub: int) -> bytes:
        self._targets[stub] = target
        return INT_83 + jump(stub + len(INT_83), target)

    def step_over(self, at: int) -> int:
        engine, dispatcher, stub = self._machine.engine, self._machine.dispatcher, at & -STUB_BYTES
        if at == stub:
            engine.refund(-1)  # the exit and the jump are given back
            dispatcher.traps += 1
            dispatcher.gates[stub % PAGE // STUB_BYTES]()
        engine.refund(-1)
        return self._targets[stub]

    def counts(self) -> Counter[str]:
        """Calls so far."""
        return by_op(self._slots, self._calls)

    def _shown(self, slot: LinuxSlot) -> Callable[[], None]:
        """What the stub of `slot` calls."""
        engine, dispatcher, calls, number = self._machine.engine, self._machine.dispatcher, self._calls, slot.type
        quads, write, where = self._vcpu.state.quads, self._file.write, self._caller
        word, named = slot.word, parameters(slot.word)
        registers, on_stack = places(named, in_frame=word.name == "iret")
        line = _line(slot, [name for name, _ in named])
        jumped = word.convention == JUMPED
        first = 0 if jumped else WORD

        def show() -> None:
            dispatcher.traps -= 1  # the exit is ours, not the guest's
            calls[number] += 1
            engine.refund(1)
            values: list[object] = [quads[low] & ONES if high < 0 else quads[low] & ONES | (quads[high] & ONES) << 32
                                    for low, high in registers]
            esp = quads[ESP] & ONES
            if on_stack.size:
                values += self._stack(on_stack, esp + first)
            write(line % (engine.now(), *values, "null" if jumped else where(esp)))
            engine.refund(1)  # for the jump to come

        return show

    def _stack(self, form: struct.Struct, address: int) -> Sequence[object]:
        try:
            return form.unpack(self._vcpu.read(address, form.size))
        except GuestFault:
            return ["null"] * len(form.unpack(bytes(form.size)))

    def _caller(self, esp: int) -> str:
        address, = self._stack(RETURN_ADDRESS, esp)
        return self._named(address) if isinstance(address, int) else "null"

    def _place(self, address: int) -> str:
        return json.dumps({"address": address, "symbol": self._symbols.nearest(address)})


def places(named: Sequence[tuple[str, int]], *, in_frame: bool) -> tuple[list[tuple[int, int]], struct.Struct]:
    """Where gcc's regparm(3) puts arguments: registers (low, high or -1) of the first, the stack's form of the rest."""
    free = [] if in_frame else list(ARGUMENT_REGISTERS)
    registers: list[tuple[int, int]] = []
    form = "<"
    for _, words in named:
        if words <= len(free):
            registers.append((free[0], free[1] if words == 2 else -1))
            free = free[words:]
        else:
            free = []
            form += "IQ"[words - 1]
    return registers, struct.Struct(form)


def _line(slot: LinuxSlot, names: Sequence[str]) -> str:
    """A line as a format: the time, the arguments, the caller are to be filled in."""
    arguments = ", ".join(f"{json.dumps(name)}: %s" for name in names)
    return (f'{{"ns": %d, "op": {json.dumps(slot.word.op or None)}, "slot": "{slot.table}.{slot.word.name}", '
            f'"arguments": {{{arguments}}}, "caller": %s}}\n')
