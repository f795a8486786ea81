"""Grants that are used: mapped, unmapped, copied from and to.

Nobody is there to grant a domain something but the domain itself, by its own number: what a loop-back driver or a
test of grants does. An entry that is in use shows so in its flags, and what it granted when it was first used is what
counts until nobody uses it. A mapping is an entry of a page table like any other: it takes the references that such
entries take, so the guest may also overwrite it, and the handle is of no use then.

Ref: Xen common/grant_table.c (map_grant_ref, unmap_common, gnttab_copy), arch/x86/pv/grant_table.c;
public/grant_table.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import DOMAIN_ID, DOMID_SELF
from paravirt_xen.platform.entries import modify_l1
from paravirt_xen.platform.frames import ACCESSED, DIRTY, L1, MFN, PRESENT, RW, USER, WRITABLE, Frames
from paravirt_xen.platform.layout import PAGE

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

OKAY, GENERAL_ERROR, BAD_DOMAIN, BAD_REFERENCE, BAD_HANDLE, BAD_VIRTUAL = 0, -1, -2, -3, -4, -5
BAD_DEVICE, DENIED, BAD_PAGE, BAD_COPY, AGAIN, NO_SPACE = -6, -8, -9, -10, -12, -13
ENTRY = struct.Struct("<HHI")  # flags, domid, frame
ENTRIES = PAGE // ENTRY.size
PERMIT_ACCESS, TYPE_MASK, SUB_PAGE = 1, 3, 0x100
READ_ONLY, READING, WRITING = 4, 8, 0x10  # of an entry
DEVICE, HOST, MAP_READ_ONLY, APPLICATION, CONTAINS_PTE = 1, 2, 4, 8, 16  # of a mapping
AVAILABLE, AVAILABLE_SHIFT = 0xE00, 16
MAP = struct.Struct("<QIIHhIQ")  # host_addr, flags, ref, dom, status, handle, dev_bus_addr
UNMAP = struct.Struct("<QQIh2x")  # host_addr, dev_bus_addr or new_addr, handle, status
COPY = struct.Struct("<IHHIHHHHh2x")  # source (ref or frame, domid, offset), dest, len, flags, status
SOURCE_REFERENCE, DEST_REFERENCE = 1, 2
HANDLES, USES = 0x10000, 255


@dataclass
class Active:
    """An entry in use. :ivar mfn: what it granted. :ivar readers: :ivar writers: how many uses."""

    mfn: int
    readers: int = 0
    writers: int = 0


@dataclass
class Uses:
    """Which entries are in use, and the handles of mappings: flags and entry. `free` are those of earlier ones."""

    active: dict[int, Active] = field(default_factory=dict)
    handles: dict[int, tuple[int, int]] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)

    def state(self) -> list[tuple[int, ...]]:
        """As plain numbers."""
        active = [(reference, use.mfn, use.readers, use.writers) for reference, use in sorted(self.active.items())]
        return [*active, *((handle, *mapping) for handle, mapping in sorted(self.handles.items())), tuple(self.free)]


def entry_of(domain: Domain, name: int, reference: int) -> int:
    """Machine address of an entry of a domain's table, or a status: it has none, or grants us nothing."""
    if name == 0:
        return GENERAL_ERROR if reference < ENTRIES else BAD_REFERENCE
    at = domain.grants.entry(reference)
    return BAD_REFERENCE if at is None else at


def acquire(domain: Domain, at: int, reference: int, *, writes: bool, maps: bool) -> int:
    """One more use of an entry; returns a status."""
    uses = domain.grants.uses
    active = uses.active.get(reference)
    flags, grantee, mfn = ENTRY.unpack(domain.ram.read(at, ENTRY.size))
    if active is None or (writes and not active.writers):
        if active is None and (flags & (TYPE_MASK | (SUB_PAGE if maps else 0)) != PERMIT_ACCESS
                               or grantee != DOMAIN_ID):
            return GENERAL_ERROR
        if writes and flags & READ_ONLY:
            return GENERAL_ERROR
        if active is None:
            if not domain.frames.owned(mfn):
                return BAD_PAGE
            active = uses.active[reference] = Active(mfn)
    if (active.writers if writes else active.readers) == USES:
        return GENERAL_ERROR
    active.readers += not writes
    active.writers += writes
    domain.ram.write(at, (flags | READING | (WRITING if writes else 0)).to_bytes(2, "little"))
    return OKAY


def release(domain: Domain, at: int, reference: int, *, writes: bool) -> None:
    """One use less."""
    active = domain.grants.uses.active[reference]
    active.readers -= not writes
    active.writers -= writes
    flags, _, _ = ENTRY.unpack(domain.ram.read(at, ENTRY.size))
    if not active.writers:
        flags &= ~WRITING
    if not active.writers and not active.readers:
        flags &= ~READING
        del domain.grants.uses.active[reference]
    domain.ram.write(at, flags.to_bytes(2, "little"))


# ---------------------------------------------------------------------- mapping


def _place(domain: Domain, address: int, flags: int) -> int | None:
    """Index of the page-table entry that a mapping is about, in words of RAM."""
    at = address if flags & CONTAINS_PTE else None if address >> 32 else domain.l1_entry_address(address)
    frames: Frames = domain.frames
    if at is None or at & 7 or not frames.is_table(at >> 12, L1) or not frames.owned(at >> 12):
        return None
    return at >> 3


def _entry_flags(flags: int) -> int:
    return (PRESENT | ACCESSED | DIRTY | (0 if flags & MAP_READ_ONLY else RW) | (USER if flags & APPLICATION else 0)
            | flags >> AVAILABLE_SHIFT & AVAILABLE)


