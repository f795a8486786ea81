"""memory_op: how much memory the domain has, giving it back and getting it again, and where tables are.

Ref: Xen common/memory.c (do_memory_op), arch/x86/mm.c (arch_memory_op), x86_64/compat/mm.c, public/memory.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from paravirt_xen.platform.abi import MAX_PFN
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import (
    EACCES,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
    HypercallError,
)
from paravirt_xen.platform.exchange import exchange
from paravirt_xen.platform.foreign import own_domain
from paravirt_xen.platform.layout import M2P_MACHINE, M2P_PAGE, PAGE
from paravirt_xen.platform.reservation import COMMAND_BITS, decrease, increase, populate

E820_RAM = 1
E820_ENTRY = struct.Struct("<QQI")
E820_MAX = 1024
MACHPHYS_LIST = struct.Struct("<III")  # max_extents, extent_start, nr_extents
MEMORY_MAP = struct.Struct("<II")  # nr_entries, buffer


def memory_op(domain: Domain, command: int, argument: int) -> int:
    """One of COMMANDS; the bits above the command say how far an interrupted call has come."""
    operation = COMMANDS.get(command & (1 << COMMAND_BITS) - 1)
    if operation is None:
        return -ENOSYS
    return operation(domain, argument, command >> COMMAND_BITS)


def _maximum_ram_page(domain: Domain, argument: int, start: int) -> int:
    return -EINVAL if start else domain.machine_frames


def _about_itself(answer: Callable[[Domain], int]) -> Callable[[Domain, int, int], int]:
    """A question about a domain, which must be the caller."""
    def ask(domain: Domain, argument: int, start: int) -> int:
        if start:
            return -EINVAL
        own_domain(int.from_bytes(domain.read(argument, 2), "little"))
        return answer(domain)

    return ask


def _machphys_list(domain: Domain, argument: int, start: int) -> int:
    """Frames of the machine-to-phys table, one for each 2 MiB."""
    most, at, _ = MACHPHYS_LIST.unpack(domain.read(argument, MACHPHYS_LIST.size))
    count = min(most, domain.hole.m2p_pages)
    for page in range(count):
        domain.write_u32(at + 4 * page & 0xFFFFFFFF, (M2P_MACHINE + page * M2P_PAGE) // PAGE)
    domain.write_u32(argument + 8 & 0xFFFFFFFF, count)
    return 0


def _machphys_mapping(domain: Domain, argument: int, start: int) -> int:
    """Where the guest sees the machine-to-phys table: first and last address, last frame that it knows."""
    first, pages = domain.hole.start, domain.hole.m2p_pages
    domain.write(argument, struct.pack("<III", first, first + pages * M2P_PAGE, domain.machine_frames - 1))
    return 0


def _memory_map(domain: Domain, argument: int, start: int) -> int:
    """The domain's memory as an E820 table, as the toolstack has set it or the domain itself."""
    entries, buffer = MEMORY_MAP.unpack(domain.read(argument, MEMORY_MAP.size))
    table = domain.e820 or E820_ENTRY.pack(0, domain.nr_pages * PAGE, E820_RAM)
    count = min(entries, len(table) // E820_ENTRY.size)
    domain.write(buffer, table[: count * E820_ENTRY.size])
    domain.write_u32(argument, count)
    return 0


def _set_memory_map(domain: Domain, argument: int, start: int) -> int:
    name, entries, buffer = struct.unpack("<HxxII", domain.read(argument, 12))
    if entries > E820_MAX:
        return -EINVAL
    own_domain(name)
    domain.e820 = domain.read(buffer, entries * E820_ENTRY.size)
    return 0


def _of_itself(size: int, at: int, errno: int) -> Callable[[Domain, int, int], int]:
    """An operation that only domains of another kind have: refused after its argument has been looked at.

    :param size: of the argument. :param at: where it names the domain.
    """
    def refuse(domain: Domain, argument: int, start: int) -> int:
        own_domain(int.from_bytes(domain.read(argument, size)[at : at + 2], "little"))
        return -errno

    return refuse


def _answer(errno: int) -> Callable[[Domain, int, int], int]:
    return lambda domain, argument, start: -errno


def _acquire_resource(domain: Domain, argument: int, start: int) -> int:
    """Map parts of another domain: of one that exists, only a privileged one may."""
    data = domain.read(argument, 28)
    if int.from_bytes(data[12:16], "little"):
        return -EINVAL
    try:
        own_domain(int.from_bytes(data[:2], "little"))
    except HypercallError as error:
        if error.errno == ESRCH:
            raise
    return -EPERM


COMMANDS: dict[int, Callable[[Domain, int, int], int]] = {
    0: increase,
    1: decrease,
    2: _maximum_ram_page,
    3: _about_itself(lambda domain: domain.pool.pages),  # current_reservation
    4: _about_itself(lambda domain: domain.pool.limit),  # maximum_reservation
    5: _machphys_list,
    6: populate,
    7: _of_itself(16, 0, EACCES),  # add_to_physmap: for domains whose frame numbers Xen translates
    9: _memory_map,
    10: _answer(EPERM),  # machine_memory_map
    11: exchange,
    12: _machphys_mapping,
    13: _set_memory_map,
    14: _about_itself(lambda domain: max(1, domain.shared_u32(MAX_PFN)) - 1),  # maximum_gpfn
    15: _of_itself(8, 0, EACCES),  # remove_from_physmap
    16: _of_itself(36, 32, EINVAL),  # set_pod_target: for HVM guests
    17: _of_itself(36, 32, EINVAL),  # get_pod_target
    18: _answer(0),  # get_sharing_freed_pages: nothing is shared
    19: _answer(0),  # get_sharing_shared_pages
    23: _of_itself(20, 0, EACCES),  # add_to_physmap_batch
    25: _machphys_list,
    26: _answer(EOPNOTSUPP),  # get_vnumainfo: there is none
    28: _acquire_resource,
}
