"""A run can always be ended from outside, and leaves the process as it found it.

What must hold: the time limit works in any thread; signals work in the main one; handlers, wake-up descriptor,
threads and file descriptors are as before afterwards, also when the guest ended by itself; a signal that comes
between two slices is not lost. Times are bounded generously: a loaded host is no failure.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.machine.core import Machine
from paravirt.machine.outcome import End
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt.watchdog import Watchdog
from tests.kernels import kernel

MEMORY = 4 << 20
in_main_thread = pytest.mark.skipif(threading.current_thread() is not threading.main_thread(),
                                    reason="signals are the main thread's")


def run(entry: str, source: str = "storms", console: Console | None = None, **options: object) -> Record:
    return boot(kernel(source, entry), BootOptions(memory=MEMORY, **options), console)  # type: ignore[arg-type]


@contextmanager
def later(seconds: float, *signals: int) -> Iterator[None]:
    """Send this process signals, `seconds` from now and 50 ms apart."""

    def send() -> None:
        for number in signals:
            time.sleep(seconds if number == signals[0] else 0.05)
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()


def process_state() -> tuple[object, ...]:
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    return (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), wakeup,
            [t.name for t in threading.enumerate() if t.name == "paravirt-watchdog"],
            len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0)


@in_main_thread
@pytest.mark.parametrize(("source", "entry", "kind", "timeout"), [
    ("storms", "spin", "timeout", 0.05), ("ends", "power_off", "poweroff", None),
    ("ends", "triple_fault", "crash", 5.0)])
def test_everything_is_put_back(source: str, entry: str, kind: str, timeout: float | None) -> None:
    run(entry, source, timeout=timeout)  # what is made once in a process is made now
    before = process_state()
    assert run(entry, source, timeout=timeout).outcome.kind == kind
    assert process_state() == before


@in_main_thread
@pytest.mark.parametrize("engine", ["auto", "portable"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number: signal.Signals, status: int, engine: str) -> None:
    with later(0.1, number):
        record = run("spin", engine=engine, timeout=20)
    assert (record.outcome.kind, record.exit_code) == ("interrupted", status)
    assert record.outcome.reason == f"interrupted by {number.name}"
    assert record.outcome.symbol == "spin_loop"
    assert record.host.wall_seconds < 2


@in_main_thread
def test_a_guest_that_sleeps_is_interrupted() -> None:
    """It waits for input from a pipe that is open and silent."""
    read, write = os.pipe()
    try:
        with later(0.15, signal.SIGINT):
            record = run("echo", "echo", Console(source=read), timeout=20)
    finally:
        os.close(read)
        os.close(write)
    assert record.outcome.kind == "interrupted"
    assert record.host.wall_seconds < 2


@in_main_thread
def test_a_guest_that_sleeps_in_real_time_is_interrupted() -> None:
    with later(0.1, signal.SIGTERM):
        record = run("wait_for_timer", "ends", realtime=True, timeout=20)
    assert (record.outcome.kind, record.exit_code) == ("interrupted", 143)


def test_the_time_limit_works_for_a_sleeping_guest() -> None:
    read, write = os.pipe()
    try:
        record = run("echo", "echo", Console(source=read), timeout=0.1)
    finally:
        os.close(read)
        os.close(write)
    assert (record.outcome.kind, record.exit_code) == ("timeout", 124)


def test_the_time_limit_works_in_any_thread() -> None:
    records: list[Record] = []
    thread = threading.Thread(target=lambda: records.append(run("spin", timeout=0.1)))
    thread.start()
    thread.join(10)
    assert [record.outcome.kind for record in records] == ["timeout"]


def test_two_machines_in_two_threads() -> None:
    """The limit of one does not touch the other."""
    records: dict[str, Record] = {}

    def start(name: str, timeout: float) -> None:
        records[name] = run("spin", timeout=timeout)

    threads = [threading.Thread(target=start, args=each) for each in (("short", 0.1), ("long", 0.4))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert {name: record.outcome.reason for name, record in records.items()} == {
        "short": "0.1 seconds of wall time are over", "long": "0.4 seconds of wall time are over"}
    assert records["long"].host.wall_seconds >= 0.4


def test_without_a_limit_another_thread_needs_no_watchdog() -> None:
    records: list[Record] = []
    thread = threading.Thread(target=lambda: records.append(run("halt", "ends")))
    thread.start()
    thread.join(10)
    assert [record.outcome.kind for record in records] == ["halt"]


@in_main_thread
def test_a_stop_between_two_slices_is_repeated() -> None:
    """The machine runs nothing when the signal comes; its outcome stands when it would run again."""
    with Machine(MEMORY) as machine:
        with Watchdog(machine, None):
            os.kill(os.getpid(), signal.SIGINT)
            end = time.monotonic() + 2
            while machine.outcome is None and time.monotonic() < end:
                time.sleep(0.01)
        assert machine.outcome is not None
        assert (machine.outcome.end, machine.outcome.exit_code) == (End.INTERRUPTED, 130)


@in_main_thread
def test_a_second_signal_ends_python_code_too() -> None:
    """A backend that loops in Python does not look at the outcome."""
    with Machine(MEMORY) as machine, pytest.raises(KeyboardInterrupt), later(0.05, signal.SIGINT, signal.SIGINT):
        with Watchdog(machine, None):
            time.sleep(5)
        pytest.fail("the second signal was lost")


@in_main_thread
def test_the_first_outcome_counts() -> None:
    with Machine(MEMORY) as machine:
        machine.end(End.POWEROFF, "off")
        with Watchdog(machine, 0.01):
            time.sleep(0.1)
        assert machine.outcome is not None and machine.outcome.end is End.POWEROFF
