"""Each op of the backend, case by case: what it leaves behind must be what the specification promises.

A failure reads ``what was looked at: expected ..., got ...``; the report at the end has a line for each op.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from paravirt.conformance.case import Case, Verdict, run_case
from paravirt.conformance.suite import PROPERTY, all_cases


def _id(each: Case) -> str:
    return f"{each.op}-{each.name}"


@pytest.mark.parametrize("each", all_cases(), ids=_id)
def test_op(backend: str, each: Case, record_property: Callable[[str, object], None]) -> None:
    result = run_case(each, backend)
    record_property(PROPERTY, (backend, result.op, result.case, result.verdict.value, result.detail))
    if result.verdict is Verdict.NOT_APPLICABLE:
        pytest.skip(f"{result.op}: {result.detail}")
    if result.verdict is not Verdict.PASS:
        pytest.fail(f"{result.op}: {result.verdict.value}: {result.detail}", pytrace=False)
