"""The suite as a whole: all cases, and the report on each op."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from paravirt.conformance import (
    cases_boot,
    cases_cpu,
    cases_descriptors,
    cases_end,
    cases_irq,
    cases_mmu,
    cases_smp,
    cases_user,
)
from paravirt.conformance.case import Case, Result, Verdict, collect
from paravirt.hookspecs import op_infos

MODULES = (cases_irq, cases_cpu, cases_descriptors, cases_mmu, cases_user, cases_boot, cases_end, cases_smp)
PROPERTY = "paravirt conformance"  # under this name a test keeps its result for the report
# One op is as bad as its worst case; a case that applies says more than one that does not.
_ORDER = (Verdict.FAIL, Verdict.MISSING, Verdict.PASS, Verdict.NOT_APPLICABLE)


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the op tables."""
    return tuple(collect(MODULES))


def cases_of(op: str) -> list[Case]:
    return [each for each in all_cases() if each.op == op]


def by_op(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by op, in the order of the op tables; ops without a result are left out."""
    found: dict[str, list[Result]] = {name: [] for name in op_infos()}
    for result in results:
        found[result.op].append(result)
    return {name: rows for name, rows in found.items() if rows}


def verdict(results: Iterable[Result]) -> Verdict:
    """The verdict on an op from those of its cases."""
    found = {each.verdict for each in results}
    return next(each for each in _ORDER if each in found)


def report(results: Iterable[Result]) -> list[str]:
    """A line for each op, its failures and reasons behind it, and the totals."""
    lines = []
    totals = {each: 0 for each in Verdict}
    for op, rows in by_op(results).items():
        overall = verdict(rows)
        totals[overall] += 1
        details = [f"{row.case}: {row.detail}" if overall is Verdict.FAIL else row.detail
                   for row in rows if row.verdict is overall and row.detail]
        line = f"{op:<24} {overall.value:<15} {len(rows)} case{'s' if len(rows) != 1 else ''}"
        lines.append(f"{line}  {'; '.join(dict.fromkeys(details))}".rstrip())
    lines.append(", ".join(f"{count} {each.value}" for each, count in totals.items() if count))
    return lines
