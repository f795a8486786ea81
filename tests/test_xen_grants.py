"""Grants that a domain gives itself, by its own number.

What must hold: what an entry grants can be mapped with the rights that it gives, at an address or into a page-table
entry, and copied; an entry in use shows it in its flags and stays what it was; undoing a mapping needs its handle and
an entry that still maps the page so. A page table is never mapped writable this way either. What is refused changes
nothing, and whatever happens, references are those that the page tables have.

Ref: Xen common/grant_table.c, arch/x86/pv/grant_table.c, public/grant_table.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt_xen.platform.entries import modify_l1
from paravirt_xen.platform.grants import grant_table_op
from tests.xenaudit import audit
from tests.xenmemory import BASE_VA, FakeDomain

SELF, US = 0x7FF0, 1
ARGUMENT = BASE_VA + 0x40000
MAP, UNMAP, COPY, REPLACE, SWAP = 0, 1, 5, 7, 11
DEVICE, HOST, READ_ONLY, APPLICATION, CONTAINS_PTE = 1, 2, 4, 8, 16
PERMIT, ENTRY_READ_ONLY, READING, WRITING = 1, 4, 8, 0x10
GENERAL, BAD_DOMAIN, BAD_REFERENCE, BAD_HANDLE, BAD_DEVICE, DENIED, BAD_PAGE, BAD_COPY, AGAIN = (
    -1, -2, -3, -4, -6, -8, -9, -10, -12)
SLOT = BASE_VA + 0x90000  # mapped at the start; mappings go here
PAGE_PFN, OTHER_PFN = 0xA0, 0xA1
REFERENCE = 9


class Guest:
    """A domain that offers one of its pages to itself."""

    def __init__(self) -> None:
        self.domain = FakeDomain()
        self.page, self.other = int(self.domain.p2m[PAGE_PFN]), int(self.domain.p2m[OTHER_PFN])
        self.grant(REFERENCE, self.page)

    def grant(self, reference: int, frame: int, flags: int = PERMIT, to: int = US) -> None:
        self.domain.ram.write(self.at(reference), struct.pack("<HHI", flags, to, frame))

    def at(self, reference: int) -> int:
        return self.domain.grants.frames[0] * 4096 + 8 * reference

    def flags(self, reference: int = REFERENCE) -> int:
        return self.domain.ram.words[self.at(reference) >> 2] & 0xFFFF

    def call(self, command: int, data: bytes, status: int) -> int:
        """One operation; its status stands at an offset."""
        self.domain.write(ARGUMENT, data)
        assert grant_table_op(self.domain, command, ARGUMENT, 1) == 0
        return int.from_bytes(self.domain.read(ARGUMENT + status, 2), "little", signed=True)

    def map(self, address: int = SLOT, flags: int = HOST, reference: int = REFERENCE, dom: int = US) -> int:
        """The handle, or a status."""
        status = self.call(MAP, struct.pack("<QIIHxxIQ", address, flags, reference, dom, 0xFFFF, 0), 18)
        handle, device = struct.unpack("<IQ", self.domain.read(ARGUMENT + 20, 12))
        if status == 0:
            assert device == self.domain.grants.uses.active[reference].mfn << 12
        return status or int(handle)

    def unmap(self, handle: int, address: int = SLOT, device: int = 0) -> int:
        return self.call(UNMAP, struct.pack("<QQIxxxx", address, device, handle), 20)

    def copy(self, source: tuple[int, int, int], dest: tuple[int, int, int], length: int, flags: int) -> int:
        """:param source: number, domain, offset; so is `dest`."""
        return self.call(COPY, struct.pack("<IHHIHHHHxxxx", *source, *dest, length, flags), 20)

    def entry(self, address: int = SLOT) -> int:
        at = self.domain.l1_entry_address(address)
        assert at is not None
        return int(self.domain.ram.quads[at >> 3])


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.mark.parametrize("flags, entry, shown", [
    (HOST, 0x63, READING | WRITING), (HOST | READ_ONLY, 0x61, READING), (HOST | APPLICATION, 0x67, READING | WRITING),
    (HOST | READ_ONLY | 7 << 25, 0xE61, READING),
])
def test_a_mapping_and_its_end(guest: Guest, flags: int, entry: int, shown: int) -> None:
    handle = guest.map(flags=flags)
    assert guest.entry() == guest.page << 12 | entry
    assert guest.flags() == PERMIT | shown
    audit(guest.domain)
    flushes = guest.domain.flushes
    assert guest.unmap(handle) == 0
    assert (guest.entry(), guest.flags()) == (0, PERMIT)
    assert guest.domain.flushes > flushes
    assert guest.unmap(handle) == BAD_HANDLE
    audit(guest.domain)


def test_into_a_page_table_entry_that_is_named(guest: Guest) -> None:
    at = guest.domain.l1_entry_address(SLOT)
    assert at is not None
    handle = guest.map(at, HOST | CONTAINS_PTE)
    assert guest.entry() == guest.page << 12 | 0x63
    assert guest.unmap(handle, at) == 0 and guest.entry() == 0
    for wrong in (at + 4, guest.page << 12, 0x300 << 12, guest.domain.base.l2s[3] << 12, 1 << 40):
        assert guest.map(wrong, HOST | CONTAINS_PTE) == GENERAL
    audit(guest.domain)


def test_many_mappings_of_one_page(guest: Guest) -> None:
    handles = [guest.map(SLOT + 4096 * number, HOST | READ_ONLY * (number != 1)) for number in range(3)]
    assert len(set(handles)) == 3 and guest.flags() == PERMIT | READING | WRITING
    guest.grant(REFERENCE, guest.other, PERMIT | READING | WRITING)
    assert guest.entry(SLOT + 8192) >> 12 == guest.page
    again = guest.map(SLOT + 3 * 4096)
    assert guest.entry(SLOT + 3 * 4096) >> 12 == guest.page, "what it was when it was first used"
    assert guest.unmap(handles[1], SLOT + 4096) == guest.unmap(again, SLOT + 3 * 4096) == 0
    assert guest.flags() == PERMIT | READING
    assert guest.unmap(handles[0]) == guest.unmap(handles[2], SLOT + 8192) == 0
    assert guest.flags() == PERMIT and guest.map() in handles
    assert guest.entry() >> 12 == guest.other
    audit(guest.domain)


@pytest.mark.parametrize("change, status", [
    (lambda guest: guest.map(flags=READ_ONLY), BAD_REFERENCE), (lambda guest: guest.map(dom=SELF), BAD_DOMAIN),
    (lambda guest: guest.map(dom=7), BAD_DOMAIN), (lambda guest: guest.map(dom=0), GENERAL),
    (lambda guest: guest.map(reference=512), BAD_REFERENCE), (lambda guest: guest.map(reference=10), GENERAL),
    (lambda guest: guest.map(0xF5800000), GENERAL), (lambda guest: guest.map(1 << 32 | SLOT), GENERAL),
    (lambda guest: guest.map(0x10000000), GENERAL),
])
def test_refused_mappings(guest: Guest, change: Callable[[Guest], int], status: int) -> None:
    before = guest.entry()
    assert change(guest) == status
    assert (guest.entry(), guest.flags()) == (before, PERMIT) and not guest.domain.grants.uses.active
    audit(guest.domain)


@pytest.mark.parametrize("flags, to, status", [
    (PERMIT, 0, GENERAL), (0, US, GENERAL), (2, US, GENERAL), (PERMIT | ENTRY_READ_ONLY, US, GENERAL),
    (PERMIT | 0x100, US, GENERAL),
])
def test_entries_that_do_not_grant_it(guest: Guest, flags: int, to: int, status: int) -> None:
    guest.grant(REFERENCE, guest.page, flags, to)
    assert guest.map() == status and guest.flags() == flags


def test_frames_that_cannot_be_granted(guest: Guest) -> None:
    """None of the domain's, and a page table for writing; for reading it may be."""
    guest.grant(REFERENCE, 0x300)
    assert guest.map() == BAD_PAGE and guest.flags() == PERMIT
    guest.grant(REFERENCE, guest.domain.base.l1s[0])
    for flags in (HOST, DEVICE):
        assert guest.map(flags=flags) == GENERAL and guest.flags() == PERMIT
    handle = guest.map(flags=HOST | READ_ONLY)
    assert guest.entry() == guest.domain.base.l1s[0] << 12 | 0x61
    audit(guest.domain)
    assert guest.unmap(handle) == 0


