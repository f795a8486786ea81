"""What can go wrong, by who must be told.

A `ParavirtError` is a user's or a backend author's mistake: one message, exit status 2. A `GuestFault`
is the guest's own and is delivered to it. What ends a guest is an `Outcome` (machine/outcome.py).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ParavirtError(Exception):
    """The command cannot go on; the message says what is wrong, where, and what would be right."""


class ConfigError(ParavirtError):
    """plugins.toml, or an option of the command line; names the file or the option, and the field."""


class PluginError(ParavirtError):
    """A backend cannot be loaded or lacks a piece; names the plugin and all that is wrong with it."""


class ImageError(ParavirtError):
    """A kernel image cannot be used; names the file and the field."""


class BackendError(ParavirtError):
    """A backend's code raised while the guest ran.

    :param op: the op or hook; :param where: ``function file:line`` of the code.
    """

    def __init__(self, message: str, *, op: str = "", where: str = "") -> None:
        super().__init__(message)
        self.op, self.where = op, where


class GuestFault(Exception):
    """An exception to be delivered to the guest (vector, error code; CR2 for page faults)."""

    def __init__(self, vector: int, error: int = 0, cr2: int | None = None) -> None:
        super().__init__(vector, error, cr2)
        self.vector, self.error, self.cr2 = vector, error, cr2

    def __str__(self) -> str:
        at = f" at {self.cr2:#x}" if self.cr2 is not None else ""
        return f"exception {self.vector} (error code {self.error:#x}){at}"


def close_match(word: str, known: Iterable[str]) -> str:
    """``; did you mean 'native'?`` or the list of what there is, to end a message with."""
    names = sorted(known)
    found = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {found[0]!r}?"
    return f"; there are {', '.join(names)}" if names else ""


def printable(text: str | bytes, limit: int = 200) -> str:
    """Guest-made text for a terminal: control characters escaped, length bounded."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:limit])
    return shown + ("..." if len(text) > limit else "")
