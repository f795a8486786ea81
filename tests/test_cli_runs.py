"""Runs from the command line: exit status, streams, signals, and the record.

What must hold: the guest's console alone is on stdout, what is ours on stderr; the exit status is the one that the
help promises; the record is written however the run ends; a signal ends any guest at once; standard files that are
closed, full or gone are no reason for a traceback.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.commandline import HALT, Here, command, environment, paravirt, record
from tests.kernels import kernel, raw_kernel


@pytest.fixture
def halting(tmp_path: Path) -> Path:
    return raw_kernel(tmp_path / "halting", HALT)


def test_a_run(halting: Path, tmp_path: Path) -> None:
    """Steps, then how it ended, on stderr; the console, here nothing, on stdout."""
    result = paravirt("boot", halting, "--json", tmp_path / "record", "--stats", "--memory", "4MiB")
    assert (result.returncode, result.stdout) == (0, b"")
    lines = result.stderr.decode().splitlines()
    assert lines[0].split() == ["step", "kind", "instructions", "traps", "where"]
    assert [line.split()[0] for line in lines[1:7]] == [
        "load_plugins", "load_image", "paravirt_probe", "paravirt_devices", "paravirt_build_guest",
        "paravirt_machine_ready"]
    assert lines[-1] == "paravirt: halt: the guest halted with interrupts off (eip 0x100002 code+0x2)"
    assert any(line.split() == ["instructions:", "2"] for line in lines)
    data = record(tmp_path / "record")
    assert (data["schema"], data["outcome"]["kind"], data["exit_code"], data["instructions"]) == (1, "halt", 0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halting", "record"]


def test_quiet(halting: Path) -> None:
    result = paravirt("boot", halting, "-q", "--memory", "4M")
    assert result.stderr.count(b"\n") == 1


def test_console(tmp_path: Path) -> None:
    """To stdout, to a file, to nowhere; what is typed comes back."""
    echo = kernel("echo", "echo")
    result = paravirt("boot", echo, "-q", "--memory", "16M", stdin=b"hallo q")
    assert (result.returncode, result.stdout) == (0, b"ready\r\nhallo q")
    result = paravirt("boot", echo, "-q", "--memory", "16M", "--console", tmp_path / "out", stdin=b"q")
    assert (result.returncode, result.stdout) == (70, b"")  # a file is no source of input: it waits for ever
    assert (tmp_path / "out").read_bytes() == b"ready\r\n"
    assert paravirt("boot", echo, "-q", "--memory", "16M", "--console", "none").stdout == b""


@pytest.mark.parametrize(("typed", "status", "kind"), [
    (b"q", 0, "poweroff"), (b"x", 70, "crash"), (b"e", 7, "debug-exit"), (b"abc", 70, "idle")])
def test_status_is_the_guests(typed: bytes, status: int, kind: str, tmp_path: Path) -> None:
    result = paravirt("boot", kernel("echo", "echo"), "-q", "--memory", "16M", "--json", tmp_path / "r", stdin=typed)
    assert result.returncode == status
    assert result.stderr.startswith(f"paravirt: {kind}: ".encode())
    assert record(tmp_path / "r")["exit_code"] == status


def test_until_output_and_until_step() -> None:
    echo = kernel("echo", "echo")
    result = paravirt("boot", echo, "-q", "--memory", "16M", "--until-output", "read.")
    assert (result.returncode, result.stdout) == (0, b"ready")
    assert result.stderr.startswith(b"paravirt: matched: the output matched: 'ready'")
    result = paravirt("boot", echo, "-q", "--memory", "16M", "--until", "paravirt_build_guest")
    assert result.returncode == 0
    assert result.stderr.startswith(b"eax 00000000")
    assert b"paravirt: stopped: step paravirt_build_guest" in result.stderr
    result = paravirt("boot", echo, "-q", "--memory", "16M", "--until", "paravirt_build_gues")
    assert result.returncode == 70
    assert b"no such step was reached; did you mean 'paravirt_build_guest'?" in result.stderr


def test_limits(tmp_path: Path) -> None:
    spin = kernel("storms", "spin")
    for option, kind in (("--timeout=0.2", "timeout"), ("--max-instructions=1000", "limit")):
        result = paravirt("boot", spin, "-q", "--memory", "16M", option, "--json", tmp_path / kind)
        assert result.returncode == 124
        assert record(tmp_path / kind)["outcome"]["kind"] == kind


@pytest.mark.parametrize(("entry", "number", "status", "engine"), [
    ("spin", signal.SIGINT, 130, "auto"), ("spin", signal.SIGTERM, 143, "auto"),
    ("spin", signal.SIGINT, 130, "portable"), ("pf_without_a_block", signal.SIGINT, 130, "auto"),
    ("long_rep", signal.SIGTERM, 143, "portable"), ("ud_is_handler_fixed_stack", signal.SIGTERM, 143, "auto")])
def test_signals(entry: str, number: int, status: int, engine: str, tmp_path: Path) -> None:
    """A guest that runs no block, or one instruction for ever, is ended as well, and the record is written."""
    process = subprocess.Popen(
        command("boot", kernel("storms", entry), "--memory", "16M", "--engine", engine, "--json", tmp_path / "r"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stderr is not None
    with process:
        for line in process.stderr:
            if line.startswith(b"paravirt_machine_ready"):
                break
        time.sleep(0.2)
        process.send_signal(number)
        sent = time.monotonic()
        rest = process.stderr.read()
        assert process.wait(10) == status
        assert time.monotonic() - sent < 2
    name = signal.Signals(number).name
    assert rest.startswith(f"paravirt: interrupted: interrupted by {name} (eip 0x".encode()), rest
    assert rest.count(b"\n") == 1
    data = record(tmp_path / "r")
    assert (data["outcome"]["kind"], data["exit_code"]) == ("interrupted", status)


def test_a_guest_that_waits_for_an_open_pipe_is_interrupted(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("boot", kernel("echo", "echo"), "-q", "--memory", "16M", "--json", tmp_path / "r"),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdin is not None and process.stdout is not None
    with process:
        assert process.stdout.read(7) == b"ready\r\n"
        process.stdin.write(b"hallo")
        process.stdin.flush()
        assert process.stdout.read(5) == b"hallo"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    data = record(tmp_path / "r")
    assert (data["outcome"]["kind"], data["host"]["late_input"]) == ("interrupted", 5)


def test_stdout_closed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("boot", kernel("echo", "chatter"), "-q", "--memory", "16M", "--json", tmp_path / "r"),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment())
    assert process.stdout is not None and process.stderr is not None
    with process:
        assert process.stdout.read(3) == b"..."
        process.stdout.close()
        assert process.wait(10) == 141
        text = process.stderr.read()
    assert text.startswith(b"paravirt: stopped: nobody reads the console any more") and text.count(b"\n") == 1
    assert record(tmp_path / "r")["outcome"]["kind"] == "stopped"


@pytest.mark.parametrize("name", ["plugins", "--help"])
def test_stdout_closed_for_other_commands(name: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as closed:
        result = subprocess.run(command(name), stdout=closed, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_disk_full(tmp_path: Path) -> None:
    result = paravirt("boot", kernel("echo", "echo"), "-q", "--memory", "16M", "--console", "/dev/full", "--json",
                      tmp_path / "r")
    assert (result.returncode, result.stderr) == (2, b"paravirt: --console /dev/full: No space left on device\n")
    assert record(tmp_path / "r")["outcome"]["kind"] == "error"
    with open("/dev/full", "wb") as full:
        other = subprocess.run(command("plugins"), stdout=full, stderr=subprocess.PIPE, env=environment(), check=False)
    assert (other.returncode, other.stderr) == (2, b"paravirt: output: No space left on device\n")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_standard_files_may_be_closed(closed: int) -> None:
    """Nothing of ours may end up in the guest's console, nor the guest's input in a file of ours."""
    line = " ".join(command("boot", kernel("echo", "echo"), "-q", "--memory", "16M"))
    result = subprocess.run(["sh", "-c", f"exec {line} {closed}{'<' if closed == 0 else '>'}&-"], input=b"q",
                            capture_output=True, env=environment(), check=False)
    assert result.returncode == (70 if closed == 0 else 0), result.stderr
    assert result.stdout == (b"ready\r\n", b"", b"ready\r\nq")[closed]


def test_a_speed_up_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """An accelerator of another build makes everything ten times slower; whoever waits should know why."""
    here = Here(monkeypatch, capfd)
    halt = kernel("ends", "halt")
    assert "slower" not in here("boot", "-q", halt)[2]
    assert "slower" not in here("boot", "-q", halt, "--engine", "portable")[2]
    monkeypatch.setattr("paravirt.machine.accel.platform.machine", lambda: "aarch64")
    said = here("boot", "-q", halt)[2]
    assert "paravirt: slower than it could be: the native helpers are built for x86-64 Linux only\n" in said