def test_a_mapping_that_is_no_longer_there(guest: Guest) -> None:
    """The guest has overwritten the entry: the handle says so, and the page has lost no reference twice."""
    handle = guest.map()
    at = guest.domain.l1_entry_address(SLOT)
    assert at is not None and modify_l1(guest.domain.frames, at >> 3, guest.other << 12 | 0x63) == 0
    assert guest.unmap(handle) == GENERAL and guest.entry() == guest.other << 12 | 0x63
    assert modify_l1(guest.domain.frames, at >> 3, guest.page << 12 | 0x61) == 0
    assert guest.unmap(handle) == GENERAL, "it is there with other rights"
    audit(guest.domain)


def test_devices(guest: Guest) -> None:
    """There are none, but the bus address is that of the page, and each half of a mapping has its own end."""
    handle = guest.map(flags=DEVICE | HOST)
    assert guest.unmap(handle, 0, 0x1000) == BAD_DEVICE
    assert guest.unmap(handle, 0, guest.page << 12) == 0 and guest.flags() == PERMIT | READING | WRITING
    assert guest.unmap(handle) == 0 and guest.flags() == PERMIT
    assert guest.unmap(handle) == BAD_HANDLE
    audit(guest.domain)


def test_unmap_and_replace(guest: Guest) -> None:
    handle, moved = guest.map(), SLOT + 0x4000
    entry = guest.entry(moved)
    assert guest.call(REPLACE, struct.pack("<QQIxxxx", SLOT, 0x10000000, handle), 20) == GENERAL
    assert guest.call(REPLACE, struct.pack("<QQIxxxx", SLOT, moved, handle), 20) == 0
    assert (guest.entry(), guest.entry(moved), guest.flags()) == (entry, 0, PERMIT)
    audit(guest.domain)


