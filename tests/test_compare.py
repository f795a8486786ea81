"""`paravirt compare` boots one kernel on several backends and says whether they agree and what each costs.

What must hold: equal backends agree, with equal figures; a wrong op is told with the backend, the first line that
differs and the op; a trap more in each context switch is a trap more in the table, to the digit, and nothing else
gains one; a run that fails loses no other; Ctrl-C keeps what there is; a mistake is one line.
The backends are tests/copies/copied_native.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.commandline import ROOT, Here, command, environment, paravirt

COPIES = Path(__file__).with_name("copies")
PLUGINS = """
[[backend]]
name = "native"
plugin = "paravirt_native.plugin"
[[backend]]
name = "copy"
plugin = "copied_native"
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    path = tmp_path / "plugins.toml"
    path.write_text(PLUGINS)
    return path


def compare(plugins: Path, *words: object) -> tuple[subprocess.CompletedProcess[bytes], dict[str, Any]]:
    """The command, and what it wrote."""
    path = plugins.with_name("comparison.json")
    done = paravirt("compare", "--plugins", plugins, "--json", path, *words, folders=(COPIES,))
    return done, json.loads(path.read_text())


def operations(found: dict[str, Any], backend: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in found["lmbench"][backend]}


def test_equal_backends_agree(plugins: Path) -> None:
    done, found = compare(plugins, "--backends", "native,copy")
    assert (done.returncode, found["differences"]) == (0, []), done.stderr
    assert done.stdout.endswith(b"native, copy: agree\n")
    for row in found["costs"]:
        assert row["values"]["native"] == row["values"]["copy"] != 0, row
    assert {run["kind"] for run in found["runs"]} == {"plain", "counted"}
    assert {row["name"] for row in found["ops"]} >= {"set_pte", "write_cr3", "iret"}


def test_a_wrong_op_is_named(plugins: Path) -> None:
    done, found = compare(plugins, "--backends", "native,wrong")
    assert done.returncode == 1
    console = next(each for each in found["differences"] if each["what"] == "console")
    assert console["backend"] == "wrong"
    assert "general protection fault" in console["got"], "a port was refused to a program that may use it"
    assert "set_iopl_mask: no-op nop" in console["ops"]
    said = done.stdout.decode()
    assert "wrong differs from native: console, line" in said
    assert "set_iopl_mask" in said


def test_a_trap_a_context_switch_is_shown_to_the_digit(plugins: Path) -> None:
    done, found = compare(plugins, "--backends", "native,slow-switch", "--suite", "lmbench")
    assert done.returncode == 0, done.stdout
    native, slow = operations(found, "native"), operations(found, "slow-switch")
    switch = slow["context switch"]
    gate = switch["counts"].get("traps", 0) - switch["counts"].get("port_io", 0)
    assert gate == switch["operations"], "one trap each, the timer's port accesses left out"
    gates = {name: each["counts"].get("traps", 0) - each["counts"].get("port_io", 0) for name, each in slow.items()}
    assert gates["pipe latency"] == 2 * slow["pipe latency"]["operations"]
    for name in ("null syscall", "signal", "page fault", "protection fault", "mmap"):
        assert gates[name] == 0, name
    for name, each in native.items():
        assert each["counts"].get("traps", 0) == each["counts"].get("port_io", 0), name
    assert switch["counts"]["virtual_ns"] > native["context switch"]["counts"]["virtual_ns"]


def test_a_run_that_fails_loses_no_other(plugins: Path) -> None:
    done, found = compare(plugins, "--backends", "broken,native,copy")
    assert done.returncode == 70
    assert b"broken (plain) failed: backend 'broken': paravirt_build_guest raised ValueError" in done.stderr
    runs = {(run["name"], run["kind"]): run for run in found["runs"]}
    assert runs["native", "plain"]["record"]["outcome"]["kind"] == "poweroff"
    assert found["differences"] == [], "the two that ended agree"


def test_a_timeout_is_a_failure(plugins: Path) -> None:
    done, found = compare(plugins, "--backends", "native,copy", "--append", "hang", "--timeout", "0.7")
    assert done.returncode == 70
    assert all("timeout" in run["problem"] for run in found["runs"])


def test_ctrl_c_keeps_what_there_is(plugins: Path, tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    words = command("compare", "--plugins", plugins, "--backends", "native,copy", "--append", "hang", "--json", path)
    process = subprocess.Popen(words, cwd=ROOT, env={**environment(COPIES), "TMPDIR": str(tmp_path)},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (consoles := list(tmp_path.glob("paravirt-compare-*/*.console"))) or \
            not all(path.stat().st_size for path in consoles):
        assert time.monotonic() < deadline, "no guest has printed anything"
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert b"Traceback" not in said
    found = json.loads(path.read_text())
    assert not found["complete"]
    assert "interrupted" in {run["record"]["outcome"]["kind"] for run in found["runs"] if run["record"]}


@pytest.mark.parametrize(("words", "message"), [
    (("--backends", "natvie"), "no backend 'natvie'; did you mean 'native'?"),
    (("--backends", "native,native"), "a backend is named twice"),
    (("--backends", "native:fast"), "NAME:KEY=VALUE is wanted"),
    (("--suite", "lmbnech"), "no suite 'lmbnech'; did you mean 'lmbench'?"),
    (("--json", "/nowhere/x"), "/nowhere/x: No such file or directory"),
    (("/nowhere/kernel",), "/nowhere/kernel"),
])
def test_mistakes_are_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
                               words: tuple[str, ...], message: str) -> None:
    status, _, said = Here(monkeypatch, capfd)("compare", *words)
    assert status == 2
    assert said.count("\n") == 1 and message in said, said
