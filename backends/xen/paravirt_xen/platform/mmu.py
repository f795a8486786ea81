"""Hypercalls that change page-table entries: mmu_update and update_va_mapping.

Ref: Xen arch/x86/mm.c (do_mmu_update, __do_update_va_mapping), public/xen.h (MMU_*, UVMF_*).
"""

from __future__ import annotations

from paravirt_xen.platform.abi import (
    DOMAIN_ID,
    MMU_MACHPHYS_UPDATE,
    MMU_PT_UPDATE_PRESERVE_AD,
    MMU_UPDATE,
    UVMF_FLUSHTYPE_MASK,
    UVMF_INVLPG,
    UVMF_TLB_FLUSH,
)
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.entries import WEIGHTY, modify_l1, modify_l2, modify_l3
from paravirt_xen.platform.errors import EBUSY, EFAULT, EINVAL, ENOSYS, EPERM, ESRCH, HypercallError
from paravirt_xen.platform.foreign import Owner, page_owner
from paravirt_xen.platform.frames import L1, L2, L3, PRESENT, TYPE, WRITABLE, Frames
from paravirt_xen.platform.requests import BATCH, again, progress, read_list, report

NO_TRANSLATE = 3  # MMU_PT_UPDATE_NO_TRANSLATE: a PV domain has no other form
COMMAND = 7
UVMF_ALL = 4


def mmu_update(domain: Domain, requests: int, count: int, done: int, foreign_domain: int) -> int:
    """Change a list of entries of page tables, or of the machine-to-phys table."""
    total, count = progress(domain, count, done)
    tables = _tables_owner(foreign_domain >> 16)
    pages = page_owner(foreign_domain & 0xFFFF)
    now = min(count, BATCH)
    made, error, flush = 0, 0, False
    for pointer, value in read_list(domain, requests, MMU_UPDATE, now):
        command = pointer & COMMAND
        if command == MMU_MACHPHYS_UPDATE:
            error = _machphys(domain, pointer >> 12, value, tables, pages)
        elif command <= NO_TRANSLATE:
            if pages is Owner.OTHER or tables is Owner.OTHER:
                error = EPERM
            else:
                level, error = _update(domain, pointer >> 3, value, command, pages)
                flush = flush or (level > L1 and not error)
        else:
            error = ENOSYS
        if error:
            break
        made += 1
    else:
        if made < now:
            error = EFAULT
    if flush:
        domain.frames.flush()
    report(domain, done, total + made)
    if not error and now < count:
        raise again(requests + now * MMU_UPDATE.size, count - now, done, foreign_domain)
    return -error


def _tables_owner(field: int) -> Owner:
    """Whose page tables: 0, or a domain's number and one."""
    if field in (0, DOMAIN_ID + 1):
        return Owner.SELF
    if field == 1:
        return Owner.OTHER
    raise HypercallError(ESRCH, f"no domain {field - 1}")


def _update(domain: Domain, index: int, value: int, command: int, pages: Owner) -> tuple[int, int]:
    """Change the 64-bit word `index` of RAM. Returns the level of the table that it is in, 0 for none, and an
    errno."""
    frames: Frames = domain.frames
    mfn = index >> 9
    if not frames.owned(mfn):
        return 0, EINVAL
    keep = command == MMU_PT_UPDATE_PRESERVE_AD
    kind = frames.info[mfn] & TYPE if frames.counts[mfn] else WRITABLE
    if kind == L1:
        return L1, _change_l1(frames, index, value, keep, pages)
    if kind in (L2, L3):
        if pages is not Owner.SELF:
            return kind, EINVAL
        return kind, (modify_l2 if kind == L2 else modify_l3)(frames, index, value, keep)
    if kind != WRITABLE:
        return 0, EINVAL
    domain.ram.write_u64(index << 3, value)
    return 0, 0


def _change_l1(frames: Frames, index: int, value: int, keep: bool, pages: Owner) -> int:
    """`modify_l1`, for pages of an owner: what stands for I/O memory must be no RAM of the caller's."""
    if pages is Owner.IO and value & PRESENT and (frames.quads[index] ^ value) & WEIGHTY:
        error = frames.get_l1e(value)
        if error:
            return error
        frames.put_l1e(value)
        return EBUSY
    return modify_l1(frames, index, value, keep)


def _machphys(domain: Domain, mfn: int, pfn: int, tables: Owner, pages: Owner) -> int:
    if tables is not Owner.SELF or pages is Owner.OTHER:
        return EPERM
    if pages is Owner.IO or not domain.frames.owned(mfn):
        return EINVAL
    domain.set_m2p(mfn, pfn & 0xFFFFFFFF)
    return 0


def update_va_mapping(domain: Domain, va: int, value: int, flags: int) -> int:
    """Change the L1 entry that maps `va` in the running address space."""
    at = domain.l1_entry_address(va)
    frames: Frames = domain.frames
    if at is None or not frames.is_table(at >> 12, L1) or not frames.owned(at >> 12):
        return -EINVAL
    error = modify_l1(frames, at >> 3, value)
    if error:
        return -error
    return flush_after(domain, va, flags) if flags else 0


def update_va_mapping_otherdomain(domain: Domain, va: int, value: int, flags: int, domain_id: int) -> int:
    """The same, for a page of another owner."""
    pages = page_owner(domain_id & 0xFFFF)
    if pages is Owner.SELF:
        return update_va_mapping(domain, va, value, flags)
    if pages is Owner.OTHER:
        return -EPERM
    at = domain.l1_entry_address(va)
    frames: Frames = domain.frames
    if at is None or not frames.is_table(at >> 12, L1) or not frames.owned(at >> 12):
        return -EINVAL
    error = _change_l1(frames, at >> 3, value, False, pages)
    return -error if error else flush_after(domain, va, flags)


def flush_after(domain: Domain, va: int, flags: int) -> int:
    """What UVMF_* asks for: one page or all of the TLB, of this CPU, of all, or of those in a bit map."""
    kind, which = flags & UVMF_FLUSHTYPE_MASK, flags & ~UVMF_FLUSHTYPE_MASK
    if kind not in (UVMF_TLB_FLUSH, UVMF_INVLPG):
        return 0
    if which not in (0, UVMF_ALL) and not domain.read_u32(which) & 1:
        return 0
    if kind == UVMF_INVLPG:
        domain.machine.engine.flush_page(va)
    else:
        domain.frames.flush()
    return 0
