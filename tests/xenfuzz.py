"""Random hypercalls: every number, with random registers and buffers, until something breaks.

``make fuzz SEED=1 CALLS=1000000``. A call may succeed, fail, or end the domain; it must neither raise anything else
nor take long, and the frames of the domain must be as its page tables say. Most calls are made through
the dispatcher, as `int 0x82` makes them, on a domain whose CPU does not run; some by the CPU itself, which is where C
answers. Between them time passes and events are delivered.

The same seed makes the same calls. What fails is printed with its number, to be looked at with ``--from``.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from types import FrameType

from paravirt.machine import layout
from paravirt.machine.outcome import End, GuestExit
from paravirt_xen.platform.errors import Preempted
from paravirt_xen.platform.hypercalls import HYPERCALLS, REGISTERS
from paravirt_xen.platform.start import start
from paravirt_xen.plugin import Xen
from tests.xenaudit import audit
from tests.xendomain import BASE, TEXT, xen_guest

SECONDS = 5  # no part of a call takes longer
LIFETIME = 3000  # calls of one domain: by then it has given most of its memory away
PARTS = 5  # of a call that is interrupted
AUDIT_EVERY = 3000
POOL, NEW_POOL = 1024, 1000  # numbers that buffers are filled from, and calls until there are others
BUFFERS = [BASE + 0x40000 + 0x1000 * page for page in range(8)]
ENDS = {23: 0.01, 6: 0.05, 29: 0.1, 24: 0.5, 13: 0.5}  # number -> chance, for those that end the domain soon
MASK = 0xFFFFFFFF
THROUGH_THE_CPU = 0.05  # part of the calls
CALL = bytes.fromhex("cd 82 0f 0b")  # int 0x82; ud2


class Fuzzer:
    """One run.

    :ivar calls: made so far. :ivar answers: how often a call gave what.
    """

    def __init__(self, seed: int, audit_every: int = AUDIT_EVERY) -> None:
        self.chance = random.Random(seed)
        self.calls = 0
        self.answers: Counter[str] = Counter()
        self.last = ""
        self._audit_every = audit_every
        self._stack = ExitStack()
        self._backend: Xen

    def run(self, count: int) -> None:
        """:raises Exception: whatever a call raises that it must not."""
        with self._stack:
            while self.calls < count:
                with ExitStack() as self._stack:
                    self._backend = self._stack.enter_context(xen_guest(initrd=None))
                    self._domain = self._backend.domain
                    self._play(min(LIFETIME, count - self.calls))

    def _play(self, count: int) -> None:
        self._over = False
        self._domain.ram.write(self._domain.machine_address(TEXT), CALL)
        for number in range(count):
            if number % NEW_POOL == 0:
                self._words = b"".join(self.word().to_bytes(4, "little") for _ in range(POOL))
                self._quads = b"".join(self.quad().to_bytes(8, "little") for _ in range(POOL))
            try:
                self._domain.machine_address(BUFFERS[0], 3)
            except Exception:
                return  # the guest has unmapped what it passes; on with a new one
            self._one()
            if self._over:
                return
            if number % self._audit_every == 0:
                audit(self._domain)
        audit(self._domain)

    def _one(self) -> None:
        chance, domain = self.chance, self._domain
        number = chance.choice([*HYPERCALLS, 11, 43, 63, 0xFFFFFFFF])
        if chance.random() > ENDS.get(number, 1):
            number = chance.choice((1, 14, 26, 12, 13, 32))
        for buffer in (BUFFERS[chance.randrange(4)], BUFFERS[4 + chance.randrange(4)]):
            self._fill(buffer, number)
        if chance.random() < 0.1:
            number = self._scribble()
        words = self.words(number)
        self.last = f"call {self.calls}: {number} {' '.join(hex(word) for word in words)}"
        self.calls += 1
        try:
            answer = self._call(number, words)
            if chance.random() < 0.05:
                domain.machine.engine.skip_to(domain.machine.engine.now() + chance.choice((1000, 10**6, 10**8)))
                domain.machine.timeline.run_due()
            domain.traps.deliver_upcall()
            self._steady()
        except GuestExit as end:
            answer = end.outcome.end.word
            self._over = chance.random() < 0.3  # it may have left a ring that it ends on each time
            domain.machine.outcome = None
            start(self._backend.builder)
        finally:
            signal.alarm(0)
        name = HYPERCALLS[number].name if number in HYPERCALLS else "unknown"
        self.answers[f"{name} {answer if not isinstance(answer, int) or answer < 0 else 'done'}"] += 1

    def _scribble(self) -> int:
        """Write to a page that the guest shares with the hypervisor, its rings' indices above all; returns the call
        that tells of it."""
        chance, domain = self.chance, self._domain
        mfn, indices = chance.choice(((domain.console_mfn, 3072), (domain.store_mfn, 2048), (domain.shared_mfn, 0),
                                      (domain.shared_mfn, 2048)))
        at = indices + 4 * chance.randrange(4) if chance.random() < 0.7 else 4 * chance.randrange(1024)
        domain.ram.write_u32(mfn * 4096 + at, chance.choice((0, 1, 2, 16, 1023, 1024, 1025, 2048, 2049, MASK, MASK - 15,
                                                              chance.getrandbits(11), chance.getrandbits(32))))
        return 32

    def _through_the_cpu(self, number: int, words: list[int]) -> int | str:
        """Let the CPU make the call. It goes on to an undefined instruction, which nobody handles."""
        domain, vcpu = self._domain, self._domain.vcpu
        vcpu.state.load()
        if vcpu.cpl != 1:
            start(self._backend.builder)
        for register, word in zip((layout.EAX, *REGISTERS), (number, *words), strict=True):
            vcpu.set_reg(register, word)
        vcpu.eip = TEXT
        vcpu.state.store()
        machine, this = domain.machine, self.calls

        def enough() -> None:
            if self.calls == this:
                machine.end(End.LIMIT, "in parts")

        machine.timeline.call_at(machine.engine.now() + 500 * PARTS, enough)  # each part costs 500 ns
        signal.alarm(SECONDS)
        try:
            machine.run()
        except GuestExit as end:
            if vcpu.eip not in (TEXT, TEXT + 2):
                raise
            machine.outcome = None
            answer = vcpu.reg(layout.EAX)
            return end.outcome.reason if end.outcome.end is End.LIMIT else answer - (answer >> 31 << 32)
        raise AssertionError("unreachable")

    def _call(self, number: int, words: list[int]) -> int | str:
        if self.chance.random() < THROUGH_THE_CPU:
            return self._through_the_cpu(number, words)
        for _ in range(PARTS):
            signal.alarm(SECONDS)
            try:
                return self._domain.dispatcher.call(number, words)
            except Preempted as preempted:
                words = [word & MASK for word in preempted.arguments] + words[len(preempted.arguments) :]
        return "in parts"

    def _steady(self) -> None:
        """What a call has done to the registers (iret, stack_switch, an upcall) stays for a while."""
        if self.chance.random() < 0.1:
            start(self._backend.builder)

    # ------------------------------------------------------------------ values

    def words(self, number: int) -> list[int]:
        """Five argument words for a call."""
        chance = self.chance
        words: list[int] = []
        if number in HYPERCALLS:
            for argument in HYPERCALLS[number].arguments:
                if argument.kind == "ptr":
                    words.append(self.pointer())
                elif argument.kind == "u64":
                    value = self.quad()
                    words += [value & MASK, value >> 32]
                elif argument.name in ("count", "entries") and chance.random() < 0.9:
                    words.append(chance.choice((0, 1, 1, 1, 2, 3, 17)))
                elif number == 32 and argument.name == "command" and chance.random() < 0.4:
                    words.append(4)  # send
                elif argument.name in ("command", "type", "register") and chance.random() < 0.95:
                    words.append(chance.randrange(34))
                elif argument.name == "va" and chance.random() < 0.9:
                    words.append(BASE + 4096 * chance.randrange(0x60))
                elif argument.name == "vcpu" and chance.random() < 0.9:
                    words.append(0)
                elif argument.name in ("foreign_domain", "domain") and chance.random() < 0.9:
                    words.append(0x7FF0)
                else:
                    words.append(self.word())
        return (words + [self.word() for _ in range(5)])[:5]

    def pointer(self) -> int:
        """A guest-virtual address, mostly one of a buffer."""
        chance, kind = self.chance, self.chance.random()
        if kind < 0.8:
            return chance.choice(BUFFERS) + 4 * chance.randrange(16)
        if kind < 0.85:
            return chance.choice(BUFFERS) + 4096 - chance.randrange(40)
        return chance.choice((0, 4, MASK, 0xF5800000, 0xFBC00000, self._backend.builder.plan.tables,
                              self._backend.builder.plan.start_info, 0xB0000000, BASE + chance.randrange(1 << 22)))

    def frame(self) -> int:
        """A machine frame, mostly the domain's."""
        chance, kind = self.chance, self.chance.random()
        domain = self._domain
        if kind < 0.3:
            first = self._backend.builder.plan.tables - BASE >> 12
            return int(domain.p2m[first + chance.randrange(self._backend.builder.plan.nr_tables)])
        if kind < 0.85:
            return int(domain.p2m[0x80 + chance.randrange(32)])
        return chance.choice((0, 1, 0x10, 0xA0, domain.shared_mfn, domain.machine_frames, MASK, domain.l3_mfn,
                              domain.console_mfn, domain.store_mfn, 0x200, chance.getrandbits(20)))

    def entry(self) -> int:
        """A page-table entry."""
        chance = self.chance
        flags = chance.choice((0, 1, 3, 0x23, 0x61, 0x63, 0x67, 0x67, 0x63, chance.getrandbits(12),
                               1 << 63 | 0x63, chance.getrandbits(12) << 52 | 1))
        return self.frame() << 12 & (1 << 52) - 1 | flags

    def quad(self) -> int:
        """A 64-bit number: an entry, the address of one, or anything."""
        kind = self.chance.random()
        if kind < 0.5:
            return self.entry()
        if kind < 0.9:
            return self.frame() << 12 | 8 * self.chance.randrange(512) | self.chance.choice((0, 0, 0, 0, 1, 2, 3, 7))
        return self.chance.getrandbits(64)

    def word(self) -> int:
        """A 32-bit number that means something somewhere."""
        chance, kind = self.chance, self.chance.random()
        if kind < 0.4:
            return chance.randrange(40)
        if kind < 0.6:
            return self.frame() & MASK
        if kind < 0.75:
            return self.pointer()
        if kind < 0.9:
            return chance.choice((0x7FF0, 0x7FF0, 0x7FF1, 0x7FF2, 1, 0, 0xE019, 0xE021, 0xE02B, 0x202, 0x1000,
                                  0x80000000, 0x7FFFFFFF, MASK, 1 << chance.randrange(32)))
        return chance.getrandbits(32)

    def _fill(self, buffer: int, number: int) -> None:
        """Make a buffer look like arguments; multicalls like multicalls."""
        chance = self.chance
        data = b""
        if number == 13:
            for _ in range(chance.randrange(1, 5)):
                inner = chance.choice([*HYPERCALLS])
                if chance.random() > ENDS.get(inner, 1):
                    inner = 14
                data += b"".join(word.to_bytes(4, "little") for word in [inner, 0, *self.words(inner), 0])
        elif number == 1 or chance.random() < 0.2:
            at = 8 * chance.randrange(POOL - 8)
            data = self._quads[at : at + 64]
        else:
            at = 4 * chance.randrange(POOL - 16)
            data = self._words[at : at + 64]
        try:
            self._domain.write(buffer, data)
        except Exception:
            return  # no longer mapped: that is an argument too


def too_long(_signal: int, _frame: FrameType | None) -> None:
    raise TimeoutError(f"a call takes more than {SECONDS} s")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--answers", action="store_true", help="print how often each call answered what")
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, too_long)
    fuzzer = Fuzzer(arguments.seed)
    begin = time.monotonic()
    try:
        fuzzer.run(arguments.calls)
    except BaseException:
        print(f"seed {arguments.seed}, {fuzzer.last}", file=sys.stderr)
        raise
    if arguments.answers:
        for answer, count in sorted(fuzzer.answers.items()):
            print(f"{count:8} {answer}")
    print(f"seed {arguments.seed}: {fuzzer.calls} calls in {time.monotonic() - begin:.0f} s, "
          f"{len(fuzzer.answers)} different answers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
