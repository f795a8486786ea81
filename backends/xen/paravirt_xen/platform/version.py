"""xen_version: what the hypervisor says about itself. It says what a Xen 4.17 says to a 32-bit PV domU.

Ref: Xen public/version.h, features.h; common/kernel.c (do_xen_version), xsm/dummy.h (xsm_xen_version).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import FEATURES, VMASST_PAE_EXTENDED_CR3, XEN_VERSION
from paravirt_xen.platform.errors import EINVAL, ENOSYS, EPERM, HypercallError
from paravirt_xen.platform.layout import HYPERVISOR_START, PAGE

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

EXTRAVERSION = b".7"
COMPILE_INFO = struct.pack("<64s16s32s32s", b"paravirt", b"paravirt", b"localdomain", b"Thu Jan  1 00:00:00 UTC 1970")
CAPABILITIES = b"xen-3.0-x86_32p "
CHANGESET = b"unavailable"
DENIED = b"<denied>\0"
XENFEAT_PAE_PGDIR_ABOVE_4GB = 4
FEATURE_INFO = struct.Struct("<II")  # submap_idx, submap


def _version(domain: Domain, argument: int) -> int:
    return XEN_VERSION


def _extraversion(domain: Domain, argument: int) -> int:
    domain.write(argument, EXTRAVERSION.ljust(16, b"\0"))
    return 0


def _compile_info(domain: Domain, argument: int) -> int:
    domain.write(argument, COMPILE_INFO)
    return 0


def _capabilities(domain: Domain, argument: int) -> int:
    domain.write(argument, CAPABILITIES.ljust(1024, b"\0"))
    return 0


def _changeset(domain: Domain, argument: int) -> int:
    domain.write(argument, CHANGESET.ljust(64, b"\0"))
    return 0


def _platform_parameters(domain: Domain, argument: int) -> int:
    domain.write_u32(argument, HYPERVISOR_START)
    return 0


def _get_features(domain: Domain, argument: int) -> int:
    index, _ = FEATURE_INFO.unpack(domain.read(argument, FEATURE_INFO.size))
    if index:
        raise HypercallError(EINVAL, f"feature map {index}")
    domain.write(argument, FEATURE_INFO.pack(index, features(domain)))
    return 0


def features(domain: Domain) -> int:
    """Bits XENFEAT_* of submap 0."""
    above = 1 << XENFEAT_PAE_PGDIR_ABOVE_4GB
    return FEATURES & ~above | (above if domain.assist(VMASST_PAE_EXTENDED_CR3) else 0)


def _pagesize(domain: Domain, argument: int) -> int:
    if argument:
        raise HypercallError(EINVAL, "the page size takes no argument")
    return PAGE


def _guest_handle(domain: Domain, argument: int) -> int:
    domain.write(argument, domain.handle.bytes)
    return 0


def _commandline(domain: Domain, argument: int) -> int:
    domain.write(argument, DENIED)
    return 0


def _build_id(domain: Domain, argument: int) -> int:
    raise HypercallError(EPERM, "for control domains")


COMMANDS: Mapping[int, Callable[[Domain, int], int]] = {
    0: _version,
    1: _extraversion,
    2: _compile_info,
    3: _capabilities,
    4: _changeset,
    5: _platform_parameters,
    6: _get_features,
    7: _pagesize,
    8: _guest_handle,
    9: _commandline,
    10: _build_id,
}


def xen_version(domain: Domain, command: int, argument: int) -> int:
    run = COMMANDS.get(command)
    if run is None:
        raise HypercallError(ENOSYS, f"xen_version {command}")
    return run(domain, argument)
