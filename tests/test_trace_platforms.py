"""What the platforms add to a trace: hypercalls with their arguments by name, batches with what is in them, upcalls.

What must hold: a context switch of the reference kernel under Xen shows one multicall with its calls by name; what the
trace tells is what the record counts; the run ends as without a trace.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.options import BootOptions
from paravirt.record import Record

Row = dict[str, Any]


def traced(backend: str, folder: Path) -> tuple[Record, list[Row]]:
    path = folder / f"{backend}.jsonl"
    record = boot(None, BootOptions(backend=backend, append="noselftest", trace=path, timeout=240))
    return record, [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def xen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, list[Row]]:
    return traced("xen", tmp_path_factory.mktemp("trace"))


def test_a_context_switch_shows_its_batch(xen: tuple[Record, list[Row]]) -> None:
    _, rows = xen
    _, *places = [number for number, row in enumerate(rows) if row["lane"] == "switches"]
    assert places, "the first of them was cpu_init's"
    for place in places:
        batch = next(row for row in rows[place:] if row["lane"] == "hypercalls")
        assert batch["name"] == "multicall"
        calls = batch["args"]["calls"]
        assert len(calls) == int(batch["args"]["count"], 16)
        names = [call.partition("(")[0] for call in calls]
        assert names.count("stack_switch") == 1 and names.count("update_descriptor") >= 3, names
        assert all(call.endswith(") = 0") for call in calls)
        switched = next(call for call in calls if call.startswith("stack_switch("))
        assert "ss=0x69, esp=0xc" in switched


def test_hypercalls_are_those_that_the_record_counts(xen: tuple[Record, list[Row]]) -> None:
    record, rows = xen
    seen: Counter[str] = Counter()
    for row in rows:
        if row["lane"] in ("hypercalls", "multicall entries"):
            kind = "hypercall" if row["lane"] == "hypercalls" else "multicall"
            seen[f"xen.{kind}.{row['name']}"] += 1
    counted = {name: count for name, count in record.counts.backend.items()
               if name.startswith(("xen.hypercall.", "xen.multicall."))}
    never_over = {"xen.hypercall.iret", "xen.hypercall.sched_op"}  # the last one is the end of the run
    assert {name: count for name, count in seen.items() if name not in never_over} == {
        name: count for name, count in counted.items() if name not in never_over}
    assert {row["name"] for row in rows if row["lane"] == "upcalls"} == {"event"}


@pytest.mark.parametrize("backend", ["xen", "vmi"])
def test_the_run_ends_as_without_a_trace(backend: str, tmp_path: Path) -> None:
    record, rows = traced(backend, tmp_path)
    plain = boot(None, BootOptions(backend=backend, append="noselftest", timeout=240))
    assert record.end_state == plain.end_state is not None
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0)
    assert {row["lane"] for row in rows} >= {"ops", "traps", "mode", "switches"}
