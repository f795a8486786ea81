"""MMU calls with one thing about them wrong, and what Xen answers: a literal table.

`WRONG` says what is put in the place of a call's frame, type, flags, place, owner or command. `ANSWERS` has a row for
each shape of a call, that is which call it is and what kind of entry it changes; the row names what can be wrong with
it and gives the answer: minus an errno, FAULT for a store that the kernel gets its page fault for, DROPPED for the one
store that takes the entry's present bit away. Whatever the answer, nothing else changes.

Ref: Xen arch/x86/mm.c (get_page_from_l1e, mod_l?_entry, do_mmu_update, do_mmuext_op, do_update_va_mapping),
arch/x86/pv/ro-page-fault.c; public/xen.h.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import TYPE, WRITABLE
from paravirt_xen.platform.layout import M2P_MACHINE, PAGE

EPERM, ESRCH, EBUSY, EINVAL, EACCES, ENOSYS = -1, -3, -16, -22, -13, -38
FAULT, DROPPED = "fault", "present bit dropped"
Answer = int | str
SELF, IO = 0x7FF0, 0x7FF1
Role = Callable[[Domain], int]


class Wrong(NamedTuple):
    """What takes the place of what is right; None and 0 leave it.

    :ivar frame: what the entry maps, or the operation's first argument. :ivar flags: more of them in the entry.
    :ivar place: where the entry is: a machine address, of update_va_mapping a virtual one.
    :ivar owner: the word that says whose memory it is. :ivar second: the operation's second argument.
    """

    frame: Role | None = None
    flags: int = 0
    place: Role | None = None
    owner: int | None = None
    command: int | None = None
    second: int | None = None


def running_table(domain: Domain) -> int:
    return domain.l3_mfn


def top_table(domain: Domain) -> int:
    """The L2 table that has the hypervisor's entries."""
    return domain.ram.quads[(domain.l3_mfn << 9) + 3] >> 12 & 0xFFFFFF


def level_1_table(domain: Domain) -> int:
    """A table that is in use: the one that maps what the kernel runs."""
    at = domain.l1_entry_address(domain.vcpu.eip | 0xC0000000)
    assert at is not None
    return at >> 12


def data(domain: Domain) -> int:
    """A frame that is mapped writable, so it is no table."""
    frames = domain.frames
    return next(mfn for mfn in domain.p2m if frames.counts[mfn] and frames.info[mfn] & TYPE == WRITABLE)


def unmapped(domain: Domain) -> int:
    """A virtual address for which there is no L1 table."""
    return next(va for va in range(0, domain.hole.start, 2 << 20) if domain.l1_entry_address(va) is None)


def descriptors(domain: Domain) -> int:
    return domain.traps.gdt_frames[0]


