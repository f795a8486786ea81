"""Changes of one entry of an active page table.

Each takes the references of the new entry first, then writes it, then gives those of the old one back: nothing
changes if the new one is refused. A change of flags that mean nothing for safety goes straight through.

Ref: Xen arch/x86/mm.c (mod_l1_entry, mod_l2_entry, mod_l3_entry, FASTPATH_FLAG_WHITELIST).
"""

from __future__ import annotations

from paravirt_xen.platform.errors import EINVAL, EPERM
from paravirt_xen.platform.frames import (
    ACCESSED,
    DIRTY,
    L1_BAD,
    L2_BAD,
    L3_BAD,
    PRESENT,
    RW,
    USER,
    XEN_SLOT,
    Frames,
)

# NX, the bits for software, G, D, A, U: without these, equal entries have equal references.
FREE_FLAGS = 1 << 63 | 0xE00 | 0x100 | DIRTY | ACCESSED | USER
WEIGHTY = (1 << 64) - 1 & ~FREE_FLAGS
KEPT = ACCESSED | DIRTY


def modify_l1(frames: Frames, index: int, new: int, keep: bool = False) -> int:
    """Change an entry of an L1 table; `index` counts 64-bit words of RAM.

    :param keep: or the old accessed and dirty flags into the new entry.
    :return: 0 or an errno.
    """
    old = frames.quads[index]
    if not new & PRESENT:
        frames.store(index, new | old & KEPT if keep else new)
        if old & PRESENT:
            frames.put_l1e(old)
        return 0
    if new & L1_BAD:
        return EINVAL
    if (old ^ new) & WEIGHTY:
        error = frames.get_l1e(new)
        if error:
            return error
        frames.store(index, new | old & KEPT if keep else new)
        if old & PRESENT:
            frames.put_l1e(old)
    else:
        frames.store(index, new | old & KEPT if keep else new)
    return 0


def modify_l2(frames: Frames, index: int, new: int, keep: bool = False) -> int:
    """Change an entry of an L2 table. The TLB is the caller's business."""
    table = index >> 9
    if index & 511 >= frames.guest_slots(table):
        return EPERM
    old = frames.quads[index]
    if new & PRESENT:
        if new & L2_BAD:
            return EINVAL
        if (old ^ new) & WEIGHTY:
            error = frames.get_l2e(new, table)
            if error:
                return error
        else:
            old = 0
    frames.store(index, new | frames.quads[index] & KEPT if keep else new)
    frames.put_l2e(old, table)
    return 0


def modify_l3(frames: Frames, index: int, new: int, keep: bool = False) -> int:
    """Change slot 0, 1 or 2 of an L3 table; the last slot stays for as long as the table is active."""
    if index & 511 >= XEN_SLOT:
        return EINVAL
    old = frames.quads[index]
    if new & PRESENT:
        if new & L3_BAD:
            return EINVAL
        new |= RW | USER
        if (old ^ new) & WEIGHTY:
            error = frames.get_l3e(new)
            if error:
                return error
        else:
            old = 0
    frames.store(index, new | frames.quads[index] & KEPT if keep else new)
    frames.put_l3e(old)
    return 0
