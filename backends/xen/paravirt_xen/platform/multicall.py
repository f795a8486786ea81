"""multicall: a list of hypercalls in one.

Each entry gets its own result; the list goes on behind one that fails. It is interrupted between two entries when the
vcpu blocks, or events have come for it, and goes on afterwards. The iret hypercall ends it, and a multicall
inside a multicall is refused. The loop is in calls.c as well, which asks `make_entry` for what C does not do.

Ref: Xen public/xen.h (struct multicall_entry); common/multicall.c (do_multicall), arch/x86/hypercall.c
(arch_do_multicall_call: mc_exit, hypercall_create_continuation inside a multicall).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from struct import pack

from paravirt_xen.platform.abi import MULTICALL_ENTRY
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import EINVAL, Preempted

AT_ONCE = 512  # entries before the guest gets to run
COUNTED = 64  # sizes of lists that have a key of their own in the record
SIZES = COUNTED + 2
IRET, MULTICALL = 23, 13
RESULT, ARGUMENTS = 4, 8  # offsets of an entry
WORDS = 5  # arguments that a call may have
OVER = -1  # of `make_entry`: the multicall is over for now
LEAVES = 1 << 32  # of `make_entry`, beside the result: it is interrupted behind this entry


def multicall(domain: Domain, calls: int, count: int) -> int:
    """Make `count` calls in order."""
    dispatcher = domain.dispatcher
    dispatcher.batches[min(count, COUNTED + 1)] += 1
    for made in range(count):
        if made == AT_ONCE or (made and domain.sched.leaves()):
            raise Preempted(calls, count - made)
        number, _, *words = MULTICALL_ENTRY.unpack(domain.read(calls, MULTICALL_ENTRY.size))
        result = -EINVAL if number == MULTICALL else _make(domain, number, words[:WORDS], calls, count - made)
        domain.write_u32(calls + RESULT & 0xFFFFFFFF, result)
        if number == IRET:
            return result
        calls = calls + MULTICALL_ENTRY.size & 0xFFFFFFFF
    return 0


def _make(domain: Domain, number: int, words: Sequence[int], calls: int, left: int) -> int:
    """One entry; a preempted one goes on as the first of the next multicall.

    :raises Preempted: with the arguments of that.
    """
    try:
        return domain.dispatcher.call(number, words, inner=True)
    except Preempted as preempted:
        domain.write(calls + ARGUMENTS, pack(f"<{len(preempted.arguments)}I", *preempted.arguments))
        raise Preempted(calls, left) from None


def make_entry(domain: Domain, number: int, words: Sequence[int], calls: int, left: int) -> int:
    """An entry for C: its result as a 32-bit word, or OVER with the registers ready for the next multicall."""
    try:
        result = _make(domain, number, words, calls, left) & 0xFFFFFFFF
        return result | LEAVES if domain.sched.leaves() else result
    except Preempted as preempted:
        domain.dispatcher.go_on(preempted)
        return OVER


def batch_counts(batches: Sequence[int]) -> Counter[str]:
    """The histogram of list sizes for the record."""
    return Counter({f"xen.batch.{size if size <= COUNTED else 'more'}": count
                    for size, count in enumerate(batches) if count})
