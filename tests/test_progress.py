"""The progress line may be the only sign of life of a long boot, and must never spoil what else is on the terminal.

What must hold: it comes after half a second of silence and goes before anything else is printed; it never stands on
a line that the guest has begun, nor on a terminal that the guest has, nor in a file.
"""

from __future__ import annotations

import io
import os
import pty
import select
import subprocess
import time

import pytest

from paravirt.progress import Progress
from tests.commandline import command, environment
from tests.kernels import kernel

ERASE = "\r\x1b[2K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def take(self) -> str:
        """What was written since the last look."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


class Bench:
    """A progress line, its terminal, and a wall clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.terminal = Terminal()
        self.line = Progress(self.terminal, lambda: self.now)

    def after(self, seconds: float, instructions: int) -> str:
        self.now += seconds
        self.line.poll(instructions, instructions * 2)
        return self.terminal.take()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    return Bench()


def test_it_comes_after_silence_and_is_refreshed(bench: Bench) -> None:
    assert bench.after(0.4, 1_000_000) == ""
    assert bench.after(0.2, 10_000_000) == ""  # the first look: no speed yet
    assert bench.after(0.1, 20_000_000) == ""
    shown = bench.after(0.15, 60_000_000)
    assert shown.startswith(ERASE) and "\n" not in shown
    assert "60,000,000 instructions, 0.120 s virtual time, 200 MIPS" in shown
    assert bench.after(0.1, 70_000_000) == ""
    assert "80,000,000 instructions" in bench.after(0.15, 80_000_000)


def show(bench: Bench) -> None:
    bench.after(0.6, 1_000_000)
    assert "instructions" in bench.after(0.3, 2_000_000)


def test_it_goes_before_other_output_and_waits_again(bench: Bench) -> None:
    show(bench)
    bench.line.clear()
    assert bench.terminal.take() == ERASE
    bench.line.clear()
    assert bench.terminal.take() == ""  # there is nothing to remove
    assert bench.after(0.45, 3_000_000) == ""
    show(bench)


def test_it_does_not_stand_on_a_line_of_the_guests(bench: Bench) -> None:
    show(bench)
    bench.line.guest_output(b"login: ")
    assert bench.terminal.take() == ERASE
    assert [bench.after(1, 9_000_000) for _ in range(3)] == ["", "", ""]
    bench.line.guest_output(b"\r\n")
    show(bench)


def test_it_does_not_come_back(bench: Bench) -> None:
    show(bench)
    bench.line.close()
    assert bench.terminal.take() == ERASE
    assert [bench.after(1, 9_000_000) for _ in range(3)] == ["", "", ""]


def test_it_fits_on_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last column the cursor would go to the next line, and the line could not be removed."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    bench = Bench()
    bench.after(0.6, 1_000_000)
    shown = bench.after(0.3, 2_000_000)
    assert shown.replace("\x1b[2m", "").replace("\x1b[0m", "") == ERASE + "2,000,000 instructi"


def test_a_terminal_that_cannot_erase_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    bench = Bench()
    assert [bench.after(1, count * 1_000_000) for count in range(4)] == [""] * 4
    bench.line.close()
    assert bench.terminal.take() == ""


class Gone(Terminal):
    def write(self, text: str) -> int:
        raise OSError("Input/output error")


def test_a_terminal_that_is_gone_is_no_error() -> None:
    now = iter(range(100))
    line = Progress(Gone(), lambda: next(now))
    for count in range(5):
        line.poll(count, count)
    line.close()


# ------------------------------------------------------------------ in a run


def drain(leader: int, process: subprocess.Popen[bytes]) -> str:
    """All that is written to a pseudo-terminal until the process ends."""
    text = b""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        done = process.poll() is not None
        if select.select([leader], [], [], 0 if done else 0.05)[0]:
            try:
                text += os.read(leader, 65536)
            except OSError:
                break
        elif done:
            break
    return text.decode()


def run_on_a_terminal(*arguments: str, guest_has_it: bool = False, output_too: bool = False) -> str:
    """What a guest that never speaks leaves on the terminal that stderr is."""
    leader, follower = pty.openpty()
    try:
        process = subprocess.Popen(
            command("boot", kernel("storms", "spin"), "--memory", "16M", "--timeout", "1.2", *arguments),
            stdin=follower if guest_has_it else subprocess.DEVNULL, stderr=follower,
            stdout=follower if output_too else subprocess.DEVNULL, env={**environment(), "TERM": "xterm"})
        return drain(leader, process)
    finally:
        os.close(leader)
        os.close(follower)


def test_a_silent_guest_shows_progress_and_the_last_word_stands_alone() -> None:
    text = run_on_a_terminal(output_too=True)
    assert "s virtual time, " in text and " MIPS" in text
    before, _, last = text.partition("paravirt: timeout: ")
    assert before.endswith(ERASE) and last.count("\n") == 1
    assert before.index("paravirt_machine_ready") < before.index(" MIPS")


def test_no_progress_where_it_would_be_in_the_way() -> None:
    for options, where in ((("-q",), {}), ((), {"guest_has_it": True})):
        text = run_on_a_terminal(*options, **where)
        assert "MIPS" not in text and "paravirt: timeout: " in text


def test_no_progress_in_a_file() -> None:
    result = subprocess.run(command("boot", kernel("storms", "spin"), "--memory", "16M", "--timeout", "1.2"),
                            stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=False)
    assert b"MIPS" not in result.stderr and b"\x1b" not in result.stderr and result.returncode == 124
