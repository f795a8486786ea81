"""``paravirt compare``: which backends, the runs with a progress table, the verdict, the tables, the files."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from paravirt.backend import Answer
from paravirt.boot_sequence import REFERENCE_KERNEL
from paravirt.cli_boot import check_path
from paravirt.compare import html, lmbench
from paravirt.compare.costs import Row
from paravirt.compare.result import Comparison, comparison
from paravirt.compare.runs import Job, Result, Runner, Spec, jobs
from paravirt.config import config_path, load_config
from paravirt.errors import ConfigError, ParavirtError, PluginError, close_match, printable
from paravirt.guest import KernelInfo
from paravirt.image import load_image
from paravirt.listing import WIDE, bound_slots
from paravirt.plugins import load_plugins

SUITES = ("lmbench",)
INTERRUPTED = 130


class Request(NamedTuple):
    """The command line as typed. `boot` are options that every boot gets."""

    kernel: Path | None
    backends: str
    suite: str | None
    count_ops: bool
    boot: tuple[str, ...]
    json_file: Path | None
    report: Path | None
    plugins: Path | None
    quiet: bool


def compare_command(request: Request) -> int:
    """Compare as asked. Returns the exit status: 0 agree, 1 differ, 70 a run failed, 130 interrupted.

    :raises ParavirtError: the user's mistake.
    """
    if request.suite is not None and request.suite not in SUITES:
        raise ConfigError(f"--suite: no suite {request.suite!r}{close_match(request.suite, SUITES)}")
    for option, path in (("--json", request.json_file), ("--report", request.report)):
        if path is not None:
            check_path(option, path)
    info = KernelInfo.of(load_image(request.kernel or REFERENCE_KERNEL))
    if request.suite is not None and request.kernel is not None:
        raise ConfigError("--suite lmbench is a program of the reference kernel; leave KERNEL out")
    specs = _specs(request, info)
    paravirt = info.note is not None
    runner = Runner(_common(request))
    todo = jobs(specs, counted=paravirt or request.count_ops,
                suite=lmbench.OPTIONS if request.suite is not None else None)
    complete = True
    try:
        with _progress(todo, runner, enabled=not request.quiet and os.isatty(2)):
            runner.run(todo)
    except KeyboardInterrupt:
        complete = False
    tables = {str(spec): _implementations(request, spec, info) for spec in specs} if paravirt else {}
    found = comparison(str(info.image.path), [str(spec) for spec in specs], runner.results, tables,
                       paravirt=paravirt, complete=complete)
    for path, text in ((request.json_file, found.model_dump_json(by_alias=True, indent=1) + "\n"),
                       (request.report, html.page(found))):
        if path is not None:
            _write(path, text)
    print_comparison(found)
    return found.exit_code if complete else INTERRUPTED


def _specs(request: Request, info: KernelInfo) -> list[Spec]:
    """The backends asked for, or all that can run the kernel."""
    plugins = load_plugins(load_config(config_path(request.plugins)))
    if request.backends:
        specs = [Spec.parse(text) for text in request.backends.split(",")]
        for spec in specs:
            if spec.name not in plugins.backends:
                raise PluginError(f"no backend {spec.name!r}{close_match(spec.name, plugins.backends)}")
        if len(set(specs)) != len(specs):
            raise ConfigError(f"--backends {request.backends}: a backend is named twice")
        return specs
    found = [Spec(name) for name, backend in plugins.backends.items()
             if plugins.probe(backend, info).answer is not Answer.NO]
    if not found:
        raise PluginError(f"{info.image.path}: no backend accepts this kernel")
    return found


def _implementations(request: Request, spec: Spec, info: KernelInfo) -> dict[str, str]:
    """What each op's slot holds on a backend; nothing if its table cannot be had."""
    try:
        slots = bound_slots(load_plugins(load_config(config_path(request.plugins))), spec.name, info)
    except ParavirtError:
        return {}
    return {name: f"{slot.kind} {slot.where}".rstrip() for name, slot in slots.items()}


def _common(request: Request) -> list[str]:
    words = [str(request.kernel)] if request.kernel is not None else []
    words += request.boot
    if request.plugins is not None:
        words += ["--plugins", str(request.plugins)]
    return words


@contextmanager
def _progress(todo: Sequence[Job], runner: Runner, *, enabled: bool) -> Iterator[None]:
    """A table of the runs on stderr, while they run."""
    if not enabled:
        yield
        return
    from rich.live import Live

    states = {str(job): "waiting" for job in todo}

    def table() -> Table:
        rows = Table("run", "state", box=None)
        for name, state in states.items():
            rows.add_row(name, state)
        return rows

    def ended(result: Result) -> None:
        record = result.record
        said = result.problem or (f"{record.outcome.kind}, {record.host.wall_seconds:.1f} s" if record else "")
        states[str(result.job)] = printable(said)
        live.update(table())

    def started(job: Job) -> None:
        states[str(job)] = "running"
        live.update(table())

    runner.on_start, runner.on_end = started, ended
    with Live(table(), console=Console(stderr=True, markup=False, highlight=False), transient=True) as live:
        yield


def _write(path: Path, text: str) -> None:
    """Whole or not at all. :raises ConfigError: it cannot be written."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None


def print_comparison(found: Comparison) -> None:
    """The verdict and the tables, on stdout."""
    console = Console(width=None if sys.stdout.isatty() else WIDE, markup=False, highlight=False, emoji=False)
    _print_table(console, "", found.costs)
    if found.lmbench:
        console.print()
        _print_table(console, "one operation", html.lmbench_rows(found))
    for run in found.runs:
        if run.problem:
            print(f"{run.name} ({run.kind}) failed: {printable(run.problem, 500)}", file=sys.stderr)
    for each in found.differences:
        where = f", line {each.line}" if each.line else ""
        print(f"{each.backend} differs from {found.backends[0]}: {each.what}{where}\n"
              f"  {found.backends[0]}: {printable(each.expected, 500)}\n  {each.backend}: {printable(each.got, 500)}")
        if each.ops:
            print(f"  ops: {', '.join(each.ops)}")
    if found.agree:
        print(f"{', '.join(found.backends)}: agree" if len(found.backends) > 1 else
              f"{found.backends[0]} alone: nothing to compare with")


def _print_table(console: Console, title: str, rows: Sequence[Row]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    table = Table(title, *names, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify, column.overflow = "right", "fold"
    for row in rows:
        values = [row.values.get(name) for name in names]
        table.add_row(printable(row.name), *("-" if value is None else f"{value:,}" if isinstance(value, int) else
                                             f"{value:,.2f}" for value in values))
    console.print(table)
