"""Stubs that are counted: a single jump each, run as a part of the call, at no cost of instructions or time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from paravirt.image.linux_ops import LinuxSlot
from paravirt.linuxops.pages import MAX_SLOTS, StubPages
from paravirt.linuxops.slots import jump
from paravirt.machine.engine import Engine
from paravirt.machine.stubs import StubCounter


def by_op(slots: Sequence[LinuxSlot], calls: Sequence[int]) -> Counter[str]:
    """Calls by op of the hook specification; what it does not have counts under Linux's own name."""
    counts: Counter[str] = Counter()
    for slot in slots:
        counts[slot.word.op or slot.word.name] += calls[slot.type]
    return +counts


class CountingStubs:
    """:param slots: all of the kernel's."""

    def __init__(self, engine: Engine, slots: Sequence[LinuxSlot], pages: StubPages) -> None:
        self._slots = slots
        self._counter = StubCounter(engine, pages.slot_stub(0), MAX_SLOTS)
        self._targets: dict[int, int] = {}

    def code(self, target: int, stub: int) -> bytes:
        self._targets[stub] = target
        return jump(stub, target)

    def step_over(self, at: int) -> int:
        self._counter.step_over(at)
        return self._targets[at]

    def counts(self) -> Counter[str]:
        """Calls so far."""
        return by_op(self._slots, self._counter.counts())
