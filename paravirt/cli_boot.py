"""``paravirt boot``: options to `BootOptions`, console and terminal, steps and figures on stderr."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.errors import ConfigError, close_match, printable
from paravirt.guest import Guest
from paravirt.machine import accel
from paravirt.machine.outcome import End
from paravirt.options import BootOptions
from paravirt.progress import Progress
from paravirt.record import Record, write_record
from paravirt.report import StepPrinter, print_screen, print_state, print_stats
from paravirt.steps import Step
from paravirt.terminal import RawTerminal, same_terminal

SIZE = re.compile(r"(\d+)([KMG]?)(i?B)?", re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
MIN_MEMORY, MAX_MEMORY = 2 << 20, 3 << 30
MAX_SECONDS = 10**9
STDOUT_CLOSED = 141


class Request(NamedTuple):
    """The command line as typed."""

    kernel: Path | None = None
    backend: str = "auto"
    options: tuple[str, ...] = ()
    initrd: Path | None = None
    append: str = ""
    memory: str = "128M"
    vcpus: int = 1
    engine: str = "auto"
    no_accel: tuple[str, ...] = ()
    count_ops: bool = False
    count_modes: bool = False
    trace_ops: Path | None = None
    noreplace: bool = False
    until: str | None = None
    until_output: str | None = None
    mark: str | None = None
    sample: float | None = None
    timeout: float | None = None
    max_instructions: int | None = None
    idle_limit: float = 600.0
    realtime: bool | None = None
    rtc: str = "fixed"
    console: str = "stdio"
    json_file: Path | None = None
    trace: Path | None = None
    trace_limit: int = 1_000_000
    stats: bool = False
    screen: bool = False
    quiet: bool = False
    plugins: Path | None = None


def boot_command(request: Request) -> int:
    """Boot as asked. Returns the exit status.

    :raises ParavirtError: the user's mistake, or the backend's.
    """
    options = boot_options(request)
    for option, path in (("--json", request.json_file), ("--trace", request.trace)):
        if path is not None:
            check_path(option, path)
    printer = StepPrinter(sys.stderr, enabled=not request.quiet)

    with _console(request) as (console, progress, closed):
        def on_step(step: Step) -> None:
            if progress is not None:
                progress.clear()
            printer.step(step)

        def on_end(guest: Guest, record: Record) -> None:
            if progress is not None:
                progress.close()
            printer.close()
            if request.json_file is not None:
                try:
                    write_record(record, request.json_file)
                except OSError as error:
                    raise ConfigError(f"--json {request.json_file}: {error.strerror}") from None
            if record.outcome.kind == End.STOPPED.word and request.until:
                print_state(guest, record, sys.stderr)
            if request.stats:
                print_stats(record, sys.stderr)
            if request.screen:
                print_screen(guest, sys.stderr)

        record = boot(request.kernel, options, console, on_step=on_step, on_end=on_end,
                      on_slice=progress.poll if progress is not None else None)
    if slower := unexpected(record):
        print(f"paravirt: slower than it could be: {slower}", file=sys.stderr)
    print(f"paravirt: {ending(record)}", file=sys.stderr)
    if request.until and record.outcome.kind != End.STOPPED.word:
        names = [step.name for step in record.steps]
        print(f"paravirt: --until {request.until}: no such step was reached{close_match(request.until, names)}",
              file=sys.stderr)
    return STDOUT_CLOSED if closed() else record.exit_code


def unexpected(record: Record) -> str:
    """Why speed-ups that nobody switched off were not in use; empty if all were."""
    missing = record.engine.missing if record.engine is not None else {}
    reasons = (why for why in missing.values() if why != "switched off" and not why.startswith("needs "))
    return "; ".join(dict.fromkeys(reasons))


def ending(record: Record) -> str:
    """How a run ended, in one line: kind, sentence, place."""
    outcome = record.outcome
    place = "" if outcome.eip is None else f" (eip {outcome.eip:#x} {printable(outcome.symbol)}".rstrip() + ")"
    return f"{outcome.kind}: {printable(outcome.reason, 500)}{place}"


def boot_options(request: Request) -> BootOptions:
    """:raises ConfigError: naming the option that is wrong."""
    if request.vcpus != 1:
        raise ConfigError(f"--vcpus {request.vcpus}: one virtual CPU is supported")
    if request.engine not in ("auto", "portable"):
        raise ConfigError(f"--engine: no engine {request.engine!r}{close_match(request.engine, ('auto', 'portable'))}")
    for name in request.no_accel:
        if name not in accel.NAMES:
            raise ConfigError(f"--no-accel: no speed-up {name!r}{close_match(name, accel.NAMES)}")
    if request.rtc not in ("fixed", "now"):
        raise ConfigError(f"--rtc: {request.rtc!r} is neither 'fixed' nor 'now'")
    for option, value in (("--timeout", request.timeout), ("--sample", request.sample),
                          ("--max-instructions", request.max_instructions), ("--trace-limit", request.trace_limit)):
        if value is not None and not value > 0:  # nor NaN
            raise ConfigError(f"{option} {value}: must be positive")
    for option, seconds in (("--timeout", request.timeout), ("--idle-limit", request.idle_limit)):
        if seconds is not None and not 0 <= seconds <= MAX_SECONDS:
            raise ConfigError(f"{option} {seconds}: must be from 0 to {MAX_SECONDS} seconds")
    return BootOptions(
        backend=request.backend, memory=parse_memory(request.memory), append=request.append,
        initrd=request.initrd,
        options=parse_options(request.options), engine=request.engine, no_accel=request.no_accel,
        count_ops=request.count_ops, count_modes=request.count_modes, trace_ops=request.trace_ops,
        replace_paravirt=not request.noreplace,
        until=request.until, timeout=request.timeout, max_instructions=request.max_instructions,
        idle_limit=request.idle_limit,
        hash_state=request.json_file is not None or request.stats,
        realtime=os.isatty(0) if request.realtime is None else request.realtime, rtc_now=request.rtc == "now",
        plugins_file=request.plugins, mark=expression("--mark", request.mark),
        sample_ns=int((request.sample or 0) * 1e6),
        trace=request.trace, trace_limit=request.trace_limit)


def expression(option: str, text: str | None) -> re.Pattern[bytes] | None:
    """:raises ConfigError: `text` is no regular expression."""
    try:
        return re.compile(text.encode(), re.MULTILINE) if text is not None else None
    except re.error as error:
        raise ConfigError(f"{option} {text!r}: {error}") from None


def check_path(option: str, path: Path) -> None:
    """Better now than after the run.

    :raises ConfigError: the file could not be written.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}") from None


