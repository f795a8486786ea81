"""Random sequences of MMU calls, some of them wrong.

What must hold after each: all that is counted about frames is what the page tables say when they are read from
scratch; no active page table is mapped writable; no frame of another owner is mapped; a frame has one type. Calls may
fail, and then their answer is one of Xen's.

Ref: tests/xenaudit.py (what is compared); Xen arch/x86/mm.c.
"""

from __future__ import annotations

import contextlib
import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from paravirt_xen.platform import errors
from paravirt_xen.platform.entries import modify_l1
from paravirt_xen.platform.frames import PINNED, PRESENT, TYPE, WRITABLE
from paravirt_xen.platform.memory import memory_op
from paravirt_xen.platform.mmu import mmu_update, update_va_mapping
from paravirt_xen.platform.mmuext import mmuext_op
from paravirt_xen.platform.ptwrite import Refused, Target
from tests.xenaudit import audit
from tests.xenmemory import BASE_VA, FRAMES, FakeDomain

SELF, IO = 0x7FF0, 0x7FF1
FIRST_PLAYER, PLAYERS = 0x90, 10  # pfns that the game is about
REQUESTS = 0xFFF00000
ANSWERS = {0, -errors.EINVAL, -errors.EPERM, -errors.EBUSY, -errors.ENOSYS, -errors.ESRCH, -errors.EACCES,
           -errors.EOPNOTSUPP}

players = st.integers(0, PLAYERS + 6)  # some of them are the first tables
slots = st.one_of(st.integers(0, 4), st.sampled_from([99, 100, 427, 428, 511]))
flags = st.sampled_from([0, 1, 3, 0x23, 0x63, 0x61, 0x67, 0x27, 0x25, 0x73, 0xE3, 0x163, 1 << 63 | 0x63, 1 << 52 | 1])
frames = st.one_of(players, st.sampled_from(["hypervisor", "outside", "io", "shared", "none"]))


class GameDomain(FakeDomain):
    """A domain whose calls are passed in a page of the hypervisor's, at REQUESTS in every address space: what the
    game does to the guest's own mappings must not end it."""

    requests = 0

    def machine_address(self, va: int, need: int = PRESENT) -> int:
        if va >> 12 != REQUESTS >> 12:
            return super().machine_address(va, need)
        self.requests = self.requests or self.hypervisor_frame() << 12
        return self.requests | va & 4095