def test_entries_in_use_are_not_swapped(guest: Guest) -> None:
    handle = guest.map()
    assert guest.call(SWAP, struct.pack("<IIxxxx", REFERENCE, 10), 8) == AGAIN
    assert guest.unmap(handle) == 0
    assert guest.call(SWAP, struct.pack("<IIxxxx", REFERENCE, 10), 8) == 0 and guest.flags(10) == PERMIT


def test_copies(guest: Guest) -> None:
    ram = guest.domain.ram
    guest.grant(10, guest.other)
    ram.write(guest.page << 12, b"granted page")
    assert guest.copy((REFERENCE, US, 0), (10, SELF, 100), 7, 3) == 0
    assert ram.read((guest.other << 12) + 100, 8) == b"granted\0"
    assert guest.copy((guest.page, SELF, 8), (10, US, 0), 4, 2) == 0
    assert ram.read(guest.other << 12, 4) == b"page"
    assert guest.copy((REFERENCE, US, 4090), (10, US, 0), 7, 3) == BAD_COPY
    assert guest.copy((REFERENCE, 7, 0), (10, US, 0), 7, 3) == BAD_DOMAIN
    assert guest.copy((guest.page, US, 0), (10, US, 0), 7, 2) == DENIED
    assert guest.copy((11, US, 0), (10, US, 0), 7, 3) == GENERAL
    assert guest.copy((600, US, 0), (10, US, 0), 7, 3) == BAD_REFERENCE
    assert guest.copy((0x300, SELF, 0), (10, US, 0), 7, 2) == BAD_PAGE
    guest.grant(10, guest.other, PERMIT | ENTRY_READ_ONLY)
    assert guest.copy((REFERENCE, US, 0), (10, US, 0), 7, 3) == GENERAL
    guest.grant(10, guest.domain.base.l3)
    assert guest.copy((REFERENCE, US, 0), (10, US, 0), 7, 3) == GENERAL
    assert guest.flags() == guest.flags(10) == PERMIT
    audit(guest.domain)


@given(steps=st.lists(max_size=25, elements=st.tuples(
    st.sampled_from(["map", "map", "unmap", "grant", "store"]), st.integers(0, 5), st.integers(0, 5),
    st.sampled_from([HOST, HOST | READ_ONLY, DEVICE, DEVICE | HOST]))))
def test_any_sequence_keeps_the_books(steps: list[tuple[str, int, int, int]]) -> None:
    guest = Guest()
    frames = [guest.page, guest.other, guest.domain.base.l1s[0], 0x300]
    for step, first, second, flags in steps:
        address = SLOT + 4096 * first
        if step == "map":
            assert guest.map(address, flags, REFERENCE + second) >= -9
        elif step == "unmap":
            assert guest.unmap(second, address, frames[0] << 12) in (0, GENERAL, BAD_HANDLE, BAD_DEVICE)
        elif step == "grant":
            guest.grant(REFERENCE + second, frames[first % 4])
        else:
            at = guest.domain.l1_entry_address(address)
            assert at is not None
            modify_l1(guest.domain.frames, at >> 3, frames[second % 4] << 12 | (0x63 if first % 2 else 0x61))
        audit(guest.domain)