def map_reference(domain: Domain, data: bytes, argument: int) -> int:
    """Map what an entry grants; the guest gets a handle to undo it with."""
    address, flags, reference, name, _, _, _ = MAP.unpack(data)
    if not flags & (DEVICE | HOST):
        return BAD_REFERENCE
    if name not in (0, DOMAIN_ID):
        return BAD_DOMAIN
    at, uses = entry_of(domain, name, reference), domain.grants.uses
    if at < 0:
        return at
    if len(uses.handles) == HANDLES:
        return NO_SPACE
    writes = not flags & MAP_READ_ONLY
    status = acquire(domain, at, reference, writes=writes, maps=True)
    if status != OKAY:
        return status
    mfn = uses.active[reference].mfn
    status = _map_frame(domain, mfn, address, flags, writes)
    if status != OKAY:
        release(domain, at, reference, writes=writes)
        return status
    handle = uses.free.pop() if uses.free else len(uses.handles)
    uses.handles[handle] = (flags, reference)
    domain.write(argument + 20 & 0xFFFFFFFF, struct.pack("<IQ", handle, mfn * PAGE))
    return OKAY


def _map_frame(domain: Domain, mfn: int, address: int, flags: int, writes: bool) -> int:
    frames: Frames = domain.frames
    if flags & DEVICE and writes:  # there is no device, but it must be possible
        if frames.get_type(mfn, WRITABLE):
            return GENERAL_ERROR
        frames.put_type(mfn)
    if not flags & HOST:
        return OKAY
    place = _place(domain, address, flags)
    if place is None or modify_l1(frames, place, mfn * PAGE | _entry_flags(flags)):
        return GENERAL_ERROR
    return OKAY


def unmap(domain: Domain, data: bytes, argument: int) -> int:
    """Take a mapping out of the page table."""
    address, device, handle, _ = UNMAP.unpack(data)
    return _unmap(domain, address, device, handle, lambda place: modify_l1(domain.frames, place, 0))


def unmap_and_replace(domain: Domain, data: bytes, argument: int) -> int:
    """The same, and what another address maps moves there."""
    address, other, handle, _ = UNMAP.unpack(data)

    def replace(place: int) -> int:
        frames: Frames = domain.frames
        source = _place(domain, other, 0)
        if source is None or source == place:
            return GENERAL_ERROR
        old, entry = frames.quads[place], frames.quads[source]
        frames.store(source, 0)
        frames.store(place, entry)
        frames.put_l1e(old)
        return OKAY

    mapping = domain.grants.uses.handles.get(handle)
    if mapping is not None and mapping[0] & CONTAINS_PTE and other:
        return GENERAL_ERROR
    return _unmap(domain, address, 0, handle, replace if other else lambda place: modify_l1(domain.frames, place, 0))


def _unmap(domain: Domain, address: int, device: int, handle: int, remove: Callable[[int], int]) -> int:
    uses = domain.grants.uses
    if handle not in uses.handles:
        return BAD_HANDLE
    flags, reference = uses.handles[handle]
    mfn = uses.active[reference].mfn
    if device and flags & DEVICE and device != mfn * PAGE:
        return BAD_DEVICE
    left = flags & (DEVICE | HOST)
    if address and flags & HOST:
        place = _place(domain, address, flags)
        if place is None:
            return GENERAL_ERROR
        entry = domain.frames.quads[place]
        if entry >> 12 & MFN != mfn or (entry ^ _entry_flags(flags)) & (PRESENT | RW) or remove(place):
            return GENERAL_ERROR
        domain.frames.flush()
        left &= ~HOST
    if device and flags & DEVICE:
        left &= ~DEVICE
    if left:
        uses.handles[handle] = (flags & ~(DEVICE | HOST) | left, reference)
        return OKAY
    del uses.handles[handle]
    uses.free.append(handle)
    at = domain.grants.entry(reference)
    assert at is not None  # a table never shrinks
    release(domain, at, reference, writes=not flags & MAP_READ_ONLY)
    return OKAY


# ---------------------------------------------------------------------- copying


class _Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@contextmanager
def _page(domain: Domain, name: int, number: int, by_reference: bool, *, writes: bool) -> Iterator[int]:
    """The frame that an operand names by its number or by an entry, which is in use meanwhile."""
    if not by_reference:
        if not domain.frames.owned(number):
            raise _Refused(BAD_PAGE)
        yield number
        return
    at = entry_of(domain, name, number)
    status = at if at < 0 else acquire(domain, at, number, writes=writes, maps=False)
    if status != OKAY:
        raise _Refused(status)
    try:
        yield domain.grants.uses.active[number].mfn
    finally:
        release(domain, at, number, writes=writes)


def copy(domain: Domain, data: bytes, argument: int) -> int:
    """Copy bytes between two pages, each named by an entry of a table or, the domain's own, by its frame."""
    source, source_name, source_at, dest, dest_name, dest_at, length, flags, _ = COPY.unpack(data)
    for name, by_reference in (source_name, flags & SOURCE_REFERENCE), (dest_name, flags & DEST_REFERENCE):
        if name != DOMID_SELF and not by_reference:
            return DENIED
        if name not in (0, DOMAIN_ID, DOMID_SELF):
            return BAD_DOMAIN
    frames, ram = domain.frames, domain.ram
    try:
        with (_page(domain, source_name, source, bool(flags & SOURCE_REFERENCE), writes=False) as origin,
              _page(domain, dest_name, dest, bool(flags & DEST_REFERENCE), writes=True) as target):
            if frames.get_type(target, WRITABLE):
                return GENERAL_ERROR
            fits = source_at + length <= PAGE and dest_at + length <= PAGE
            if fits:
                ram.write(target * PAGE + dest_at, ram.read(origin * PAGE + source_at, length))
            frames.put_type(target)
            return OKAY if fits else BAD_COPY
    except _Refused as refused:
        return refused.status
