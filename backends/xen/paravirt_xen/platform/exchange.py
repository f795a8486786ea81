"""XENMEM_exchange: frames of the domain against others, of another order or lower in memory.

A chunk is what both lists can be cut into: as many extents of the smaller order as make one of the larger. Each
chunk is exchanged as a whole or not at all.

Ref: Xen common/memory.c (memory_exchange), compat/memory.c (its checks), arch/x86/mm.c (steal_page).
"""

from __future__ import annotations

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import EINVAL, ENOMEM, EPERM, HypercallError, Preempted
from paravirt_xen.platform.foreign import own_domain
from paravirt_xen.platform.frames import DOMAIN, Frames
from paravirt_xen.platform.reservation import ADDRESS_BITS, BATCH, MAX_ORDER, RESERVATION

OUT, EXCHANGED, SIZE = RESERVATION.size, 2 * RESERVATION.size, 2 * RESERVATION.size + 4
EXCHANGE = 11
WORD = 0xFFFFFFFF


def exchange(domain: Domain, argument: int, start: int) -> int:
    """Exchange extent by extent; nr_exchanged says how far it has come."""
    data = domain.read(argument, SIZE)
    in_at, in_count, in_order, _, in_name = RESERVATION.unpack(data[:OUT])
    out_at, out_count, out_order, out_flags, out_name = RESERVATION.unpack(data[OUT:EXCHANGED])
    done = int.from_bytes(data[EXCHANGED:], "little")
    if max(in_order, out_order) >= 32:
        return -EPERM
    shift = max(0, out_order - in_order)
    if (start or done > in_count or done & (1 << shift) - 1 or WORD >> in_order < in_count
            or WORD >> out_order < out_count or in_count << in_order != out_count << out_order):
        return -EINVAL
    error = EPERM if max(in_order, out_order) > MAX_ORDER else EINVAL if in_name != out_name else 0
    if error or done == in_count:
        return -error
    own_domain(in_name)
    bits = out_flags & ADDRESS_BITS
    below = min(domain.machine_frames, 1 << max(0, bits - 12)) if bits else domain.machine_frames
    inputs, outputs = 1 << shift, 1 << max(0, in_order - out_order)
    end = min(in_count, done + max(inputs, BATCH))
    while done < end and not error:
        chunk = done // inputs
        error = _chunk(domain, (in_at + 4 * done, inputs, in_order), (out_at + 4 * chunk * outputs, outputs, out_order),
                       below)
        if not error:
            done += inputs
    domain.write_u32(argument + EXCHANGED & WORD, done)
    if error:
        return -error
    if done < in_count:
        raise Preempted(EXCHANGE, argument)
    return 0


def _chunk(domain: Domain, given: tuple[int, int, int], wanted: tuple[int, int, int], below: int) -> int:
    """Exchange one chunk: (where its list of frames is, extents, order) against the like. Returns an errno. EFAULT
    may come late: then it is done, and the guest will not know its frames."""
    frames: Frames = domain.frames
    at, count, order = given
    stolen: dict[int, None] = {}
    try:
        firsts = [domain.read_u32(at + 4 * index & WORD) for index in range(count)]
    except HypercallError as error:
        return error.errno
    for mfn in (first + offset for first in firsts for offset in range(1 << order)):
        if not frames.owned(mfn) or frames.owners[mfn] != DOMAIN or frames.refs[mfn] or mfn in stolen:
            return EINVAL
        stolen[mfn] = None
    at, count, order = wanted
    found: list[int] = []
    for _ in range(count):
        free = domain.pool.find(order, below)
        if free is None:
            for other in found:
                domain.pool.put_back(other, order)
            return ENOMEM
        found.append(free)
    for mfn in stolen:
        domain.set_m2p(mfn, WORD)
        frames.release(mfn)
    result = 0
    for index, mfn in enumerate(found):
        domain.pool.give(mfn, order)
        try:
            pfn = domain.read_u32(at + 4 * index & WORD)
            for offset in range(1 << order):
                domain.set_m2p(mfn + offset, pfn + offset & WORD)
            domain.write_u32(at + 4 * index & WORD, mfn)
        except HypercallError as error:
            result = error.errno
    return result
