"""increase_reservation, decrease_reservation, populate_physmap: a list of extents of 2 ** order frames each.

They answer how many extents are done, and never an error: whatever is wrong ends the list early.

Ref: Xen common/memory.c (increase_reservation, decrease_reservation, populate_physmap), compat/memory.c.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError, Preempted
from paravirt_xen.platform.foreign import own_domain
from paravirt_xen.platform.frames import RELEASED, SPECIAL, Frames

COMMAND_BITS = 6
MAX_EXTENTS = 0xFFFFFFFF >> COMMAND_BITS
MAX_ORDER = 9  # of a domain without devices
BATCH = 512  # frames of one call before the guest gets to run
RESERVATION = struct.Struct("<IIIIHxx")  # extent_start, nr_extents, extent_order, mem_flags, domid
ADDRESS_BITS = 0xFF  # of mem_flags
ON_DEMAND = 1 << 16
POPULATE, INCREASE, DECREASE = 6, 0, 1


class Extents(NamedTuple):
    """The list: `at` is 0 where the caller does not want to know the frames."""

    at: int
    number: int
    order: int
    below: int
    flags: int


def parse_extents(domain: Domain, data: bytes) -> Extents | None:
    """A struct xen_memory_reservation; None if it asks for what nobody gets."""
    at, count, order, flags, name = RESERVATION.unpack(data)
    try:
        own_domain(name)
    except HypercallError:
        return None
    bits = flags & ADDRESS_BITS
    if bits and bits <= 12:
        return None
    below = domain.machine_frames if not bits else min(domain.machine_frames, 1 << bits - 12)
    return Extents(at, count, order, below, flags)


def _each(command: int, do: Callable[[Domain, Extents, int], bool]) -> Callable[[Domain, int, int], int]:
    def run(domain: Domain, argument: int, start: int) -> int:
        try:
            extents = parse_extents(domain, domain.read(argument, RESERVATION.size))
        except HypercallError:
            return start
        if extents is None or extents.number > MAX_EXTENTS or start >= extents.number or extents.order > MAX_ORDER:
            return start
        end = min(extents.number, start + max(1, BATCH >> extents.order))
        for index in range(start, end):
            try:
                if not do(domain, extents, index):
                    return index
            except HypercallError:
                return index
        if end < extents.number:
            raise Preempted(command | end << COMMAND_BITS, argument)
        return extents.number

    return run


def _slot(extents: Extents, index: int) -> int:
    return extents.at + 4 * index & 0xFFFFFFFF


def _increase(domain: Domain, extents: Extents, index: int) -> bool:
    mfn = domain.pool.allocate(extents.order, extents.below)
    if mfn < 0:
        return False
    if extents.at:
        domain.write_u32(_slot(extents, index), mfn)
    return True


def _populate(domain: Domain, extents: Extents, index: int) -> bool:
    if extents.flags & ON_DEMAND:
        return False
    pfn = domain.read_u32(_slot(extents, index))
    mfn = domain.pool.allocate(extents.order, extents.below)
    if mfn < 0:
        return False
    for offset in range(1 << extents.order):
        domain.set_m2p(mfn + offset, pfn + offset & 0xFFFFFFFF)
    domain.write_u32(_slot(extents, index), mfn)
    return True


def _decrease(domain: Domain, extents: Extents, index: int) -> bool:
    first = domain.read_u32(_slot(extents, index))
    return all(give_back(domain, first + offset) for offset in range(1 << extents.order))


def give_back(domain: Domain, mfn: int) -> bool:
    """The domain gives a frame back; whether it was its own."""
    frames: Frames = domain.frames
    if not frames.owned(mfn) or frames.owners[mfn] == SPECIAL:
        return False
    if not frames.info[mfn] & RELEASED:
        frames.release(mfn)
    return True


increase, decrease, populate = _each(INCREASE, _increase), _each(DECREASE, _decrease), _each(POPULATE, _populate)

__all__ = ["COMMAND_BITS", "MAX_ORDER", "RESERVATION", "decrease", "give_back", "increase", "parse_extents",
           "populate"]