WRONG: Mapping[str, Wrong] = {
    # frames
    "the hypervisor's": Wrong(lambda domain: M2P_MACHINE // PAGE),
    "nobody's": Wrong(lambda domain: domain.frames.owners.rindex(0)),
    "I/O": Wrong(lambda domain: 0xA0),
    "no memory": Wrong(lambda domain: domain.machine_frames),
    "far from memory": Wrong(flags=1 << 36),
    "no frame": Wrong(lambda domain: 0xFF_FFFF_FFFF),
    # types
    "data": Wrong(data),
    "an L1 table": Wrong(level_1_table),
    "an L1 table, writable": Wrong(level_1_table, 2),
    "the top table": Wrong(top_table),
    "the top table, writable": Wrong(top_table, 2),
    "the running table": Wrong(running_table),
    "the running table, writable": Wrong(running_table, 2),
    # flags
    "PWT": Wrong(flags=8),
    "PCD": Wrong(flags=0x10),
    "PAT or PS": Wrong(flags=0x80),
    "G": Wrong(flags=0x100),
    "bit 52": Wrong(flags=1 << 52),
    "bit 62": Wrong(flags=1 << 62),
    "NX": Wrong(flags=1 << 63),
    # places
    "in the hypervisor's frame": Wrong(place=lambda domain: M2P_MACHINE),
    "in no memory": Wrong(place=lambda domain: domain.machine_frames * PAGE),
    "in the hypervisor's slot": Wrong(place=lambda domain: top_table(domain) * PAGE + 8 * domain.hole.first_slot),
    "in the last slot": Wrong(place=lambda domain: domain.l3_mfn * PAGE + 24),
    "among descriptors": Wrong(place=lambda domain: descriptors(domain) * PAGE),
    "at the hypervisor's address": Wrong(place=lambda domain: domain.hole.start),
    "where no table is": Wrong(place=unmapped),
    # owners
    "of another domain": Wrong(owner=5),
    "of domain 0": Wrong(owner=0),
    "by its own number": Wrong(owner=1),
    "as I/O": Wrong(data, owner=IO),
    "in domain 0's tables": Wrong(owner=1 << 16 | SELF),
    "in another's tables": Wrong(owner=9 << 16 | SELF),
    # commands and the rest
    "command 4": Wrong(command=4),
    "command 7": Wrong(command=7),
    "command 14": Wrong(command=14),
    "to flush caches": Wrong(command=12),
    "to load a user's table": Wrong(command=15),
    "CPUs at no address": Wrong(second=0),
    "8193 entries": Wrong(second=8193),
    "an odd address": Wrong(lambda domain: 0xC0000008, second=1),
    "a table in the hypervisor's part": Wrong(lambda domain: domain.hole.start, second=1),
}

# ---------------------------------------------------------------------- answers

_L1: dict[str, Answer] = {
    "the hypervisor's": EBUSY, "nobody's": EBUSY, "I/O": EPERM, "no memory": EPERM, "far from memory": EPERM,
    "no frame": EINVAL, "an L1 table, writable": EBUSY, "the top table, writable": EBUSY,
    "the running table, writable": EBUSY,
    "PWT": EINVAL, "PCD": EINVAL, "PAT or PS": EINVAL, "bit 52": EINVAL, "bit 62": EINVAL,
}
_TABLES: dict[str, Answer] = {  # entries of level 2 and 3
    "the hypervisor's": EINVAL, "nobody's": EINVAL, "I/O": EINVAL, "no memory": EINVAL, "far from memory": EINVAL,
    "no frame": EINVAL, "data": EINVAL, "the running table": EINVAL,
    "PWT": EINVAL, "PCD": EINVAL, "PAT or PS": EINVAL, "G": EINVAL, "bit 52": EINVAL, "bit 62": EINVAL,
}
_L2: dict[str, Answer] = {**_TABLES, "the top table, writable": EINVAL}
_L3: dict[str, Answer] = {**_TABLES, "the top table": EINVAL, "an L1 table": EINVAL, "NX": EINVAL}
_UPDATE: dict[str, Answer] = {
    "in the hypervisor's frame": EINVAL, "in no memory": EINVAL, "of another domain": ESRCH, "of domain 0": EPERM,
    "by its own number": ESRCH, "in domain 0's tables": EPERM, "in another's tables": ESRCH, "command 4": ENOSYS,
    "command 7": ENOSYS,
}
_ENTRY: dict[str, Answer] = {**_UPDATE, "in the hypervisor's slot": EPERM, "in the last slot": EINVAL}
_VA: dict[str, Answer] = {
    **_L1, "at the hypervisor's address": EINVAL, "where no table is": EINVAL, "of another domain": ESRCH,
    "of domain 0": EPERM, "by its own number": ESRCH, "as I/O": EBUSY,
}
_OPERATION: dict[str, Answer] = {
    "of another domain": ESRCH, "of domain 0": EPERM, "by its own number": ESRCH, "as I/O": EPERM,
    "command 14": ENOSYS, "to flush caches": EACCES, "to load a user's table": EINVAL,
}
_FRAME: dict[str, Answer] = {
    **_OPERATION, "the hypervisor's": EINVAL, "nobody's": EINVAL, "I/O": EINVAL, "no memory": EINVAL,
    "no frame": EINVAL,
}
_CPUS: dict[str, Answer] = {**_OPERATION, "CPUs at no address": EINVAL}
_FAULTS: dict[str, Answer] = dict.fromkeys(_L1, FAULT)
_LOW = {name: FAULT for name in _FAULTS if name not in ("far from memory", "no frame", "bit 52", "bit 62")}

ANSWERS: Mapping[str, Mapping[str, Answer]] = {
    "mmu_update: L1 entry": {**_L1, **_ENTRY, "as I/O": EBUSY},
    "mmu_update: L1 entry, cleared": {**_L1, **_ENTRY, "as I/O": EBUSY},
    "mmu_update: L1 entry, A and D kept": {**_L1, **_ENTRY, "as I/O": EBUSY},
    "mmu_update: L1 entry, cleared, A and D kept": {**_L1, **_ENTRY, "as I/O": EBUSY},
    "mmu_update: L2 entry": {**_L2, **_ENTRY, "as I/O": EINVAL},
    "mmu_update: L2 entry, cleared": {**_L2, **_ENTRY, "as I/O": EINVAL},
    "mmu_update: L3 entry": {**_L3, **_ENTRY, "as I/O": EINVAL},
    "mmu_update: L3 entry, cleared": {**_L3, **_ENTRY, "as I/O": EINVAL},
    # What is no table may hold anything.
    "mmu_update: memory": {**_UPDATE, "among descriptors": EINVAL},
    "mmu_update: machine to phys": {**_UPDATE, "as I/O": EINVAL},
    "update_va_mapping": _VA,
    "update_va_mapping, cleared": _VA,
    "mmuext_op: PIN_L1_TABLE": {**_FRAME, "data": EINVAL, "the top table": EINVAL, "the running table": EINVAL},
    "mmuext_op: PIN_L2_TABLE": {**_FRAME, "data": EINVAL, "an L1 table": EINVAL, "the running table": EINVAL},
    "mmuext_op: PIN_L3_TABLE": {**_FRAME, "data": EINVAL, "an L1 table": EINVAL, "the top table": EINVAL},
    "mmuext_op: UNPIN_TABLE": {**_FRAME, "data": EINVAL},
    "mmuext_op: NEW_BASEPTR": {**_FRAME, "data": EINVAL, "an L1 table": EINVAL, "the top table": EINVAL},
    "mmuext_op: TLB_FLUSH_LOCAL": _OPERATION,
    "mmuext_op: INVLPG_LOCAL": _OPERATION,
    "mmuext_op: TLB_FLUSH_MULTI": _CPUS,
    "mmuext_op: INVLPG_MULTI": _CPUS,
    "mmuext_op: TLB_FLUSH_ALL": _OPERATION,
    "mmuext_op: INVLPG_ALL": _OPERATION,
    "mmuext_op: SET_LDT": {**_OPERATION, "8193 entries": EINVAL, "an odd address": EINVAL,
                           "a table in the hypervisor's part": EINVAL},
    "mmuext_op: CLEAR_PAGE": {**_FRAME, "an L1 table": EINVAL, "the top table": EINVAL, "the running table": EINVAL},
    "mmuext_op: COPY_PAGE": {**_FRAME, "an L1 table": EINVAL, "the top table": EINVAL, "the running table": EINVAL},
    "store of 8 bytes, locked": _FAULTS,
    "store of 8 bytes, locked, cleared": _FAULTS,
    "store of 4 bytes": _LOW,
    "store of 4 bytes, cleared": _LOW,
    "store of 4 bytes, locked": _LOW,
    "store of 4 bytes, locked, cleared": _LOW,
    # A kernel may write the halves in the wrong order.
    "store of the upper 4 bytes": {"far from memory": DROPPED, "bit 52": DROPPED, "bit 62": DROPPED},
    "store of the upper 4 bytes, cleared": {},  # not present before or behind it: it may be anything
    "store of 1 byte": {"PWT": FAULT, "PCD": FAULT, "PAT or PS": FAULT},
}
