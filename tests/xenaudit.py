"""Counts the references of a domain's frames anew, from its page tables alone, and compares.

This is the other way to the numbers that `Frames` keeps up step by step: all active tables are read, entry by entry.
"""

from __future__ import annotations

from collections import Counter

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import (
    DESCRIPTORS,
    L1,
    L1_BAD,
    L2,
    L2_BAD,
    L3,
    L3_BAD,
    MFN,
    PINNED,
    PRESENT,
    RELEASED,
    RW,
    SPECIAL,
    TYPE,
    WRITABLE,
    XEN_L2,
)


class Audit:
    """Everything that the active tables of a domain refer to.

    The hypervisor itself holds a few frames writable for good: console, store, the vcpu_info where the guest has put
    it, its queues of events. Of those, more references are counted than the tables have.

    :ivar types: uses of a type, by (frame, type); :ivar refs: references, by frame.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain, self.frames = domain, domain.frames
        self.types: Counter[tuple[int, int]] = Counter()
        self.refs: Counter[int] = Counter()
        self.problems: list[str] = []
        for mfn in range(self.frames.total):
            self._frame(mfn)
        self._use(domain.l3_mfn, L3)
        traps = getattr(domain, "traps", None)
        for mfn in [*domain.ldt.shown.values(), *(traps.gdt_frames if traps is not None else ())]:
            self._use(mfn, DESCRIPTORS)
        self.held = {domain.console_mfn, domain.store_mfn, domain.vcpu_info >> 12,
                     *domain.events.bits.frames()} if traps is not None else set()
        self._compare()

    def _use(self, mfn: int, kind: int) -> None:
        self.types[mfn, kind] += 1
        self.refs[mfn] += 1

    def _frame(self, mfn: int) -> None:
        frames, info = self.frames, self.frames.info[mfn]
        if info & PINNED:
            self._use(mfn, info & TYPE)
        if frames.owners[mfn] == SPECIAL:
            self._use(mfn, WRITABLE)
        if not frames.counts[mfn] or not L1 <= info & TYPE <= L3:
            return
        entries = frames.quads[mfn << 9 : (mfn << 9) + 512].tolist()
        for slot, entry in enumerate(entries):
            if entry & PRESENT:
                (self._l1e, self._l2e, self._l3e)[(info & TYPE) - 1](mfn, slot, entry)

    def _l1e(self, table: int, slot: int, entry: int) -> None:
        mfn = entry >> 12 & MFN
        if entry & L1_BAD or not self.frames.owned(mfn):
            self.problems.append(f"entry {slot} of the L1 {table:#x} is {entry:#x}")
            return
        self.refs[mfn] += 1
        if entry & RW:
            self.types[mfn, WRITABLE] += 1

    def _l2e(self, table: int, slot: int, entry: int) -> None:
        mfn = entry >> 12 & MFN
        if self.frames.info[table] & XEN_L2 and slot >= self.frames.first_xen_slot:
            return
        if entry & L2_BAD or not self.frames.owned(mfn):
            self.problems.append(f"entry {slot} of the L2 {table:#x} is {entry:#x}")
        elif self.frames.info[mfn] & TYPE == L2:
            if entry & RW:
                self.problems.append(f"entry {slot} of the L2 {table:#x} maps a table writable")
            if mfn != table:
                self._use(mfn, L2)
        else:
            self._use(mfn, L1)

    def _l3e(self, table: int, slot: int, entry: int) -> None:
        mfn = entry >> 12 & MFN
        if slot > 3 or entry & (L3_BAD & ~6) or not self.frames.owned(mfn):
            self.problems.append(f"entry {slot} of the L3 {table:#x} is {entry:#x}")
        if bool(self.frames.info[mfn] & XEN_L2) != (slot == 3):
            self.problems.append(f"the L2 {mfn:#x} in slot {slot}")
        self._use(mfn, L2)

    def _compare(self) -> None:
        frames = self.frames
        uses: dict[int, list[int]] = {}
        for (mfn, kind), _count in self.types.items():
            uses.setdefault(mfn, []).append(kind)
        for mfn, kinds in uses.items():
            if len(kinds) > 1:
                self.problems.append(f"frame {mfn:#x} is of the types {kinds} at once")
            elif kinds[0] != frames.info[mfn] & TYPE:
                self.problems.append(f"frame {mfn:#x} is used as {kinds[0]}, its type is {frames.info[mfn] & TYPE}")
        for mfn in range(frames.total):
            count = sum(self.types[mfn, kind] for kind in uses.get(mfn, ()))
            held = frames.counts[mfn] - count if mfn in self.held else 0
            if held < 0 or (frames.counts[mfn], frames.refs[mfn]) != (count + held, self.refs[mfn] + held):
                self.problems.append(f"frame {mfn:#x} counts {frames.counts[mfn]} and {frames.refs[mfn]}, "
                                     f"but the tables say {count} and {self.refs[mfn]}")
            if frames.info[mfn] & RELEASED and not (frames.owners[mfn] and frames.refs[mfn]):
                self.problems.append(f"frame {mfn:#x} is given away, and not free")


def audit(domain: Domain) -> None:
    """Fail if anything about the domain's frames is not as its page tables say."""
    problems = Audit(domain).problems
    assert not problems, "; ".join(problems[:5])
