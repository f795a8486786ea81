"""Reading a file that a user names: whole, bounded, and with one sentence when it cannot be."""

from __future__ import annotations

import stat
from pathlib import Path

from paravirt.errors import ImageError

MAX_FILE = 1 << 30


def read_file(path: Path, what: str = "kernel image") -> bytes:
    """The bytes of `path`.

    :param what: what the file should be, for the message.
    :raises ImageError: if it is missing, empty, not a regular file, too large or not readable.
    """
    try:
        # Looked at before it is opened: opening a named pipe would wait for a writer.
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(f"{path}: is a directory, not a {what}")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path}: not a regular file; copy the {what} to one")
        if status.st_size > MAX_FILE:
            raise ImageError(f"{path}: {status.st_size} bytes; a {what} may have {MAX_FILE}")
        data = path.read_bytes()
    except OSError as problem:
        raise ImageError(f"{path}: cannot read the {what}: {problem.strerror}") from None
    except ValueError as problem:
        raise ImageError(f"{str(path)!r}: not a file name: {problem}") from None
    if not data:
        raise ImageError(f"{path}: is empty, not a {what}")
    return data
