"""mmuext_op: pins, the page-table base, TLB flushes, the LDT, and pages to be cleared or copied.

Ref: Xen arch/x86/mm.c (do_mmuext_op, new_guest_cr3), x86_64/compat/mm.c (compat_mmuext_op), public/xen.h.
"""

from __future__ import annotations

from collections.abc import Callable

from paravirt.api import layout
from paravirt_xen.platform.abi import MMUEXT_OP
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import (
    EACCES,
    EFAULT,
    EINVAL,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    HypercallError,
)
from paravirt_xen.platform.foreign import Owner, page_owner
from paravirt_xen.platform.frames import L1, L2, L3, PINNED, WRITABLE, Frames
from paravirt_xen.platform.layout import HYPERVISOR_START, PAGE
from paravirt_xen.platform.requests import BATCH, again, progress, read_list, report

CR3 = layout.CR + 3


def mmuext_op(domain: Domain, ops: int, count: int, done: int, foreign_domain: int) -> int:
    """Do a list of operations, up to the first that fails."""
    total, count = progress(domain, count, done)
    pages = page_owner(foreign_domain)
    now = min(count, BATCH)
    made, error = 0, 0
    if pages is not Owner.SELF:
        error = EPERM
    else:
        for command, first, second in read_list(domain, ops, MMUEXT_OP, now):
            operation = OPERATIONS.get(command)
            error = operation(domain, first, second) if operation is not None else ENOSYS
            if error:
                break
            made += 1
        else:
            if made < now:
                error = EFAULT
    report(domain, done, total + made)
    if not error and now < count:
        raise again(ops + now * MMUEXT_OP.size, count - now, done, foreign_domain)
    return -error


# ---------------------------------------------------------------------- page tables


def pin(frames: Frames, mfn: int, level: int) -> int:
    """Keep a frame a page table whether it is in use or not; returns 0 or an errno."""
    error = frames.get_type(mfn, level)
    if error:
        return error
    if frames.info[mfn] & PINNED:
        frames.put_type(mfn)
        return EINVAL
    frames.info[mfn] |= PINNED
    return 0


def unpin(frames: Frames, mfn: int) -> int:
    """Undo `pin`."""
    if not frames.owned(mfn) or not frames.info[mfn] & PINNED:
        return EINVAL
    frames.info[mfn] &= ~PINNED
    frames.put_type(mfn)
    return 0


def new_base(domain: Domain, mfn: int) -> int:
    """Run on other page tables, as mov to CR3 does; returns 0 or an errno."""
    frames: Frames = domain.frames
    old = domain.l3_mfn
    if mfn != old:
        error = frames.get_type(mfn, L3)
        if error:
            return error
        domain.l3_mfn = mfn
        domain.vcpu.state.quads[CR3] = mfn * PAGE
        frames.put_type(old)
    domain.ldt.drop()
    frames.flush()
    return 0


def _pin_l1(domain: Domain, mfn: int, _: int) -> int:
    return pin(domain.frames, mfn, L1)


def _pin_l2(domain: Domain, mfn: int, _: int) -> int:
    return pin(domain.frames, mfn, L2)


def _pin_l3(domain: Domain, mfn: int, _: int) -> int:
    return pin(domain.frames, mfn, L3)


def _pin_l4(domain: Domain, mfn: int, _: int) -> int:
    """There is no fourth level here, which is no error."""
    return 0


def _unpin(domain: Domain, mfn: int, _: int) -> int:
    return unpin(domain.frames, mfn)


def _new_base(domain: Domain, mfn: int, _: int) -> int:
    return new_base(domain, mfn)


def _refuse(errno: int) -> Callable[[Domain, int, int], int]:
    return lambda domain, first, second: errno


# ---------------------------------------------------------------------- TLB


def _flush(domain: Domain, _: int, __: int) -> int:
    domain.frames.flush()
    return 0


def _flush_page(domain: Domain, va: int, _: int) -> int:
    domain.machine.engine.flush_page(va)
    return 0


def _of_cpus(operation: Callable[[Domain, int, int], int]) -> Callable[[Domain, int, int], int]:
    """An operation for the CPUs of a bit map in guest memory; there is one CPU."""
    def of_cpus(domain: Domain, first: int, bitmap: int) -> int:
        try:
            cpus = domain.read_u32(bitmap)
        except HypercallError:
            return EINVAL
        return operation(domain, first, 0) if cpus & 1 else 0

    return of_cpus


# ---------------------------------------------------------------------- the rest


def _set_ldt(domain: Domain, va: int, entries: int) -> int:
    if entries > 8192 or (entries and (va & PAGE - 1 or va >= HYPERVISOR_START)):
        return EINVAL
    domain.ldt.set(va if entries else 0, entries)
    return 0


def _writable(frames: Frames, mfn: int) -> bool:
    return not frames.get_type(mfn, WRITABLE)


def _clear_page(domain: Domain, mfn: int, _: int) -> int:
    if not _writable(domain.frames, mfn):
        return EINVAL
    domain.ram.write(mfn * PAGE, bytes(PAGE))
    domain.frames.put_type(mfn)
    return 0


def _copy_page(domain: Domain, mfn: int, source: int) -> int:
    if not domain.frames.owned(source) or not _writable(domain.frames, mfn):
        return EINVAL
    domain.ram.write(mfn * PAGE, domain.ram.read(source * PAGE, PAGE))
    domain.frames.put_type(mfn)
    return 0


# MMUEXT_*; 14 has never been given out, 19 and 20 (MARK_SUPER, UNMARK_SUPER) are withdrawn.
OPERATIONS: dict[int, Callable[[Domain, int, int], int]] = {
    0: _pin_l1,
    1: _pin_l2,
    2: _pin_l3,
    3: _pin_l4,
    4: _unpin,
    5: _new_base,
    6: _flush,  # TLB_FLUSH_LOCAL
    7: _flush_page,  # INVLPG_LOCAL
    8: _of_cpus(_flush),  # TLB_FLUSH_MULTI
    9: _of_cpus(_flush_page),  # INVLPG_MULTI
    10: _flush,  # TLB_FLUSH_ALL
    11: _flush_page,  # INVLPG_ALL
    12: _refuse(EACCES),  # FLUSH_CACHE: for domains with devices
    13: _set_ldt,
    15: _refuse(EINVAL),  # NEW_USER_BASEPTR: x86-64 only
    16: _clear_page,
    17: _copy_page,
    18: _refuse(EACCES),  # FLUSH_CACHE_GLOBAL
    19: _refuse(EOPNOTSUPP),
    20: _refuse(EOPNOTSUPP),
}
