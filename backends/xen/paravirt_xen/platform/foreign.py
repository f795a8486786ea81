"""Whose memory a call is about: the domain identifiers that a guest may name, and what comes of the others.

Ref: Xen common/page_alloc.c (get_pg_owner), include/xsm/dummy.h (xsm_mmu_update, xsm_mmuext_op): a domU may act for
itself, and for DOMID_IO where it maps memory. Domain 0 exists, and is none of its business.
"""

from __future__ import annotations

import enum

from paravirt_xen.platform.abi import DOMAIN_ID, DOMID_IO, DOMID_SELF, DOMID_XEN
from paravirt_xen.platform.errors import EPERM, ESRCH, HypercallError


class Owner(enum.Enum):
    """SELF: the calling domain. IO: memory-mapped I/O. OTHER: a domain that the caller may not touch."""

    SELF = "self"
    IO = "io"
    OTHER = "other"


def page_owner(identifier: int) -> Owner:
    """The owner of pages that a call names; a domain calls itself DOMID_SELF here, never by its number.

    :raises HypercallError: ESRCH.
    """
    if identifier == DOMID_SELF:
        return Owner.SELF
    if identifier == DOMID_IO:
        return Owner.IO
    if identifier in (0, DOMID_XEN):
        return Owner.OTHER
    raise HypercallError(ESRCH, f"no domain {identifier}")


def own_domain(identifier: int) -> None:
    """The subject of a call must be the caller, by number or as DOMID_SELF.

    :raises HypercallError: ESRCH, or EPERM for a domain that exists.
    """
    if identifier in (DOMID_SELF, DOMAIN_ID):
        return
    raise HypercallError(EPERM if identifier == 0 else ESRCH, f"domain {identifier} is not the caller")
