"""``python -m benchmarks.xen``: what the exits of a Xen domain cost on this machine.

A domain of a few hundred bytes does one thing again and again. Each figure is the difference between many times and a
few, over the difference, so that starting and ending fall out; the cases take turns, and the median of the rounds
counts. CPU time, since a busy machine takes wall time away.

Ref: benchmarks/xenguest/trips.S
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.build import WORK
from paravirt import boot_sequence
from paravirt.build import toolchain
from paravirt.build.guestcode import assemble_step
from paravirt.build.toolchain import BuildError
from paravirt.console import Console
from paravirt.options import BootOptions

SOURCE = Path(__file__).resolve().parent / "xenguest" / "trips.S"
LINK = ("-m", "elf_i386", "-static", "-N", "--build-id=none", "-Ttext=0xc0100000")
LOOP = "empty loop"
# What the guest calls it, how often at least and at most, and the budget in ns.
CASES: Mapping[str, tuple[int, int, int, int | None]] = {
    LOOP: (0, 1000, 1_000_000, None),
    "hypercall round trip (xen_version)": (1, 1000, 40_000, 1500),
    "update_va_mapping": (2, 1000, 40_000, 3000),
    "direct page-table write": (3, 1000, 200_000, 200),
    "event to itself: send, upcall, iret": (4, 1000, 20_000, 5000),
    "int 0x80 from ring 3 and back": (5, 1000, 200_000, 400),
}


def build() -> Path:
    """The guest. :raises BuildError: with the assembler's words."""
    output = WORK / "xen-trips.elf"
    step = assemble_step(SOURCE, WORK / "xen-trips.o")
    toolchain.make([step])
    toolchain.link([step.output], output, LINK)
    return output


def seconds(kernel: Path, case: int, count: int, options: Sequence[str] = ()) -> float:
    """CPU time of a whole run. :raises ValueError: the guest did not do what it should."""
    settings = BootOptions(backend="xen", memory=16 << 20, append=f"{case} {count}", hash_state=False,
                           no_accel=tuple(options))
    begin = time.process_time()
    record = boot_sequence.boot(kernel, settings, Console())
    spent = time.process_time() - begin
    if record.outcome.kind != "poweroff":
        raise ValueError(f"case {case}: {record.outcome.kind}: {record.outcome.reason}")
    return spent


def measure(kernel: Path, rounds: int, options: Sequence[str] = ()) -> dict[str, float]:
    """Nanoseconds of each, the loop around it taken off."""
    found: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, (case, few, many, _) in CASES.items():
            spent = seconds(kernel, case, many, options) - seconds(kernel, case, few, options)
            found[name].append(1e9 * spent / (many - few))
    loop = statistics.median(found[LOOP])
    return {name: statistics.median(values) - (0 if name == LOOP else loop) for name, values in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.xen", description="What the exits of a domain cost.")
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument("--no-accel", action="append", default=[], metavar="NAME", help="as for paravirt boot")
    arguments = parser.parse_args()
    try:
        figures = measure(build(), arguments.rounds, arguments.no_accel)
    except (BuildError, ValueError) as error:
        print(f"benchmarks.xen: {error}", file=sys.stderr)
        return 1
    for name, ns in figures.items():
        budget = CASES[name][3]
        print(f"{name:38} {ns:8.0f} ns" + (f"   of {budget} ns: {ns / budget:.2f}" if budget else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
