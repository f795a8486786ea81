"""A line on the terminal that tells how far a silent guest is: instructions, virtual time, speed.

It stands only where nothing else would: after half a second of silence, at the start of a line, and it is removed
before anything else is printed. The caller says whether there is a terminal at all, and whether a guest has it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

SILENCE_SECONDS = 0.5
REFRESH_SECONDS = 0.2


class Progress:
    """
    :param out: a terminal.
    :param clock: wall time in seconds.
    """

    def __init__(self, out: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._clock = out, clock
        self._console: Console | None = None
        self._shown = False
        self._line_open = False  # the guest has begun a line, which ours would overwrite
        self._closed = False
        self._due = clock() + SILENCE_SECONDS
        self._last: tuple[float, int] | None = None  # wall time and instructions at the last look

    def poll(self, instructions: int, virtual_ns: int) -> None:
        """Show the line, or its new figures, if it is time to."""
        now = self._clock()
        if now < self._due or self._line_open or self._closed:
            return
        self._due = now + REFRESH_SECONDS
        last, self._last = self._last, (now, instructions)
        if last is None or now <= last[0]:
            return  # a speed takes two looks
        self._show(f"{instructions:,} instructions, {virtual_ns / 1e9:.3f} s virtual time, "
                   f"{(instructions - last[1]) / (now - last[0]) / 1e6:,.0f} MIPS")

    def clear(self) -> None:
        """Something else is about to be printed: remove the line, and wait for silence again."""
        self._due = self._clock() + SILENCE_SECONDS
        self._last = None
        if self._shown:
            self._shown = False
            self._write("")

    def guest_output(self, data: bytes) -> None:
        """The guest is about to print `data` on the same terminal."""
        self.clear()
        self._line_open = not data.endswith(b"\n")

    def close(self) -> None:
        """Remove the line for good."""
        self.clear()
        self._closed = True

    def _show(self, text: str) -> None:
        self._shown = True
        self._write(text)

    def _write(self, text: str) -> None:
        from rich.control import Control
        from rich.segment import ControlType

        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._out, highlight=False, markup=False, emoji=False)
        if self._console.is_dumb_terminal:  # it cannot erase
            self._closed = True
            return
        try:
            self._console.control(Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2)))
            if text:
                room = max(1, self._console.width - 1)  # in the last column the cursor may go to the next line
                self._console.print(text[:room], style="dim", end="", soft_wrap=True)
            self._out.flush()
        except OSError:  # the terminal is gone
            self._closed = True
