"""grant_table_op: the domain's grant table.

A guest sets its table up, maps it, and offers pages to domain 0 in it; nobody takes them but the console and the
store, which know their frames. What it grants itself it can use (grantmap.py); nothing is ever transferred here, which
answers what Xen answers for a domain that wants nothing. Version 1 of the table only, as with Xen's option
"gnttab=max-ver:1".

Ref: Xen common/grant_table.c, compat/grant_table.c, public/grant_table.h; tools/libs/guest/xg_dom_boot.c
(xc_dom_gnttab_seed).
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import EINVAL, ENOSYS, HypercallError, Preempted
from paravirt_xen.platform.foreign import own_domain
from paravirt_xen.platform.grantmap import (
    AGAIN,
    BAD_DOMAIN,
    BAD_PAGE,
    BAD_REFERENCE,
    BAD_VIRTUAL,
    DENIED,
    ENTRIES,
    ENTRY,
    GENERAL_ERROR,
    OKAY,
    PERMIT_ACCESS,
    Uses,
    copy,
    map_reference,
    unmap,
    unmap_and_replace,
)
from paravirt_xen.platform.layout import PAGE

MAX_FRAMES = 64
RESERVED_CONSOLE, RESERVED_STORE = 0, 1
VERSION = 1
COMMAND_BITS = 16
BATCH = 256
SETUP_TABLE = struct.Struct("<HxxIhxxI")  # dom, nr_frames, status, frame_list
QUERY_SIZE = struct.Struct("<HxxIIhxx")  # dom, nr_frames, max_nr_frames, status


class Grants:
    """The table. Its first frame exists from the start, with the entries of console and store."""

    def __init__(self, domain: Domain) -> None:
        self.domain, self.uses = domain, Uses()
        self.frames: list[int] = []
        self.grow(1)
        for reference, mfn in ((RESERVED_CONSOLE, domain.console_mfn), (RESERVED_STORE, domain.store_mfn)):
            domain.ram.write(self.frames[0] * PAGE + reference * ENTRY.size, ENTRY.pack(PERMIT_ACCESS, 0, mfn))

    def grow(self, count: int) -> None:
        """Have at least `count` frames, up to MAX_FRAMES."""
        while len(self.frames) < min(count, MAX_FRAMES):
            mfn = self.domain.hypervisor_frame()
            self.domain.frames.share(mfn)
            self.frames.append(mfn)

    def entry(self, reference: int) -> int | None:
        """Machine address of an entry; None if the table has none."""
        page, index = divmod(reference, ENTRIES)
        return self.frames[page] * PAGE + index * ENTRY.size if page < len(self.frames) else None


def grant_table_op(domain: Domain, command: int, argument: int, count: int) -> int:
    """One of COMMANDS on a list of `count` operations, each with a status of its own."""
    if count & 0x8000_0000 or command >> COMMAND_BITS:
        return -EINVAL
    if command in SINGLE:
        return SINGLE[command](domain, argument, count)
    if command not in LISTS:
        return -ENOSYS
    size, at, status = LISTS[command]
    now = min(count, BATCH)
    for _ in range(now):
        answer = status(domain, domain.read(argument, size), argument)
        domain.write(argument + at & 0xFFFFFFFF, answer.to_bytes(2, "little", signed=True))
        argument = argument + size & 0xFFFFFFFF
    if now < count:
        raise Preempted(command, argument, count - now)
    return 0


def _domain_status(name: int) -> int:
    """Whether a domain may be asked about: itself only."""
    try:
        own_domain(name)
    except HypercallError:
        return DENIED if name == 0 else BAD_DOMAIN
    return OKAY


# ---------------------------------------------------------------------- one operation a call


def _setup_table(domain: Domain, argument: int, count: int) -> int:
    """Have so many frames; the guest gets their numbers, and maps them."""
    if count != 1:
        return -EINVAL
    name, wanted, _, at = SETUP_TABLE.unpack(domain.read(argument, SETUP_TABLE.size))
    status = _domain_status(name)
    if status == OKAY and wanted > MAX_FRAMES:
        status = GENERAL_ERROR
    if status == OKAY:
        domain.grants.grow(wanted)
        try:
            domain.write(at, struct.pack(f"<{wanted}I", *domain.grants.frames[:wanted]))
        except HypercallError:
            status = BAD_VIRTUAL
    domain.write(argument + 8 & 0xFFFFFFFF, status.to_bytes(2, "little", signed=True))
    return 0


def _query_size(domain: Domain, argument: int, count: int) -> int:
    if count != 1:
        return -EINVAL
    name, frames, most, _ = QUERY_SIZE.unpack(domain.read(argument, QUERY_SIZE.size))
    status = _domain_status(name)
    if status == OKAY:
        frames, most = len(domain.grants.frames), MAX_FRAMES
    domain.write(argument, QUERY_SIZE.pack(name, frames, most, status))
    return 0


def _set_version(domain: Domain, argument: int, count: int) -> int:
    version = domain.read_u32(argument)
    domain.write_u32(argument, VERSION)
    return 0 if version == VERSION else -ENOSYS if version == 2 else -EINVAL


def _get_version(domain: Domain, argument: int, count: int) -> int:
    own_domain(int.from_bytes(domain.read(argument, 8)[:2], "little"))
    domain.write_u32(argument + 4 & 0xFFFFFFFF, VERSION)
    return 0


def _get_status_frames(domain: Domain, argument: int, count: int) -> int:
    """There are none in version 1."""
    if count != 1:
        return -EINVAL
    wanted, name = struct.unpack("<IHxxxxxx", domain.read(argument, 12))
    status = _domain_status(name) or (GENERAL_ERROR if wanted else OKAY)
    domain.write(argument + 6 & 0xFFFFFFFF, status.to_bytes(2, "little", signed=True))
    return 0


# ---------------------------------------------------------------------- lists of operations


def _transfer(domain: Domain, data: bytes, argument: int) -> int:
    """To give a frame to domain 0, it would have to want one."""
    mfn, name = struct.unpack_from("<IH", data)
    if not domain.frames.owned(mfn):
        return BAD_PAGE
    return BAD_DOMAIN if name else GENERAL_ERROR


def _swap(domain: Domain, data: bytes, argument: int) -> int:
    references = struct.unpack_from("<II", data)
    first, second = (domain.grants.entry(reference) for reference in references)
    if first is None or second is None:
        return BAD_REFERENCE
    if any(reference in domain.grants.uses.active for reference in references):
        return AGAIN
    one, other = domain.ram.read(first, ENTRY.size), domain.ram.read(second, ENTRY.size)
    domain.ram.write(first, other)
    domain.ram.write(second, one)
    return OKAY


Single = Callable[[Domain, int, int], int]
SINGLE: dict[int, Single] = {
    2: _setup_table,
    6: _query_size,
    8: _set_version,
    9: _get_status_frames,
    10: _get_version,
}
# Size of an operation, where its status is, and what it comes to.
LISTS: dict[int, tuple[int, int, Callable[[Domain, bytes, int], int]]] = {
    0: (32, 18, map_reference),
    1: (24, 20, unmap),
    4: (16, 12, _transfer),
    5: (24, 20, copy),
    7: (24, 20, unmap_and_replace),
    11: (12, 8, _swap),
}