class Calls(RuleBasedStateMachine):
    """The guest."""

    @initialize()
    def start(self) -> None:
        self.domain = domain = GameDomain()
        base = domain.base
        self.mfns = [int(domain.p2m[FIRST_PLAYER + number]) for number in range(PLAYERS)]
        for number in range(PLAYERS):
            pfn = FIRST_PLAYER + number
            assert not modify_l1(domain.frames, int((base.l1s[pfn >> 9] << 9) + (pfn & 511)), 0)
        self.mfns += [base.l3, *base.l2s, *base.l1s]

    def mfn(self, frame: int | str) -> int:
        """A frame of the game."""
        if isinstance(frame, int):
            return self.mfns[frame % len(self.mfns)]
        return {"hypervisor": 0x300, "outside": FRAMES + 3, "io": 0xA0, "shared": self.domain.shared_mfn,
                "none": 0xFF_FFFF_FFFF}[frame]

    def entry(self, frame: int | str, flags: int) -> int:
        return self.mfn(frame) << 12 | flags

    @rule(table=players, slot=slots, frame=frames, flags=flags)
    def memory(self, table: int, slot: int, frame: int | str, flags: int) -> None:
        """Store to a frame that the guest may have mapped writable."""
        mfn = self.mfn(table)
        owned = self.domain.frames
        if owned.owned(mfn) and (not owned.counts[mfn] or owned.info[mfn] & TYPE == WRITABLE):
            self.domain.poke(mfn, slot, self.entry(frame, flags))

    @rule(table=players, others=st.lists(players, min_size=1, max_size=4), flags=st.sampled_from([1, 0x27, 0x61]))
    def prepare(self, table: int, others: list[int], flags: int) -> None:
        """Make a frame look like a table."""
        for slot in range(4):
            self.memory(table, slot, others[slot % len(others)], flags)

    @rule(numbers=st.permutations(range(PLAYERS)), pins=st.integers(0, 3), slot=st.integers(0, 2))
    def another_space(self, numbers: list[int], pins: int, slot: int) -> None:
        """An address space as a kernel makes one: the first one's tables, and some of its own."""
        l3, top, l2, l1 = (self.mfns[number] for number in numbers[:4])
        base, domain = self.domain.base, self.domain
        if any(domain.frames.counts[mfn] or not domain.frames.owned(mfn) for mfn in (l3, top, l2, l1)):
            return
        for number in range(4):
            domain.poke(l3, number, (base.l2s[number] if number < 3 else top) << 12 | 1)
            domain.poke(top, number, domain.entry(base.l2s[3], number))
        domain.poke(l3, slot, l2 << 12 | 1)
        domain.poke(l2, 5, l1 << 12 | 0x67)
        domain.poke(l1, 7, self.mfns[numbers[4]] << 12 | 0x63)
        for mfn, level in ((l1, 0), (l2, 1), (l3, 2))[3 - pins :]:
            self.mmuext(level, mfn)

    @rule(number=players, command=st.sampled_from([4, 4, 4, 5]))
    def unpin_or_run(self, number: int, command: int) -> None:
        """Take a pin away, or run on an address space of those that are there."""
        frames = self.domain.frames
        pinned = [mfn for mfn in self.mfns if frames.owned(mfn) and frames.info[mfn] & PINNED]
        if command == 5:
            pinned = [mfn for mfn in pinned if frames.is_table(mfn, 3)]
        if pinned:
            self.mmuext(command, pinned[number % len(pinned)])

    @rule(table=players, slot=slots, frame=frames, flags=flags, command=st.sampled_from([0, 0, 0, 2, 3, 4, 1]),
          owner=st.sampled_from([SELF, SELF, SELF, IO, 0, 5, 2 << 16 | SELF, 1 << 16 | SELF]))
    def mmu_update(self, table: int, slot: int, frame: int | str, flags: int, command: int, owner: int) -> None:
        request = struct.pack("<QQ", self.mfn(table) << 12 | slot << 3 | command, self.entry(frame, flags))
        self.domain.write(REQUESTS, request)
        self.call(mmu_update, REQUESTS, 1, 0, owner)

    @rule(slot=st.integers(0, 1023), frame=frames, flags=flags, flush=st.integers(0, 6))
    def update_va_mapping(self, slot: int, frame: int | str, flags: int, flush: int) -> None:
        self.call(update_va_mapping, BASE_VA + slot * 4096, self.entry(frame, flags), flush & ~4)

    @rule(table=players, slot=slots, frame=frames, flags=flags, half=st.sampled_from([(8, 0), (4, 0), (4, 4), (1, 0)]),
          exchange=st.booleans())
    def store(self, table: int, slot: int, frame: int | str, flags: int, half: tuple[int, int], exchange: bool) -> None:
        """A direct write."""
        mfn = self.mfn(table)
        if self.domain.frames.is_table(mfn, 1):
            size, offset = half
            value = self.entry(frame, flags) >> 8 * offset
            with contextlib.suppress(Refused):
                Target(self.domain.frames, mfn, slot * 8 + offset, size).write(value, exchange=exchange)

    @rule(command=st.sampled_from([0, 1, 2, 3, 4, 4, 5, 6, 7, 10, 12, 15, 16, 17, 19, 21]), frame=frames, other=players)
    def mmuext_op(self, command: int, frame: int | str, other: int) -> None:
        second = self.mfn(other)
        self.mmuext(command, self.mfn(frame) & 0xFFFFFFFF, second)

    def mmuext(self, command: int, first: int, second: int = 0) -> None:
        self.domain.write(REQUESTS, struct.pack("<III", command, first, second))
        self.call(mmuext_op, REQUESTS, 1, 0, SELF)

    @rule(frame=frames, command=st.sampled_from([0, 1, 6]))
    def memory_op(self, frame: int | str, command: int) -> None:
        self.domain.write(REQUESTS, struct.pack("<6I", REQUESTS + 20, 1, 0, 0, SELF, self.mfn(frame) & 0xFFFFFFFF))
        if memory_op(self.domain, command, REQUESTS) and command:
            new = self.domain.read_u32(REQUESTS + 20)
            if command == 6:
                self.mfns[new % PLAYERS] = new

    def call(self, handler: object, *arguments: int) -> None:
        """Make a call; it gives one of Xen's answers."""
        try:
            answer = handler(self.domain, *arguments)  # type: ignore[operator]
        except errors.HypercallError as error:
            answer = -error.errno
        assert answer in ANSWERS, answer

    @invariant()
    def frames_are_as_the_tables_say(self) -> None:
        if hasattr(self, "domain"):
            audit(self.domain)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=40, stateful_step_count=40)
