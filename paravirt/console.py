"""The guest's console at the host's end: where its output goes, where its input comes from.

Input from a pipe or file is read as it is there; what arrives only after the guest has begun depends on the
host's timing and is counted (`late_input`), since it makes a run unrepeatable.
"""

from __future__ import annotations

import hashlib
import os
import re
import select
from collections.abc import Callable

QUIT = 0x1D  # Ctrl-]
CHUNK = 65536
KEPT = 1 << 12  # bytes of output that --until-output can look back on


class Console:
    """
    :param output: takes what the guest prints.
    :param source: file descriptor of the input, or None.
    :param until: ends the run when the output matches; see `matched`.
    """

    def __init__(self, output: Callable[[bytes], None] = lambda data: None, source: int | None = None,
                 until: re.Pattern[bytes] | None = None) -> None:
        self._output, self._source, self._until = output, source, until
        self._digest = hashlib.sha256()
        self._recent = bytearray()
        self._pending = bytearray()
        self._given = False
        self.receive: Callable[[bytes], None] | None = None
        self.written = 0
        self.late_input = 0
        self.quit = False
        self.terminal = source is not None and os.isatty(source)
        self.marks: re.Pattern[bytes] | None = None
        self.on_mark: Callable[[str], None] = lambda text: None  # the output matches `marks`, once for each match
        self._unmarked = bytearray()
        self.on_match: Callable[[bytes], None] = lambda text: None
        self.on_output: Callable[[int | None], None] = lambda when: None  # the guest printed, at `when` if not now
        self.on_closed: Callable[[], None] = lambda: None  # nobody reads the output any more

    # ------------------------------------------------------------------ output

    @property
    def watched(self) -> bool:
        """Whether somebody waits for what the guest prints: it must come here with the instruction that sends it."""
        return self._until is not None or self.marks is not None

    def write(self, data: bytes, when: int | None = None) -> None:
        """The guest printed `data`, the last of it at virtual time `when` (ns); None: now."""
        self.written += len(data)
        self._digest.update(data)
        self.on_output(when)
        self._output(data)
        if self.marks is not None:
            self._mark(self.marks, data)
        if self._until is not None:
            self._recent += data
            found = self._until.search(self._recent)
            if found:
                self._until = None
                self.on_match(found.group())
            elif len(self._recent) > 2 * KEPT:
                del self._recent[:-KEPT]

    def _mark(self, marks: re.Pattern[bytes], data: bytes) -> None:
        self._unmarked += data
        end = 0
        for found in marks.finditer(self._unmarked):
            end = found.end()
            self.on_mark(found.group().decode("utf-8", "backslashreplace"))
        del self._unmarked[: max(end, len(self._unmarked) - KEPT)]

    def digest(self) -> str:
        """SHA-256 of all output so far."""
        return self._digest.hexdigest()

    # ------------------------------------------------------------------ input

    def connect(self, receive: Callable[[bytes], None]) -> None:
        """The device that takes the input."""
        self.receive = receive
        self._hand_over()
        self.poll()

    def feed(self, data: bytes) -> None:
        """Input from Python."""
        self._pending += data
        self._hand_over()

    @property
    def at_end(self) -> bool:
        """There will be no more input."""
        return self._source is None

    def poll(self) -> None:
        """Take what input is there, without waiting."""
        while self._source is not None and select.select([self._source], [], [], 0)[0]:
            self._read()

    def wait(self, seconds: float) -> bool:
        """Wait for input, at most `seconds`. Whether there is any."""
        if self._source is None or not select.select([self._source], [], [], seconds)[0]:
            return False
        self._read()
        return True

    def _read(self) -> None:
        assert self._source is not None
        try:
            data = os.read(self._source, CHUNK)
        except OSError:  # a terminal that is gone
            data = b""
        if not data:
            self._source = None
        if self.terminal and QUIT in data:
            self.quit = True
            data = data[: data.index(QUIT)]
        if self._given:
            self.late_input += len(data)
        self._pending += data
        self._hand_over()

    def begin(self) -> None:
        """The guest starts to run: what comes from now on is late."""
        self.poll()
        self._given = self._source is not None

    def _hand_over(self) -> None:
        if self.receive is not None and self._pending:
            data, self._pending = bytes(self._pending), bytearray()
            self.receive(data)
