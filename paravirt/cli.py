"""The command line. The guest's console is stdout; everything else goes to stderr.

Exit status: see `paravirt boot --help`. A user's mistake is one line on stderr and status 2; ``--debug`` adds
the traceback.
"""

from __future__ import annotations

import errno
import gc
import os
import sys

from paravirt.errors import ParavirtError

GC_ALLOCATIONS = 100_000  # between collections: Python's 700 make it collect again and again while it imports
OUTPUT_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main() -> None:
    """Entry point of the ``paravirt`` command."""
    gc.set_threshold(GC_ALLOCATIONS)
    _open_standard_files()
    try:
        status = _run("--debug" in sys.argv[1:])
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        status = 141
    except SystemExit as end:  # typer and rich leave so when a pipe is closed
        status = 141 if isinstance(end.__context__, BrokenPipeError) else end.code
    if status == 141:
        _drop_output()
    gc.freeze()  # the collection at exit would look at all that was ever imported
    sys.exit(status)


def _run(debug: bool) -> int | str | None:
    """The exit status of the command."""
    try:
        from paravirt.cli_words import boot_request

        request = boot_request(sys.argv[1:])
        if request is not None:
            from paravirt.cli_boot import boot_command

            return boot_command(request)
        from paravirt.commands import run

        return run()
    except ParavirtError as error:
        if debug:
            raise
        print(f"paravirt: {error}", file=sys.stderr)
    except OSError as error:
        if debug or error.errno not in OUTPUT_ERRORS:
            raise
        print(f"paravirt: output: {error.strerror}", file=sys.stderr)
    except Exception as error:
        # What typer finds wrong in the command line; it exports no class that has all of it.
        message = getattr(error, "format_message", None)
        if message is None:
            raise
        said = str(message())  # of the command alone it is the help
        print(f"paravirt: {' '.join(said.split())}" if sys.argv[1:] else said, file=sys.stderr)
    return 2


def _open_standard_files() -> None:
    """One of them that was closed would else be the next file that is opened, and get what is not meant for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w")  # None, if it was closed; print() would take the other for it
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _drop_output() -> None:
    """Python flushes both at exit and would complain about the closed pipe."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


if __name__ == "__main__":
    main()
