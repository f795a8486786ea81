"""Counting ops that the host does not see: guest code, the kernel's own functions, inlined call sites.

A counter sits on one instruction: an op's first, or the first of a call site that was patched with the op's
own code. It changes nothing that the guest can see, and no instruction count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from paravirt.binding import NULL_SLOT, Slot
from paravirt.hookspecs.tables import TABLES
from paravirt.image.notes import CallSite
from paravirt.machine.engine import Engine
from paravirt.patch import CALL, JMP


class OpCounters:
    """:param enabled: off, nothing is counted and nothing costs anything."""

    def __init__(self, engine: Engine, *, enabled: bool) -> None:
        self._engine, self.enabled = engine, enabled
        self._at: dict[int, str] = {}
        self.on_site: Callable[[CallSite, str], None] | None = None  # a site holds an op's own code from now on
        self.on_slot: Callable[[Slot], None] | None = None  # a slot holds this guest code from now on

    def watch(self, slots: Mapping[str, Slot]) -> None:
        """Count the entries of all guest code. What several ops share counts for the first of them."""
        for name, slot in slots.items():
            if slot.kind != NULL_SLOT and not slot.through_gate:
                self._count(slot.address, name)
                if self.on_slot is not None:
                    self.on_slot(slot)

    def watch_site(self, site: CallSite, code: bytes) -> None:
        """Count a call site that holds an op's own code now; a direct call counts where it goes."""
        if code[:1] not in (bytes([CALL]), bytes([JMP])):
            op = TABLES["paravirt_ops"].words[site.type]
            self._count(site.address, op)
            if self.on_site is not None:
                self.on_site(site, op)

    def _count(self, address: int, name: str) -> None:
        if self.enabled and address not in self._at:
            self._at[address] = name
            self._engine.code.count_at(address)

    def counts(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for address, name in self._at.items():
            total[name] += self._engine.code.counted(address)
        return +total
