"""``python -m benchmarks.cost``: what paravirt_ops cost on bare metal, in instructions.

The reference kernel runs its self-test and its lmbench-like set three times: with its call sites patched, with the
table read at every call, and built without a table (guest/direct.h). Instructions are the machine's own count, so
the page that this fills, docs/cost.md, is the same to the last digit on every host.

Ref: paravirt/compare/lmbench.py (how an operation's share is found); docs/cost.md.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path

import hatch_build
from benchmarks.table import fill
from paravirt import boot_sequence
from paravirt.build.toolchain import BuildError
from paravirt.compare import lmbench
from paravirt.console import Console
from paravirt.options import BootOptions
from paravirt.record import Record

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cost.md"
PATCHED, UNPATCHED, DIRECT = "patched", "unpatched", "direct"
SELFTEST = "self-test"
SELFTEST_MARK = "Write protecting|Power down"  # the lines before the first test and behind the last
BENCH_APPEND, BENCH_MARK = lmbench.OPTIONS[1], lmbench.OPTIONS[3]


def run(way: str, append: str, mark: str) -> Record:
    """Boot the kernel in one of the three ways.

    :raises BuildError: the direct kernel does not compile.
    """
    kernel = hatch_build.build_direct_kernel(ROOT) if way == DIRECT else None
    options = BootOptions(append=append, mark=re.compile(mark.encode()), replace_paravirt=way != UNPATCHED)
    record = boot_sequence.boot(kernel, options, Console())
    if record.outcome.kind != "poweroff":
        raise ValueError(f"{way}: {record.outcome.kind}: {record.outcome.reason}")
    return record


def operations(way: str) -> dict[str, float]:
    """Instructions of one operation of each kind."""
    record = run(way, BENCH_APPEND, BENCH_MARK)
    return {each.name: each.each("instructions") for each in lmbench.operations(record)}


def selftest(way: str) -> float:
    """Instructions of the whole self-test, its waits included."""
    begin, end = run(way, "", SELFTEST_MARK).marks
    return end.instructions - begin.instructions


def measure() -> dict[str, Mapping[str, float]]:
    """Instructions by row and way."""
    ways = (PATCHED, UNPATCHED, DIRECT)
    by_way = {way: {SELFTEST: selftest(way), **operations(way)} for way in ways}
    return {row: {way: by_way[way][row] for way in ways} for row in by_way[PATCHED]}


def row(name: str, cost: Mapping[str, float]) -> str:
    """One line of the table: instructions, then what they are in units of the direct kernel's."""
    digits = 0 if name == SELFTEST else 2
    numbers = [f"{cost[way]:.{digits}f}" for way in (DIRECT, PATCHED, UNPATCHED)]
    ratios = [f"{cost[way] / cost[DIRECT]:.4f}" for way in (PATCHED, UNPATCHED)]
    return f"| {' | '.join([name, *numbers, *ratios])} |"


def table(costs: Mapping[str, Mapping[str, float]]) -> str:
    lines = ["| | direct | patched | unpatched | patched / direct | unpatched / direct |", "|---|--:|--:|--:|--:|--:|"]
    return "\n".join([*lines, *(row(name, cost) for name, cost in costs.items()), ""])


def main() -> int:
    try:
        text = table(measure())
    except (BuildError, ValueError) as error:
        print(f"benchmarks.cost: {error}", file=sys.stderr)
        return 1
    fill(PAGE, text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
