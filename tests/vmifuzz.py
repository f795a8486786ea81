"""Random VMI calls, privileged instructions and shared pages: ``python -m tests.vmifuzz --seed 1 --calls 100000``.

Whatever a guest asks, a run ends by the guest's own halt, at its instruction limit, or with a sentence; nothing raises.
"""

from __future__ import annotations

import argparse
import random
import struct
from collections import Counter

from paravirt.machine.outcome import End
from paravirt_vmi.platform.calls import CALLS
from tests.vmimachine import CODE, FREE, GDT, IDT, STACK, Vmi

FORMS = (("fast", "few"), ("fast", "all"), ("no-platform", "few"))
LIVELY = 60  # calls of one guest, if it lives that long
TELLING = (0, 1, 2, 3, 4, 5, 0x10, 0x41, 0x42, 0x51, 0x60, 0x68, 0x80, 0x200, 0x3000, 0x3FFFFC, 0x400000, 0xFFFFF000,
           0xFFFFFFFC, 0x80010011, FREE, GDT, IDT, STACK, CODE)
PRIVILEGED = tuple(bytes.fromhex(code) for code in (
    "0f22c0 0f22d8 0f22e0 0f20c0 0f23f8 0f30 0f32 0f0110 0f0118 0f00d0 0f00d8 0f0138 ec ef f36c f36f fb fa f4 0f06 "
    "0f35 0f34 cf 9d").split())


class Fuzzer:
    """:ivar last: what was done last. :ivar ends: how often each call was made, and how runs ended."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.last = ""
        self.ends: Counter[str] = Counter()

    def word(self) -> int:
        choose = self.random
        return choose.choice(TELLING) if choose.random() < 0.6 else choose.getrandbits(32)

    def run(self, count: int) -> None:
        """Make `count` calls, of as many guests as that takes."""
        while count > 0:
            engine, trap = self.random.choice(FORMS)
            guest = Vmi(engine, trap=trap)
            try:
                guest.initialise()
                count -= self._guest(guest, min(count, LIVELY))
            finally:
                guest.machine.close()

    def _guest(self, guest: Vmi, count: int) -> int:
        for made in range(count):
            code = self._code(guest)
            if self.random.random() < 0.1:
                guest.ram.write(guest.monitor.page_at + self.random.randrange(0x200), self.random.randbytes(8))
            outcome = guest.run_code(code, edi=self.word(), esi=self.word())
            self.ends[outcome.end.word] += 1
            assert outcome.end is not End.ERROR and outcome.reason, outcome
            if outcome.end is not End.HALT or guest.vcpu.cpl != 1:
                return made + 1
        return count

    def _code(self, guest: Vmi) -> bytes:
        words = [self.word() for _ in range(5)]
        if self.random.random() < 0.3:
            instruction = self.random.choice(PRIVILEGED)
            self.last = f"{instruction.hex(' ')} with {[hex(word) for word in words]}"
            self.ends["instructions"] += 1
            return b"".join(bytes([0xB8 + register]) + struct.pack("<I", word)
                            for register, word in enumerate(words[:3])) + instruction
        call = self.random.choice(CALLS)
        self.last = f"{call.name} with {[hex(word) for word in words]}"
        self.ends[f"call {call.name}"] += 1
        eax, edx, ecx, *stack = words
        return guest.calling(call.name, eax, edx, ecx & 0xFF if "port" in call.arguments else ecx, stack)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--calls", type=int, default=100_000)
    arguments = parser.parse_args()
    fuzzer = Fuzzer(arguments.seed)
    try:
        fuzzer.run(arguments.calls)
    except BaseException:
        print(f"seed {arguments.seed}: {fuzzer.last}")
        raise
    print(", ".join(f"{name} {count}" for name, count in sorted(fuzzer.ends.items())))


if __name__ == "__main__":
    main()
