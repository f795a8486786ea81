"""A trace shows what happened when, and shows it without changing it.

What must hold: the file is valid JSON of either format, whole however the run ends, and bounded; its events are those
that the record counts; times are virtual and never go back in a lane; addresses are symbols; the run is the same with
a trace and without. What a guest names things stays text.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.errors import ConfigError
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt.trace import Trace, summary
from tests.commandline import Here
from tests.kernels import kernel

VALUES = st.one_of(st.integers(), st.text(), st.lists(st.text(), max_size=3))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, list[dict[str, Any]]]:
    path = tmp_path_factory.mktemp("trace") / "boot.jsonl"
    record = boot(None, BootOptions(append="noselftest", trace=path, count_ops=True))
    return record, [json.loads(line) for line in path.read_text().splitlines()]


def test_its_events_are_what_the_record_counts(traced: tuple[Record, list[dict[str, Any]]]) -> None:
    record, rows = traced
    names = Counter((row["lane"], row["name"]) for row in rows)
    assert names["traps", "in"] + names["traps", "out"] == record.counts.port_io
    assert names["traps", "#PF"] == record.counts.exceptions["14"]
    assert names["traps", "interrupt"] == record.counts.interrupts
    ops = Counter({name: count for (lane, name), count in names.items() if lane == "ops"})
    assert ops == {name: count for name, count in record.counts.ops.items() if name in ops}
    missing = {name for name in record.counts.ops if name not in ops}
    assert missing <= {"machine_power_off"} | {step.op for step in record.steps if step.kind == "host function"}
    assert names["switches", "context switch"] == record.counts.ops["load_esp0"]


def test_time_goes_forward_in_each_lane(traced: tuple[Record, list[dict[str, Any]]]) -> None:
    _, rows = traced
    last: dict[str, int] = {}
    for row in rows:
        end = row["ns"] + row.get("duration_ns", 0)
        assert last.get(row["lane"], 0) <= end
        last[row["lane"]] = end


def test_user_and_kernel_mode_fill_the_run(traced: tuple[Record, list[dict[str, Any]]]) -> None:
    record, rows = traced
    modes = [row for row in rows if row["lane"] == "mode"]
    assert sum(row["duration_ns"] for row in modes) == record.virtual_ns
    assert {row["name"] for row in modes} == {"user", "kernel"}
    assert all(a["name"] != b["name"] for a, b in pairwise(modes))


def test_arguments_and_callers_can_be_read(traced: tuple[Record, list[dict[str, Any]]]) -> None:
    _, rows = traced
    calls = [row["args"] for row in rows if (row["lane"], row["name"]) == ("ops", "set_pte")]
    assert all(set(call) == {"ptep", "pte", "caller"} for call in calls), calls[0]
    assert {call["caller"].partition("+")[0] for call in calls} >= {"pagetable_init"}
    assert any(row["args"]["eip"].startswith("serial_") or "+" in row["args"]["eip"]
               for row in rows if row["name"] == "out")


def test_the_run_is_the_same(traced: tuple[Record, list[dict[str, Any]]]) -> None:
    record, _ = traced
    plain = boot(None, BootOptions(append="noselftest"))
    for field in ("instructions", "virtual_ns", "state_hash", "end_state", "console_sha256", "outcome"):
        assert getattr(record, field) == getattr(plain, field), field


def test_chrome_json_is_bounded_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    boot(None, BootOptions(append="panic", trace=path, trace_limit=1000))
    document = json.loads(path.read_text())
    events = document["traceEvents"]
    assert len([event for event in events if event["ph"] != "M"]) == 1000
    facts = document["otherData"]
    assert facts["events"] == 1000 and facts["dropped"] > 1000
    assert (facts["backend"], facts["outcome"]) == ("native", "crash")
    lanes = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert {"traps", "ops"} <= set(lanes.values())
    assert all(event["tid"] in lanes and event["ts"] >= 0 for event in events if event["ph"] != "M")
    counts, _, said = summary(path)
    assert sum(counts.values()) == 1000 and said == facts


def test_of_a_kernel_without_ops_the_exits_are_told(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    boot(kernel("ends", "debug_exit"), BootOptions(memory=4 << 20, trace=path))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    out = next(row for row in rows if row["name"] == "out")
    assert out["args"] == {"eip": out["args"]["eip"], "port": "0xf4", "size": 1, "value": "0x2a"}


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=5),
                          st.dictionaries(st.text(max_size=5), VALUES, max_size=3)), max_size=10), st.booleans())
def test_any_words_are_valid_json(tmp_path_factory: pytest.TempPathFactory,
                                  events: list[tuple[str, str, dict[str, object]]], lines: bool) -> None:
    path = tmp_path_factory.mktemp("t") / ("t.jsonl" if lines else "t.json")
    trace = Trace(path)
    for lane, name, arguments in events:
        trace.event(f"x{lane}", name, arguments, since=0)
    trace.close()
    counts, _, facts = summary(path)
    assert counts == Counter((f"x{lane}", name) for lane, name, _ in events)
    assert facts["events"] == len(events)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"traceEvents":[{"ph":"X"}]}'])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_another_file_is_refused(tmp_path: Path, text: str, suffix: str) -> None:
    path = tmp_path / f"other{suffix}"
    path.write_text(text)
    if (text, suffix) == ("", ".jsonl"):
        assert summary(path) == ({}, {}, {})
        return
    with pytest.raises(ConfigError, match="not a trace"):
        summary(path)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    here, path = Here(monkeypatch, capfd), tmp_path / "t.json"
    status, _, said = here("boot", "--trace", "/nowhere/t.json")
    assert (status, said) == (2, "paravirt: --trace /nowhere/t.json: No such file or directory\n")
    assert here("boot", "-q", kernel("ends", "debug_exit"), "--trace", path)[0] == 0x2A
    status, out, said = here("trace", path)
    assert status == 0 and "out" in out.split() and "backend native" in said
