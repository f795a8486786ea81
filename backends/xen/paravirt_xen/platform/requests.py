"""Calls that take a list of requests and count what is done: mmu_update, mmuext_op.

Ref: Xen public/xen.h (MMU_UPDATE_PREEMPTED), arch/x86/mm.c (the ends of do_mmu_update and do_mmuext_op).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import HypercallError, Preempted

BATCH = 1024  # requests of one call before the guest gets to run
PREEMPTED = 0x8000_0000  # in the count: a call that goes on


def read_list(domain: Domain, va: int, item: struct.Struct, count: int) -> Iterable[tuple[Any, ...]]:
    """The items of a list in guest memory; it ends early where the memory cannot be read."""
    try:
        return item.iter_unpack(domain.read(va, count * item.size))
    except HypercallError:
        return _one_by_one(domain, va, item, count)


def _one_by_one(domain: Domain, va: int, item: struct.Struct, count: int) -> Iterable[tuple[Any, ...]]:
    for index in range(count):
        try:
            yield item.unpack(domain.read(va + index * item.size & 0xFFFFFFFF, item.size))
        except HypercallError:
            return


def progress(domain: Domain, count: int, done: int) -> tuple[int, int]:
    """What earlier parts of a call have done, and what is left to do."""
    if not count & PREEMPTED:
        return 0, count
    try:
        return domain.read_u32(done) if done else 0, count & ~PREEMPTED
    except HypercallError:
        return 0, count & ~PREEMPTED


def report(domain: Domain, done: int, made: int) -> None:
    """Tell the guest how many requests are done. It may have given no place for that, or a bad one."""
    if done:
        try:
            domain.write_u32(done, made)
        except HypercallError:
            return


def again(requests: int, left: int, done: int, foreign_domain: int) -> Preempted:
    """The call for the rest of the list."""
    return Preempted(requests & 0xFFFFFFFF, left | PREEMPTED, done, foreign_domain)
