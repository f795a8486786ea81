"""The record is what tests and comparisons rest on: complete, repeatable but for `host`, and written whole.

What must hold: it is written under a temporary name and then renamed, so that a reader never sees half of it and a
failure leaves the old one; it is valid JSON whatever a guest printed or called its symbols; two runs of the same
command give equal records.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.errors import BackendError, PluginError
from paravirt.guest import Guest
from paravirt.machine import accel
from paravirt.options import BootOptions
from paravirt.record import Counts, HostRecord, OutcomeRecord, Record, write_record
from tests.elfmaker import Load, Sym, make_elf
from tests.kernels import BASE, kernel, raw_kernel

MEMORY = 4 << 20
KEYS = ["schema", "kernel", "sha256", "backend", "engine", "outcome", "exit_code", "instructions", "virtual_ns",
        "counts", "steps", "marks", "samples", "state_hash", "end_state", "console_sha256", "host"]


def made(**changed: Any) -> Record:
    """A record of no run."""
    values: dict[str, Any] = {
        "kernel": "k", "sha256": "0" * 64, "backend": "native", "engine": None,
        "outcome": OutcomeRecord(kind="halt", reason="r", eip=0, symbol=""), "exit_code": 0, "instructions": 1,
        "virtual_ns": 2, "steps": (), "state_hash": "", "end_state": None, "console_sha256": "",
        "counts": Counts(ops={}, ops_counted="host", patched_sites=0, exceptions={}, interrupts=0, port_io=0, traps=0,
                         backend={}),
        "host": HostRecord(wall_seconds=0.5, max_rss_kib=1, tlb_fills=0, late_input=0)}
    return Record(**{**values, **changed})


def run(path: Path, **options: Any) -> Record:
    return boot(path, BootOptions(memory=MEMORY, timeout=20, **options))


def test_fields() -> None:
    record = run(kernel("ends", "debug_exit"))
    data = json.loads(record.to_json())
    assert list(data) == KEYS
    assert data["schema"] == 1
    assert data["sha256"] == hashlib.sha256(kernel("ends", "debug_exit").read_bytes()).hexdigest()
    assert (data["backend"], data["exit_code"], data["outcome"]["kind"]) == ("native", 0x2A, "debug-exit")
    assert data["counts"]["port_io"] == 1
    assert data["counts"]["exceptions"] == {}
    assert data["console_sha256"] == hashlib.sha256(b"").hexdigest()
    assert set(data["engine"]["seams"]) == {*accel.NAMES}
    assert data["end_state"] is None
    assert data["host"]["wall_seconds"] > 0
    assert [step["name"] for step in data["steps"]] == [
        "load_plugins", "load_image", "paravirt_probe", "paravirt_devices", "paravirt_build_guest",
        "paravirt_machine_ready"]


def test_time_is_instructions_and_charges() -> None:
    """MOV, OUT, and a JMP that is entered before the CPU stops, 1 ns each; 1000 ns for the port."""
    record = run(kernel("ends", "debug_exit"))
    assert record.virtual_ns - record.instructions == 1000


@pytest.mark.parametrize("engine", ["auto", "portable"])
@pytest.mark.parametrize("entry", ["power_off", "triple_fault", "wait_for_timer", "jump_to_nowhere"])
def test_runs_are_repeatable(entry: str, engine: str) -> None:
    first, second = (run(kernel("ends", entry), engine=engine, idle_limit=2.0) for _ in range(2))
    assert first.repeatable() == second.repeatable()
    assert "host" not in first.repeatable()


def test_the_hash_tells_runs_apart() -> None:
    path = kernel("ends", "power_off")
    assert run(path).state_hash != run(path, append="quiet").state_hash


def test_portable_says_so() -> None:
    record = run(kernel("ends", "halt"), engine="portable")
    assert record.engine is not None
    assert record.engine.name == "portable"
    assert set(record.engine.missing.values()) == {"switched off"}
    mixed = run(kernel("ends", "halt"), no_accel=("delivery",))
    assert mixed.engine is not None
    assert (mixed.engine.name, mixed.engine.seams["delivery"]) == ("mixed", "python")


# ------------------------------------------------------------------ writing


def test_write(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("old")
    record = made()
    write_record(record, path)
    text = path.read_text()
    assert text.endswith("}\n") and json.loads(text)["outcome"]["kind"] == "halt"
    assert os.listdir(tmp_path) == ["record.json"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions_are_those_of_any_new_file(mask: int, tmp_path: Path) -> None:
    old = os.umask(mask)
    try:
        write_record(made(), tmp_path / "r")
        assert os.umask(mask) == mask
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "r").stat().st_mode) == 0o666 & ~mask


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    with pytest.raises(OSError):
        write_record(made(), tmp_path / "r")
    with pytest.raises(FileNotFoundError):
        write_record(made(), tmp_path / "missing" / "r")
    assert os.listdir(tmp_path) == ["r"]


def test_a_relative_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_record(made(), Path("r"))
    assert json.loads((tmp_path / "r").read_text())["schema"] == 1


CHARACTERS = st.characters(exclude_categories=["Cs"])  # no surrogates


@settings(max_examples=50)
@given(reason=st.text(CHARACTERS), eip=st.none() | st.integers(0, 2**32 - 1),
       numbers=st.dictionaries(st.text(CHARACTERS, max_size=5), st.integers(0, 2**64), max_size=3))
def test_any_text_survives(reason: str, numbers: dict[str, int], eip: int | None) -> None:
    counts = replace(made().counts, backend=numbers)
    record = made(outcome=OutcomeRecord(kind="crash", reason=reason, eip=eip, symbol=reason), counts=counts)
    assert Record.from_json(record.to_json().encode()) == record
    data = json.loads(record.to_json())
    assert (data["outcome"]["reason"], data["outcome"]["eip"]) == (reason, eip)
    assert data["counts"]["backend"] == numbers


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Of the kernel's file and of its symbols: bytes that are not UTF-8, control characters, quotes."""
    path = tmp_path / os.fsdecode(b'k\xff"<b>\n')
    path.write_bytes(make_elf([Load(BASE, b"\xfa\xf4\x90", BASE)], symbols=[Sym('</script>"\x1b\x00', BASE, 3)]))
    record = run(path)
    write_record(record, tmp_path / "r")
    data = json.loads((tmp_path / "r").read_text())
    assert data["kernel"].endswith('/k\\xff"<b>\n')
    assert data["outcome"]["symbol"] == '</script>"\x1b+0x2'


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError):
        made(extra=1)
    document = json.loads(made().to_json())
    for wrong in ({**document, "extra": 1}, {**document, "exit_code": "none"}, {}):
        with pytest.raises(ValueError, match="validation error"):
            Record.from_json(json.dumps(wrong).encode())


