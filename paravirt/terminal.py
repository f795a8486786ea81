"""The user's terminal while a guest has it: raw, and as it was before whenever the guest has it no longer.

The guest's own terminal driver echoes, edits lines and makes signals of keys, so ours must not. What ends this
process or stops it must leave a usable terminal behind. SIGKILL and SIGSTOP cannot be caught; after the latter the
shell puts its own modes back, and SIGCONT ours.

Ref: termios(3); tty_ioctl(4); POSIX.1-2017, section 11.1.4 (a change of modes from the background stops the process)
"""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import threading
import tty
from types import FrameType, TracebackType
from typing import Any

OFLAG = 1
CONTROLLING = os.makedev(5, 0)  # /dev/tty: whatever terminal the process belongs to
ENDING = (signal.SIGHUP, signal.SIGTERM)  # SIGINT raises KeyboardInterrupt as it is


class RawTerminal:
    """Makes a terminal raw, but for the output's newline translation, as a context manager.

    Signals are caught in the main thread only. One that was ignored before stays ignored.

    :param descriptor: the terminal, open for reading.
    :raises termios.error: it is no terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._saved: list[Any] = termios.tcgetattr(descriptor)
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> RawTerminal:
        if threading.current_thread() is threading.main_thread():
            handlers = {signal.SIGTSTP: self._on_stop, signal.SIGCONT: self._on_continue,
                        **dict.fromkeys(ENDING, self._on_end)}
            for number, handler in handlers.items():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, handler)
        try:
            self._make_raw()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._restore()

    def _make_raw(self) -> None:
        tty.setraw(self._descriptor, termios.TCSANOW)
        modes = termios.tcgetattr(self._descriptor)
        modes[OFLAG] = self._saved[OFLAG]
        termios.tcsetattr(self._descriptor, termios.TCSANOW, modes)

    def _restore(self) -> None:
        with contextlib.suppress(termios.error):  # the terminal is gone, and its modes with it
            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._saved)

    def _on_end(self, number: int, frame: FrameType | None) -> None:
        """Before and after the guest runs, when no watchdog has the signal."""
        raise SystemExit(128 + number)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._restore()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # the process stops here, and goes on here
        signal.signal(number, self._on_stop)
        self._on_continue(number, frame)

    def _on_continue(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(termios.error):
            self._make_raw()


def same_terminal(first: int, second: int) -> bool:
    """Whether both descriptors are terminals, and may be the same one."""
    if not (os.isatty(first) and os.isatty(second)):
        return False
    devices = {os.fstat(first).st_rdev, os.fstat(second).st_rdev}
    return len(devices) == 1 or CONTROLLING in devices