def parse_memory(text: str) -> int:
    """``128M``, ``128MiB``, ``1G`` or bytes, as bytes.

    :raises ConfigError: for anything else, and outside what an i386 machine can have.
    """
    found = SIZE.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"--memory {text}: not a size; 128M, 128MiB and 134217728 are the same")
    size = int(found.group(1)) * UNITS[found.group(2).upper()]
    if not MIN_MEMORY <= size <= MAX_MEMORY or size % 4096:
        raise ConfigError(f"--memory {text}: must be whole pages, from 2M to 3G")
    return size


def parse_options(options: tuple[str, ...]) -> dict[str, str]:
    """``-o KEY=VALUE`` as a dictionary; ``-o KEY`` means true."""
    values = {}
    for option in options:
        key, separator, value = option.partition("=")
        if not key:
            raise ConfigError(f"-o {option}: KEY=VALUE is wanted")
        values[key] = value if separator else "true"
    return values


@contextlib.contextmanager
def _console(request: Request) -> Iterator[tuple[Console, Progress | None, Callable[[], bool]]]:
    """The console as --console says; the progress line, if there may be one; whether stdout was closed meanwhile."""
    until = expression("--until-output", request.until_output)
    with contextlib.ExitStack() as stack:
        broken = False
        progress: Progress | None = None
        if request.console == "stdio":
            descriptor, source = 1, 0
        elif request.console == "none":
            descriptor, source = -1, None
        else:
            try:
                file = stack.enter_context(open(request.console, "wb", buffering=0))
            except OSError as error:
                raise ConfigError(f"--console {request.console}: {error.strerror}") from None
            descriptor, source = file.fileno(), None

        def output(data: bytes) -> None:
            nonlocal broken
            if progress is not None:
                if shared:
                    progress.guest_output(data)
                else:
                    progress.clear()
            while data and descriptor >= 0 and not broken:
                try:
                    data = data[os.write(descriptor, data):]
                except BlockingIOError:
                    continue
                except BrokenPipeError:
                    broken = True
                    console.on_closed()
                except OSError as error:
                    raise ConfigError(f"--console {request.console}: {error.strerror}") from None

        console = Console(output, source, until)
        shared = descriptor >= 0 and same_terminal(descriptor, 2)
        if os.isatty(2) and not request.quiet and not (console.terminal and same_terminal(0, 2)):
            progress = Progress(sys.stderr)
        if console.terminal:
            stack.enter_context(RawTerminal(0))
        yield console, progress, lambda: broken