# ------------------------------------------------------------------ ends that raise


class Failing:
    """A plugin whose hook raises."""

    def __init__(self, hook: str) -> None:
        import pluggy

        def fail(guest: Guest) -> None:
            raise ValueError("not today")

        setattr(self, hook, pluggy.HookimplMarker("paravirt")(fail))


def test_an_error_in_a_plugin_leaves_a_record() -> None:
    ends: list[Record] = []
    options = BootOptions(memory=MEMORY, plugins=(Failing("paravirt_machine_ready"),))
    with pytest.raises(BackendError, match="paravirt_machine_ready raised ValueError: not today") as error:
        boot(kernel("ends", "halt"), options, on_end=lambda guest, record: ends.append(record))
    assert isinstance(error.value.__cause__, ValueError)
    assert [(record.outcome.kind, record.exit_code) for record in ends] == [("error", 2)]
    assert ends[0].outcome.reason == str(error.value)
    assert ends[0].outcome.eip == 0x100000 + ends_offset("halt")


def ends_offset(symbol: str) -> int:
    from tests.kernels import address

    return address("ends", symbol) - BASE


def test_before_there_is_a_machine_there_is_no_record() -> None:
    ends: list[Record] = []
    with pytest.raises(PluginError):
        boot(kernel("ends", "halt"), BootOptions(backend="natvie"), on_end=lambda guest, record: ends.append(record))
    assert not ends


def test_marks_hold_the_counters_of_their_moment(tmp_path: Path) -> None:
    """Each letter is one OUT, so a mark behind the third has counted three."""
    out = b"\x66\xba\xf8\x03" + b"".join(b"\xb0" + bytes([letter]) + b"\xee" for letter in b"abcabd")
    record = run(raw_kernel(tmp_path / "letters", out + b"\xfa\xf4"), mark=re.compile(b"bc|d"))
    assert [mark.text for mark in record.marks] == ["bc", "d"]
    assert [mark.counts.port_io for mark in record.marks] == [3, 6]
    first, last = record.marks
    assert first.virtual_ns < last.virtual_ns <= record.virtual_ns
    assert first.counts.traps < last.counts.traps


def test_samples_are_taken_in_virtual_time() -> None:
    """Slices of the run are 10 ms at most; a sample is taken at the first slice behind its moment."""
    record = boot(None, BootOptions(sample_ns=50_000_000, timeout=60))
    moments = [sample.virtual_ns for sample in record.samples]
    assert moments[0] == 0
    gaps = [later - sooner for sooner, later in pairwise(moments)]
    assert min(gaps) >= 50_000_000
    assert max(gaps) < 61_000_000
    assert [sample.instructions for sample in record.samples] == sorted(s.instructions for s in record.samples)
    assert record.samples == boot(None, BootOptions(sample_ns=50_000_000, timeout=60)).samples
