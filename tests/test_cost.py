"""docs/cost.md says what the runs give, and the kernel without ops is the same kernel.

Why: a table of costs that has drifted from the code is worse than none, and a kernel that leaves work out is no
measure. The rows of the lmbench-like set are compared to the last digit. The self-test's may move a little when the
kernel's own tables grow, so it is held to a part in two hundred.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache

import pytest

from benchmarks import cost, ops
from paravirt.record import Record

PAGE = cost.PAGE.read_text()
BENCH_ROWS = ("null syscall", "null syscall (vdso)", "signal", "fork", "fork+exec", "pipe latency", "context switch",
              "page fault", "protection fault", "mmap", "mprotect")


@cache
def operations() -> Mapping[str, Mapping[str, float]]:
    return {way: cost.operations(way) for way in (cost.PATCHED, cost.UNPATCHED, cost.DIRECT)}


@cache
def selftest(way: str) -> Record:
    return cost.run(way, "", cost.SELFTEST_MARK)


@pytest.mark.parametrize("name", BENCH_ROWS)
def test_a_row_is_what_the_runs_give(name: str) -> None:
    measured = {way: found[name] for way, found in operations().items()}
    expected = cost.row(name, measured)
    documented = next(line for line in PAGE.splitlines() if line.startswith(f"| {name} |"))
    assert documented == expected, "`make pages` writes the page anew"


def test_the_page_has_all_rows() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| \d", PAGE, re.MULTILINE)
    assert rows == [cost.SELFTEST, *BENCH_ROWS]
    assert set(operations()[cost.DIRECT]) == set(BENCH_ROWS)


def test_ops_cost_and_patching_saves() -> None:
    for name in BENCH_ROWS:
        direct, patched, unpatched = (operations()[way][name] for way in (cost.DIRECT, cost.PATCHED, cost.UNPATCHED))
        assert direct < patched < unpatched, name


@pytest.mark.parametrize("way", [cost.PATCHED, cost.DIRECT])
def test_the_self_test_passes_and_its_row_holds(way: str) -> None:
    record = selftest(way)
    assert record.end_state is not None
    assert all(record.end_state["selftest"].values()) and len(record.end_state["selftest"]) > 40
    begin, end = record.marks
    documented = next(line for line in PAGE.splitlines() if line.startswith(f"| {cost.SELFTEST} |")).split("|")
    column = 2 if way == cost.DIRECT else 3
    assert int(documented[column]) == pytest.approx(end.instructions - begin.instructions, rel=0.005), "`make pages`"


def test_the_direct_kernel_reports_the_same() -> None:
    """Results and processes; its text is shorter, so the kernel's own ranges differ."""
    states = [selftest(way).end_state for way in (cost.PATCHED, cost.DIRECT)]
    first, second = ({key: state[key] for key in ("selftest", "processes")} for state in states if state is not None)
    assert first == second


def test_an_op_costs_its_instructions_and_nothing_else() -> None:
    """Guest code: call, the op, ret. A host function: call, and the two instructions of its stub."""
    found = {each.what: each.instructions for each in ops.costs(calls=200, repeats=1)}
    assert found.pop("guest code under a wrapper") > 3
    assert set(found.values()) == {3}, found
