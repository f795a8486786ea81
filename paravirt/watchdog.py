"""Ends a run from outside: Ctrl-C, SIGTERM, SIGHUP, --timeout; within 200 ms, whatever the guest does.

Python's signal handlers run between byte codes, and a guest that loops gives none. So the interpreter's
wake-up descriptor (written by the C handler) wakes a thread, and that thread stops the CPU, again and again
until the run has ended: a stop that comes between two slices is lost.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from types import FrameType, TracebackType

from paravirt.machine.core import Machine
from paravirt.machine.outcome import End, Outcome

REPEAT_SECONDS = 0.01
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Watchdog:
    """Watches over one run, as a context manager.

    :param timeout: wall seconds, None for no limit.
    """

    def __init__(self, machine: Machine, timeout: float | None = None) -> None:
        self._machine, self._timeout = machine, timeout
        self._read, self._write = -1, -1
        self._thread: threading.Thread | None = None
        self._done = threading.Event()
        self._previous: dict[int, object] = {}
        self._old_wakeup = -1
        self._signals = 0

    def __enter__(self) -> Watchdog:
        main = threading.current_thread() is threading.main_thread()
        if not main and self._timeout is None:
            return self
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        if main:
            self._old_wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            for number in SIGNALS:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup
                self._previous[number] = signal.signal(number, self._on_signal)
        self._thread = threading.Thread(target=self._watch, name="paravirt-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._thread is None:
            return
        self._done.set()
        if self._previous:
            signal.set_wakeup_fd(self._old_wakeup)
            for number, handler in self._previous.items():
                signal.signal(number, handler)  # type: ignore[arg-type]
        with contextlib.suppress(BlockingIOError):
            os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """The thread does the work. A backend that loops in Python needs a second Ctrl-C."""
        self._signals += 1
        if self._signals > 1:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        end = None if self._timeout is None else time.monotonic() + self._timeout
        while not self._done.is_set():
            left = None if end is None else max(0.0, end - time.monotonic())
            ready = select.select([self._read], [], [], left)[0]
            if self._done.is_set():
                return
            if not ready:
                outcome = Outcome(End.TIMEOUT, f"{self._timeout:g} seconds of wall time are over")
            else:
                numbers = [n for n in os.read(self._read, 64) if n in self._previous]
                if not numbers:
                    continue
                number = signal.Signals(numbers[0])
                outcome = Outcome(End.INTERRUPTED, f"interrupted by {number.name}", status=128 + number)
            self._machine.interrupt(outcome)
            while not self._done.wait(REPEAT_SECONDS):
                self._machine.engine.stop()
            return
