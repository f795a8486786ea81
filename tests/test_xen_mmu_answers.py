"""What each MMU call of a boot answers when one thing about it is wrong.

The script is what a Linux kernel does to its page tables on the way to its first process, call by call. Each is made
with its frame, its type or its flags wrong, at its place in the script; ANSWERS says literally what comes of it, and
nothing else may change: the entry is kept, no count moves. Then the right call is made and the script goes on.

Ref: Xen arch/x86/mm.c; Linux arch/x86/xen/mmu.c (xen_setup_kernel_pagetable, xen_pgd_pin, xen_exit_mmap).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from paravirt_xen.platform.errors import HypercallError
from paravirt_xen.platform.mmu import mmu_update, update_va_mapping, update_va_mapping_otherdomain
from paravirt_xen.platform.mmuext import mmuext_op
from paravirt_xen.platform.ptwrite import Refused, Target
from tests.xenaudit import audit
from tests.xenmemory import BASE_VA, FRAMES, XEN_SLOT_FIRST, FakeDomain

EPERM, ESRCH, EBUSY, EINVAL = -1, -3, -16, -22
FAULT, DONE = "fault", 0
SELF, IO = 0x7FF0, 0x7FF1
REQUEST = BASE_VA + 0x40000
# pfns: two L1 tables, an L2, an L3, the L2 of the top gigabyte, two pages of data
L1A, L1B, L2, L3, TOP, DATA, MORE = range(0x80, 0x87)


class Wrong(NamedTuple):
    """What is wrong with a call: another frame, flags that are added, another place, another domain."""

    frame: Callable[[FakeDomain], int] | None = None
    flags: int = 0
    place: Callable[[FakeDomain], int] | None = None
    domain: int = SELF


RIGHT = Wrong()
WRONG: Mapping[str, Wrong] = {
    "the hypervisor's frame": Wrong(lambda d: 0x300),
    "no memory": Wrong(lambda d: FRAMES),
    "I/O": Wrong(lambda d: 0xA0),
    "no frame": Wrong(lambda d: 0xFF_FFFF_FFFF),
    "a table": Wrong(lambda d: d.base.l2s[0]),
    "the top table": Wrong(lambda d: d.base.l2s[3]),
    "data": Wrong(lambda d: int(d.p2m[0x60])),
    "PCD": Wrong(flags=0x10),
    "PAT or large": Wrong(flags=0x80),
    "G": Wrong(flags=0x100),
    "bit 52": Wrong(flags=1 << 52),
    "NX": Wrong(flags=1 << 63),
    "in the hypervisor's frame": Wrong(place=lambda d: 0x300 << 12),
    "in no memory": Wrong(place=lambda d: FRAMES << 12),
    "in the hypervisor's slot": Wrong(place=lambda d: (d.base.l2s[3] << 12) + 8 * XEN_SLOT_FIRST),
    "in the last slot": Wrong(place=lambda d: (d.base.l3 << 12) + 24),
    "for another domain": Wrong(domain=5),
    "for domain 0": Wrong(domain=0),
    "for I/O": Wrong(domain=IO),
    "by its own number": Wrong(domain=1),
    "in another's tables": Wrong(domain=1 << 16 | SELF),
    "in nobody's tables": Wrong(domain=9 << 16 | SELF),
}


def mfn(domain: FakeDomain, pfn: int) -> int:
    return int(domain.p2m[pfn])


def request(domain: FakeDomain, data: bytes, handler: Callable[..., int], owner: int) -> int:
    domain.ram.write(mfn(domain, 0x40) << 12, data)
    try:
        return handler(domain, REQUEST, 1, 0, owner)
    except HypercallError as error:
        return -error.errno


class Step:
    """One call of the script. `place` is where its entry is; `kept` finds the entry that must not change."""

    def __init__(self, pfn: int, flags: int, place: Callable[[FakeDomain], int]) -> None:
        self.pfn, self.flags, self.place = pfn, flags, place

    def value(self, domain: FakeDomain, wrong: Wrong) -> int:
        frame = mfn(domain, self.pfn) if wrong.frame is None else wrong.frame(domain)
        return frame << 12 | self.flags | wrong.flags

    def kept(self, domain: FakeDomain) -> int:
        return int(domain.ram.quads[self.place(domain) >> 3])

    def make(self, domain: FakeDomain, wrong: Wrong) -> int | str:
        raise NotImplementedError


class Update(Step):
    """mmu_update with one request."""

    command = 0

    def make(self, domain: FakeDomain, wrong: Wrong) -> int | str:
        at = (wrong.place or self.place)(domain) | self.command
        return request(domain, struct.pack("<QQ", at, self.value(domain, wrong)), mmu_update, wrong.domain)


class Preserve(Update):
    command = 2


class VaMapping(Step):
    """update_va_mapping of the direct mapping of `pfn`."""

    def __init__(self, pfn: int, flags: int) -> None:
        super().__init__(pfn, flags, lambda d: (d.base.l1s[pfn >> 9] << 12) + 8 * (pfn & 511))

    def make(self, domain: FakeDomain, wrong: Wrong) -> int | str:
        va = BASE_VA + self.pfn * 4096
        if wrong.domain == SELF:
            return update_va_mapping(domain, va, self.value(domain, wrong), 0)
        try:
            return update_va_mapping_otherdomain(domain, va, self.value(domain, wrong), 0, wrong.domain)
        except HypercallError as error:
            return -error.errno


class Direct(Step):
    """A store of eight bytes to a read-only table."""

    def make(self, domain: FakeDomain, wrong: Wrong) -> int | str:
        at = self.place(domain)
        try:
            Target(domain.frames, at >> 12, at & 4095, 8).write(self.value(domain, wrong))
        except Refused:
            return FAULT
        return DONE


class Extended(Step):
    """mmuext_op with one operation on a frame."""

    def __init__(self, command: int, pfn: int | None) -> None:
        super().__init__(0 if pfn is None else pfn, 0, lambda d: d.base.l3 << 12)
        self.command = command

    def make(self, domain: FakeDomain, wrong: Wrong) -> int | str:
        frame = mfn(domain, self.pfn) if wrong.frame is None else wrong.frame(domain)
        data = struct.pack("<III", self.command, frame & 0xFFFFFFFF, 0)
        return request(domain, data, mmuext_op, wrong.domain)


def in_table(pfn: int, slot: int) -> Callable[[FakeDomain], int]:
    return lambda domain: (mfn(domain, pfn) << 12) + 8 * slot


SCRIPT: Mapping[str, Step] = {
    "make an L1 read-only": VaMapping(L1A, 0x61),
    "make another L1 read-only": VaMapping(L1B, 0x61),
    "make an L2 read-only": VaMapping(L2, 0x61),
    "make the top L2 read-only": VaMapping(TOP, 0x61),
    "make an L3 read-only": VaMapping(L3, 0x61),
    "pin an L1": Extended(0, L1A),
    "map it": Update(L1A, 0x67, lambda d: (d.base.l2s[3] << 12) + 8 * 300),
    "store to it": Direct(DATA, 0x63, in_table(L1A, 3)),
    "pin an L3": Extended(2, L3),
    "run on it": Extended(5, L3),
    "map the other L1": Update(L1B, 0x67, in_table(L2, 0)),
    "map a page": Update(DATA, 0x67, in_table(L1B, 1)),
    "protect it": Preserve(DATA, 0x25, in_table(L1B, 1)),
    "replace an L2": Update(L2, 1, in_table(L3, 1)),
    "clear a page": Extended(16, MORE),
    "run on the first tables": Extended(5, 0),
    "unpin the L3": Extended(4, L3),
}

_ENTRY_OF_L1: dict[str, int | str] = {
    "the hypervisor's frame": EBUSY, "no memory": EPERM, "I/O": EPERM, "no frame": EINVAL, "PCD": EINVAL,
    "PAT or large": EINVAL, "bit 52": EINVAL,
}
_ENTRY_OF_TABLE: dict[str, int | str] = {
    "the hypervisor's frame": EINVAL, "no memory": EINVAL, "I/O": EINVAL, "no frame": EINVAL, "data": EINVAL,
    "PCD": EINVAL, "PAT or large": EINVAL, "G": EINVAL, "bit 52": EINVAL,
}
_PLACES: dict[str, int | str] = {
    "in the hypervisor's frame": EINVAL, "in no memory": EINVAL, "in the hypervisor's slot": EPERM,
    "in the last slot": EINVAL, "for another domain": ESRCH, "for domain 0": EPERM, "by its own number": ESRCH,
    "in another's tables": EPERM, "in nobody's tables": ESRCH,
}
_FRAMES: dict[str, int | str] = {
    "the hypervisor's frame": EINVAL, "no memory": EINVAL, "I/O": EINVAL, "no frame": EINVAL,
    "for another domain": ESRCH, "for domain 0": EPERM, "for I/O": EPERM, "by its own number": ESRCH,
}
_VA: dict[str, int | str] = {
    **_ENTRY_OF_L1, "for another domain": ESRCH, "for domain 0": EPERM, "for I/O": EBUSY, "by its own number": ESRCH,
}
_PIN: dict[str, int | str] = {**_FRAMES, "the top table": EINVAL, "data": EINVAL}
ANSWERS: Mapping[str, Mapping[str, int | str]] = {
    "make an L1 read-only": _VA,
    "make the top L2 read-only": _VA,
    "pin an L1": {**_PIN, "a table": EINVAL},
    "map it": {**_ENTRY_OF_TABLE, **_PLACES, "a table": EINVAL, "the top table": EINVAL, "for I/O": EINVAL},
    "store to it": {name: FAULT for name in (*_ENTRY_OF_L1, "a table", "the top table")},
    "pin an L3": {**_PIN, "a table": EINVAL},
    "run on it": {**_PIN, "a table": EINVAL},
    "map the other L1": {**_ENTRY_OF_TABLE, **_PLACES, "a table": EINVAL, "the top table": EINVAL, "for I/O": EINVAL},
    "map a page": {**_ENTRY_OF_L1, **_PLACES, "a table": EBUSY, "the top table": EBUSY, "for I/O": EBUSY},
    "protect it": {**_ENTRY_OF_L1, **_PLACES, "for I/O": EBUSY},
    "replace an L2": {**_ENTRY_OF_TABLE, **_PLACES, "NX": EINVAL, "the top table": EINVAL, "for I/O": EINVAL},
    "clear a page": {**_FRAMES, "a table": EINVAL, "the top table": EINVAL},
    "run on the first tables": {**_PIN, "a table": EINVAL},
    "unpin the L3": {**_FRAMES, "a table": EINVAL, "data": EINVAL},
}
CASES = [(step, wrong) for step, answers in ANSWERS.items() for wrong in answers]


def prepare(domain: FakeDomain) -> None:
    """What the kernel has written to its tables before they are tables."""
    base = domain.base
    for slot in range(3):
        domain.poke(mfn(domain, L3), slot, (mfn(domain, L2) if slot == 0 else base.l2s[slot]) << 12 | 1)
    domain.poke(mfn(domain, L3), 3, mfn(domain, TOP) << 12 | 1)
    for slot in range(4):
        domain.poke(mfn(domain, TOP), slot, domain.entry(base.l2s[3], slot))


def everything(domain: FakeDomain) -> tuple[bytes, ...]:
    frames = domain.frames
    return bytes(frames.counts), bytes(frames.refs), bytes(frames.owners), bytes(frames.info)


@pytest.mark.parametrize("step, wrong", CASES, ids=[f"{step}: {wrong}" for step, wrong in CASES])
def test_a_wrong_call_changes_nothing(step: str, wrong: str) -> None:
    domain = FakeDomain()
    prepare(domain)
    for name, call in SCRIPT.items():
        if name == step:
            before, entry = everything(domain), call.kept(domain)
            assert call.make(domain, WRONG[wrong]) == ANSWERS[step][wrong]
            assert (everything(domain), call.kept(domain)) == (before, entry)
        assert call.make(domain, RIGHT) == DONE, name
    audit(domain)
