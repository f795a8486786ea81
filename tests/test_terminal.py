"""A terminal that is left raw neither echoes nor breaks lines: the user's shell seems dead.

What must hold: while a guest has the terminal every key is the guest's; whatever ends the run, an error and a signal
at any moment included, or stops the process, the terminal is afterwards as it was; a process that goes on takes it
again.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paravirt.terminal import RawTerminal, same_terminal
from tests.commandline import HALT, command, environment
from tests.kernels import kernel, raw_kernel

OFLAG, LFLAG = 1, 3
COOKED = termios.ICANON | termios.ECHO | termios.ISIG


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """The user's end and the process's end of a pseudo-terminal."""
    leader, follower = pty.openpty()
    yield leader, follower
    os.close(leader)
    os.close(follower)


def is_raw(descriptor: int) -> bool:
    return not termios.tcgetattr(descriptor)[LFLAG] & COOKED


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, f"never {what}"
        time.sleep(0.01)


# ------------------------------------------------------------------ the context manager


def test_raw_but_for_newlines_and_back(terminal: tuple[int, int]) -> None:
    _, follower = terminal
    before = termios.tcgetattr(follower)
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP, signal.SIGCONT)]
    with RawTerminal(follower):
        assert is_raw(follower)
        assert termios.tcgetattr(follower)[OFLAG] == before[OFLAG]
    assert termios.tcgetattr(follower) == before
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP,
                                                                signal.SIGCONT)]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_passes_and_the_terminal_is_back(terminal: tuple[int, int], error: type[BaseException]) -> None:
    _, follower = terminal
    before = termios.tcgetattr(follower)
    with pytest.raises(error), RawTerminal(follower):
        raise error
    assert termios.tcgetattr(follower) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_outside_of_a_run_is_an_exit(terminal: tuple[int, int], number: int, status: int) -> None:
    """While plugins are loaded, or the record is written."""
    _, follower = terminal
    before = termios.tcgetattr(follower)
    with pytest.raises(SystemExit) as end, RawTerminal(follower):
        os.kill(os.getpid(), number)
        time.sleep(1)
    assert end.value.code == status
    assert termios.tcgetattr(follower) == before


def test_an_ignored_signal_stays_ignored(terminal: tuple[int, int]) -> None:
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with RawTerminal(terminal[1]):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_in_another_thread_there_are_no_signals(terminal: tuple[int, int]) -> None:
    seen: list[bool] = []

    def body() -> None:
        with RawTerminal(terminal[1]):
            seen.append(is_raw(terminal[1]))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [True] and not is_raw(terminal[1])


def test_what_is_no_terminal() -> None:
    with open(os.devnull) as null, pytest.raises(termios.error):
        RawTerminal(null.fileno())


def test_same_terminal(terminal: tuple[int, int]) -> None:
    _, follower = terminal
    copy, (leader, other) = os.dup(follower), pty.openpty()
    read, write = os.pipe()
    assert same_terminal(follower, copy) and not same_terminal(follower, other) and not same_terminal(read, read)
    for descriptor in (copy, leader, other, read, write):
        os.close(descriptor)


# ------------------------------------------------------------------ runs


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(terminal: tuple[int, int]) -> Iterator[Start]:
    """Boots on the terminal, in a process group of its own, as a shell would start it."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object) -> subprocess.Popen[bytes]:
        processes.append(subprocess.Popen(
            command("boot", *arguments, "-q", "--memory", "16M"), stdin=terminal[1], stdout=terminal[1],
            stderr=subprocess.PIPE, env=environment(), process_group=0))
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def end_of(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    _, said = process.communicate(timeout=20)
    assert b"Traceback" not in said, said.decode()
    return process.returncode, said


def ended_well(follower: int, before: list[Any]) -> None:
    assert termios.tcgetattr(follower) == before


@pytest.mark.parametrize(("guest", "act", "status"), [
    (("echo", "echo"), b"q", 0), (("echo", "echo"), b"x", 70), (("echo", "echo"), b"\x1d", 0),
    (("echo", "echo"), signal.SIGTERM, 143), (("storms", "spin"), signal.SIGINT, 130),
    (("storms", "spin"), signal.SIGHUP, 129), (("storms", "pf_without_a_block"), signal.SIGTERM, 143)])
def test_every_end(terminal: tuple[int, int], start: Start, guest: tuple[str, str], act: bytes | int,
                   status: int) -> None:
    """Power-off, crash, Ctrl-] and signals, to guests that wait and to such that never come to rest."""
    leader, follower = terminal
    before = termios.tcgetattr(follower)
    process = start(kernel(*guest))
    wait_for(lambda: is_raw(follower), "raw")
    if guest[0] == "echo":
        seen = b""
        while not seen.endswith(b"\n"):
            seen += os.read(leader, 100)
        assert seen == b"ready\r\r\n"  # the terminal adds a CR to the guest's own
    else:
        time.sleep(0.5)
    if isinstance(act, bytes):
        os.write(leader, act)
    else:
        process.send_signal(act)
    assert end_of(process)[0] == status
    ended_well(follower, before)


def test_a_mistake_of_the_users(terminal: tuple[int, int], start: Start, tmp_path: Path) -> None:
    _, follower = terminal
    before = termios.tcgetattr(follower)
    for arguments in ((tmp_path / "nothing",), (raw_kernel(tmp_path / "k", HALT), "--backend", "nativ")):
        assert end_of(start(*arguments))[0] == 2
        ended_well(follower, before)


def test_keys_are_the_guests(terminal: tuple[int, int], start: Start) -> None:
    """Ctrl-C, Ctrl-Z, Ctrl-D, Ctrl-\\ and CR arrive as they are."""
    leader, follower = terminal
    process = start(kernel("echo", "echo"))
    wait_for(lambda: is_raw(follower), "raw")
    os.write(leader, b"\x03\x1a\x04\x1c\rq")
    assert end_of(process)[0] == 0
    assert os.read(leader, 100) == b"ready\r\r\n\x03\x1a\x04\x1c\rq"


def test_a_stopped_process_gives_the_terminal_back_and_takes_it_again(terminal: tuple[int, int], start: Start) -> None:
    leader, follower = terminal
    before = termios.tcgetattr(follower)
    process = start(kernel("echo", "echo"))
    wait_for(lambda: is_raw(follower), "raw")
    for _ in range(2):
        process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        ended_well(follower, before)
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: is_raw(follower), "raw again")
    # What no process can catch: the shell puts its modes back, and SIGCONT brings ours.
    process.send_signal(signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
    termios.tcsetattr(follower, termios.TCSANOW, before)
    process.send_signal(signal.SIGCONT)
    wait_for(lambda: is_raw(follower), "raw after SIGSTOP")
    os.write(leader, b"q")
    assert end_of(process)[0] == 0
    ended_well(follower, before)
