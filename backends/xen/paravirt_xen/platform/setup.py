"""The domain's memory, once it is built: the frames get their owners, and the first page tables their types.

Ref: tools/libs/guest/xg_dom_x86.c (the builder pins the table that the first vCPU runs on).
"""

from __future__ import annotations

from paravirt.api import ImageError
from paravirt_xen.platform.descriptors import validate_page
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.frames import DESCRIPTORS, L1, L2, L3, Frames
from paravirt_xen.platform.grants import Grants
from paravirt_xen.platform.layout import M2P_MACHINE, M2P_PAGE
from paravirt_xen.platform.ldt import Ldt
from paravirt_xen.platform.mmuext import pin
from paravirt_xen.platform.pool import Pool

VALIDATED = {L1: "l1", L2: "l2", L3: "l3", DESCRIPTORS: "descriptors"}


def take_memory(domain: Domain) -> None:
    """Give the domain its frames and account for its first page tables, at `domain.l3_mfn`.

    :raises ImageError: the tables are not valid; the builder has made a mistake.
    """
    ram, hole = domain.ram, domain.hole
    frames = domain.frames = Frames(ram.quads, ram.code_pages, ram.on_write, domain.machine.engine.flush_tlb)
    frames.adopt(domain.p2m)
    frames.share(domain.shared_mfn)
    frames.first_xen_slot, frames.install_xen_slots = hole.first_slot, hole.install
    frames.validate_descriptors = lambda mfn: validate_page(domain, mfn)
    domain.pool = Pool(frames, M2P_MACHINE + hole.m2p_pages * M2P_PAGE >> 12, domain.nr_pages)
    domain.grants = Grants(domain)
    domain.ldt = Ldt(domain, hole.ldt_window)
    error = pin(frames, domain.l3_mfn, L3) or frames.get_type(domain.l3_mfn, L3)
    if error:
        raise ImageError(f"the first page tables of the domain are refused with error {error}")


def validation_counts(domain: Domain) -> dict[str, int]:
    """For the record: how often a page was read through to become a table, by the kind of table."""
    counts = domain.frames.validations
    return {f"xen.validation.{name}": counts[kind] for kind, name in VALIDATED.items() if counts[kind]}
