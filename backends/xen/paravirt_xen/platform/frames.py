"""Every machine frame: whose it is, what it is used for, and how often.

The guest's page tables are the CPU's, so they must never translate to memory that is not the guest's, nor let it
write a page table past the hypervisor. A frame has one type at a time (a table of level 1, 2 or 3, a page of
descriptors, or writable) and a count of the uses of that type; it can change when the count is zero. A page table
is validated entry by entry when its count leaves zero: each entry takes a reference of what it maps, and gives it
back when the entry is replaced or the count comes to zero again. Hence an active table is always valid, and no
active table is mapped writable.

Beside it stands the count of all references. A frame that the domain has given away is free when it is zero.

The tables here are plain arrays, indexed by frame; the C of this platform works on the same ones.

Ref: Xen arch/x86/mm.c (get_page_from_l1e, promote_l1_table ..., _get_page_type, put_page_type), asm/mm.h (PGT_*).
What Xen keeps for other processors and for interrupted work is left out: one CPU, and nothing here is long.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from paravirt_xen.platform.errors import EBUSY, EINVAL, EPERM

NONE, L1, L2, L3, DESCRIPTORS, WRITABLE = 0, 1, 2, 3, 5, 7
TYPE, PINNED, XEN_L2, RELEASED = 7, 8, 16, 32  # bits of `Frames.info`; XEN_L2: holds the hypervisor's entries
DOMAIN, SPECIAL = 1, 2  # owners; SPECIAL: the hypervisor's page, shared with the domain

PRESENT, RW, USER, ACCESSED, DIRTY = 1, 2, 4, 0x20, 0x40
MFN = 0xFF_FFFF_FFFF  # entry >> 12 & MFN
NO_MFN = MFN  # what Linux writes where it has no frame
# Flags that a guest must not set. PWT, PCD and PAT: a domain without devices has no uncached memory. PSE: no large
# pages. G: in the last level only. Bits 52 to 62 are reserved in PAE, and the CPU faults on them.
L1_BAD, L2_BAD, L3_BAD = 0x7FF << 52 | 0x098, 0x7FF << 52 | 0x198, 0xFFF << 52 | 0x198
L3_ENTRIES, XEN_SLOT = 4, 3
IO_FRAMES = 0x100  # the first megabyte is no RAM


class Frames:
    """
    :param quads: RAM in 64-bit words.
    :param code_pages: a byte a frame, not 0 if code was translated from it; None where that is not known.
    :param invalidate: forgets code translated from [start, end) of machine memory.
    :param flush: flushes the whole TLB.
    :ivar owners: 0, DOMAIN or SPECIAL. :ivar info: type and flags.
    :ivar counts: uses of the type; of what is no table, writable mappings.
    :ivar refs: references of any kind: entries that map the frame, pins, the CPU, descriptor tables.
    :ivar stamps: `clock` when the last writable mapping went. :ivar clock: one word, the number of whole TLB flushes.
    :ivar first_xen_slot: from here on, entries of the L2 table of the top gigabyte are the hypervisor's, which
        `install_xen_slots` writes.
    :ivar validations: how often a frame was looked through to become of a type, by type.
    :ivar linear: tables of level 2 that stand in others as if of level 1: how many it has (> 0), in how many (< 0).
    """

    def __init__(self, quads: memoryview, code_pages: Sequence[int] | None,
                 invalidate: Callable[[int, int], None], flush: Callable[[], None]) -> None:
        self.quads, self.code_pages = quads, code_pages
        self.total = total = len(quads) >> 9
        self._invalidate, self._flush = invalidate, flush
        self.owners, self.info = bytearray(total), bytearray(total)
        self.counts, self.refs, self.stamps = (array("I", bytes(4 * total)) for _ in range(3))
        self.clock, self.validations = array("I", (1,)), [0] * (TYPE + 1)
        self.linear: dict[int, int] = {}
        self.first_xen_slot = 512
        self.install_xen_slots: Callable[[int], None] = lambda mfn: None
        self.validate_descriptors: Callable[[int], bool] = lambda mfn: False
        self.on_free: Callable[[int], None] = lambda mfn: None
        # C for a whole table of level 1 (tables.c): whether it has done it. If not, it has changed nothing.
        self.promote_l1: Callable[[int], int] = lambda mfn: False
        self.demote_l1: Callable[[int], int] = lambda mfn: False

    # ------------------------------------------------------------------ frames

    def adopt(self, mfns: Iterable[int]) -> None:
        """Give frames to the domain."""
        for mfn in mfns:
            self.owners[mfn] = DOMAIN  # the type stays: the TLB may know it writable from an earlier life

    def share(self, mfn: int) -> None:
        """Let the domain map a frame of the hypervisor's, and write it; it never becomes anything else."""
        self.owners[mfn], self.info[mfn] = SPECIAL, WRITABLE
        self.counts[mfn] = self.refs[mfn] = 1

    def owned(self, mfn: int) -> bool:
        """Whether the domain may refer to the frame."""
        return mfn < self.total and self.owners[mfn] != 0

    def is_table(self, mfn: int, level: int) -> bool:
        """Whether the frame is an active page table of that level."""
        return mfn < self.total and self.info[mfn] & TYPE == level and self.counts[mfn] != 0

    def is_page_table(self, mfn: int) -> bool:
        """Whether the frame is an active page table of any level."""
        return mfn < self.total and L1 <= self.info[mfn] & TYPE <= L3 and self.counts[mfn] != 0

    def release(self, mfn: int) -> None:
        """The domain gives a frame away: it is free when the last reference has gone."""
        self.info[mfn] |= RELEASED
        if not self.refs[mfn]:
            self._free(mfn)

    def _free(self, mfn: int) -> None:
        self.owners[mfn] = 0
        self.info[mfn] &= TYPE
        self.on_free(mfn)

    # ------------------------------------------------------------------ memory and TLB

    def store(self, index: int, value: int) -> None:
        """Write a page-table entry; `index` counts 64-bit words of RAM.

        Code that runs from a page table is not looked for where that costs much; `_demote` makes up for it.
        """
        self.quads[index] = value
        if self.code_pages is not None and self.code_pages[index >> 9]:
            self._invalidate(index << 3, (index << 3) + 8)

    def flush(self) -> None:
        """Flush the whole TLB."""
        self.clock[0] += 1
        self._flush()

    def _unwritable(self, mfn: int) -> None:
        """The CPU may still hold a writable translation of a frame that is about to become something else."""
        if self.stamps[mfn] >= self.clock[0]:
            self.flush()

    # ------------------------------------------------------------------ types

    def get_type(self, mfn: int, wanted: int) -> int:
        """Take a reference of the frame as `wanted` (a type, perhaps with XEN_L2); returns 0 or an errno."""
        if not self.owned(mfn):
            return EINVAL
        info = self.info[mfn]
        if self.counts[mfn]:
            if info & (TYPE | XEN_L2) != wanted:
                return EINVAL
            self.counts[mfn] += 1
            self.refs[mfn] += 1
            return 0
        self.info[mfn] = info & ~(TYPE | XEN_L2) | wanted
        self.counts[mfn] = 1
        self.refs[mfn] += 1
        if wanted == WRITABLE:
            return 0
        if info & TYPE == WRITABLE:
            self._unwritable(mfn)
        error = self._promote(mfn, wanted)
        if error:
            self.counts[mfn] = 0
            self.info[mfn] &= ~(TYPE | XEN_L2)
            self._put_page(mfn)
        return error

    def put_type(self, mfn: int) -> None:
        """Give a reference back that `get_type` took."""
        if self.counts[mfn] == 1:
            kind = self.info[mfn] & TYPE
            if kind == WRITABLE:
                self.stamps[mfn] = self.clock[0]
            else:
                self._demote(mfn, kind)
        self.counts[mfn] -= 1
        self._put_page(mfn)

    def _put_page(self, mfn: int) -> None:
        self.refs[mfn] -= 1
        if not self.refs[mfn] and self.info[mfn] & RELEASED:
            self._free(mfn)

    def _promote(self, mfn: int, wanted: int) -> int:
        kind = wanted & TYPE
        self.validations[kind] += 1
        if kind == L1:
            return self._promote_l1(mfn)
        if kind == L2:
            return self._promote_l2(mfn, wanted)
        if kind == L3:
            return self._promote_l3(mfn)
        return 0 if self.validate_descriptors(mfn) else EINVAL

    def _demote(self, mfn: int, kind: int) -> None:
        base = mfn << 9
        if kind == L1:
            if not self.demote_l1(mfn):
                for entry in self.quads[base : base + 512].tolist():
                    if entry & PRESENT:
                        self.put_l1e(entry)
        elif kind == L2:
            for entry in self.quads[base : base + self.guest_slots(mfn)].tolist():
                table = entry >> 12 & MFN
                if entry & PRESENT and self.info[table] & TYPE == L1 and self.counts[table] > 1:
                    self.counts[table] -= 1  # the usual case, in short: it stays active
                    self.refs[table] -= 1
                else:
                    self.put_l2e(entry, mfn)
            self.info[mfn] &= ~XEN_L2
        elif kind == L3:
            for index in range(L3_ENTRIES):
                self.put_l3e(self.quads[base + index])
            self._unadjust(base, L3_ENTRIES)
        if self.code_pages is None or self.code_pages[mfn]:
            self._invalidate(mfn << 12, (mfn + 1) << 12)

    # ------------------------------------------------------------------ level 1

    def get_l1e(self, entry: int) -> int:
        """Take the references of a present entry; returns 0 or an errno."""
        if entry & L1_BAD:
            return EINVAL
        mfn = entry >> 12 & MFN
        if mfn >= self.total or (mfn < IO_FRAMES and not self.owners[mfn]):
            return EINVAL if mfn == NO_MFN else EPERM
        if not self.owners[mfn]:
            return EBUSY
        if entry & RW:
            if self.info[mfn] & TYPE != WRITABLE:
                if self.counts[mfn]:
                    return EBUSY
                self.info[mfn] = self.info[mfn] & ~TYPE | WRITABLE
            self.counts[mfn] += 1
        self.refs[mfn] += 1
        return 0

    def put_l1e(self, entry: int) -> None:
        """Give back what a present entry took."""
        mfn = entry >> 12 & MFN
        if entry & RW:
            self.counts[mfn] -= 1
            if not self.counts[mfn]:
                self.stamps[mfn] = self.clock[0]
        self.refs[mfn] -= 1
        if not self.refs[mfn] and self.info[mfn] & RELEASED:
            self._free(mfn)

    def _promote_l1(self, mfn: int) -> int:
        if self.promote_l1(mfn):
            return 0
        taken: list[int] = []
        for entry in self.quads[mfn << 9 : (mfn << 9) + 512].tolist():
            if entry & PRESENT:
                error = self.get_l1e(entry)
                if error:
                    for given in taken:
                        self.put_l1e(given)
                    return error
                taken.append(entry)
        return 0

    # ------------------------------------------------------------------ level 2

    def guest_slots(self, mfn: int) -> int:
        """How many entries of a table of level 2 are the guest's; the others are the hypervisor's."""
        return self.first_xen_slot if self.info[mfn] & XEN_L2 else 512

    def get_l2e(self, entry: int, table: int) -> int:
        """Take the references of a present entry of the level 2 table `table`; returns 0 or an errno."""
        if entry & L2_BAD:
            return EINVAL
        error = self.get_type(entry >> 12 & MFN, L1)
        return 0 if error == EINVAL and self._get_linear(entry, table) else error

    def put_l2e(self, entry: int, table: int) -> None:
        """Give back what an entry of `table` took, if it is present."""
        mfn = entry >> 12 & MFN
        if not entry & PRESENT or mfn == table:
            return
        if self.info[mfn] & TYPE == L2:
            self._count_linear(mfn, 1)
            self._count_linear(table, -1)
        self.put_type(mfn)

    def _get_linear(self, entry: int, table: int) -> bool:
        """A guest may see its page tables through a table of level 2 that stands, read-only, where one of level 1
        belongs, in itself or in another one; not in more than one step."""
        mfn = entry >> 12 & MFN
        if entry & RW:
            return False
        if mfn == table:
            return True
        if not self.is_table(mfn, L2) or self.linear.get(table, 0) < 0 or self.linear.get(mfn, 0) > 0:
            return False
        self._count_linear(table, 1)
        self._count_linear(mfn, -1)
        self.counts[mfn] += 1
        self.refs[mfn] += 1
        return True

    def _count_linear(self, mfn: int, change: int) -> None:
        self.linear[mfn] = self.linear.get(mfn, 0) + change
        if not self.linear[mfn]:
            del self.linear[mfn]

    def _promote_l2(self, mfn: int, wanted: int) -> int:
        base = mfn << 9
        info, counts, refs = self.info, self.counts, self.refs
        taken: list[int] = []
        for entry in self.quads[base : base + self.guest_slots(mfn)].tolist():
            if entry & PRESENT:
                table = entry >> 12 & MFN
                if not entry & L2_BAD and table < self.total and info[table] & TYPE == L1 and counts[table]:
                    counts[table] += 1  # the usual case, in short: it is active already
                    refs[table] += 1
                elif error := self.get_l2e(entry, mfn):
                    for given in taken:
                        self.put_l2e(given, mfn)
                    return error
                taken.append(entry)
        if wanted & XEN_L2:
            self.install_xen_slots(mfn)
        return 0

    # ------------------------------------------------------------------ level 3

    def get_l3e(self, entry: int) -> int:
        """Take the references of a present entry in slot 0, 1 or 2; returns 0 or an errno."""
        return EINVAL if entry & L3_BAD else self.get_type(entry >> 12 & MFN, L2)

    def put_l3e(self, entry: int) -> None:
        """Give back what an entry took, if it is present."""
        if entry & PRESENT:
            self.put_type(entry >> 12 & MFN)

    def _promote_l3(self, mfn: int) -> int:
        base = mfn << 9
        for index in range(L3_ENTRIES, 512):
            if self.quads[base + index]:
                self.store(base + index, 0)
        for index in range(L3_ENTRIES):
            entry = self.quads[base + index]
            error = 0
            if index == XEN_SLOT:
                error = self._get_xen_slot(entry)
            elif entry & PRESENT:
                error = self.get_l3e(entry)
            if error:
                for given in self.quads[base : base + index]:
                    self.put_l3e(given)
                self._unadjust(base, index)
                return error
            if entry & PRESENT:
                self.store(base + index, entry | RW | USER)
        return 0

    def _get_xen_slot(self, entry: int) -> int:
        """The last gigabyte holds the hypervisor's own entries: its table must exist, and be in no other one."""
        if not entry & PRESENT or entry & L3_BAD:
            return EINVAL
        mfn = entry >> 12 & MFN
        error = self.get_type(mfn, L2 | XEN_L2)
        if not error and self.counts[mfn] != 1:
            self.put_type(mfn)
            return EINVAL
        return error

    def _unadjust(self, base: int, slots: int) -> None:
        """Entries of level 3 have the flags of Xen's own level 3 only while the table is active."""
        for index in range(base, base + slots):
            if self.quads[index] & PRESENT:
                self.store(index, self.quads[index] & ~(RW | USER | ACCESSED))
