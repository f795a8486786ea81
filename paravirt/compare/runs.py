"""Boots a kernel on each backend, each time in a process of its own, as many at a time as there are cores.

One that fails, hangs or takes its process with it is a result like the others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from paravirt.errors import ConfigError, printable
from paravirt.record import Record

ENDED = ("poweroff", "reboot", "halt", "debug-exit", "matched", "stopped")  # as the guest or the user wanted it
SAMPLE_MS = 10


@dataclass(frozen=True)
class Spec:
    """A backend with options of its own: ``NAME`` or ``NAME:KEY=VALUE:KEY=VALUE``."""

    name: str
    options: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """:raises ConfigError: an option without a value."""
        name, *options = text.split(":")
        for option in options:
            if "=" not in option:
                raise ConfigError(f"--backends {text}: NAME:KEY=VALUE is wanted")
        return cls(name, tuple(options))

    def __str__(self) -> str:
        return ":".join((self.name, *self.options))


@dataclass(frozen=True)
class Job:
    """One boot: of what kind, on which backend, with which further options of ``paravirt boot``."""

    kind: str
    spec: Spec
    options: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.spec}, {self.kind}"


@dataclass
class Result:
    """:ivar record: None if there is none. :ivar problem: why the run cannot be compared, empty if it can."""

    job: Job
    record: Record | None = None
    console: bytes = b""
    problem: str = ""


@dataclass
class Runner:
    """
    :ivar common: options of ``paravirt boot`` that every run gets, the kernel among them.
    :ivar on_start, on_end: told of each job, from other threads.
    """

    common: Sequence[str]
    on_start: Callable[[Job], None] = lambda job: None
    on_end: Callable[[Result], None] = lambda result: None
    results: list[Result] = field(default_factory=list)
    _stopped: bool = False

    def run(self, jobs: Iterable[Job]) -> None:
        """Run all jobs; `results` grows in the order in which they end.

        Ctrl-C reaches the children too: they write their records, which are collected before it is raised here.
        """
        with tempfile.TemporaryDirectory(prefix="paravirt-compare-") as folder, \
                ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            futures = [pool.submit(self._boot, job, Path(folder) / str(number)) for number, job in enumerate(jobs)]
            try:
                for future in futures:
                    future.result()
            except KeyboardInterrupt:
                self._stopped = True
                for future in futures:
                    future.cancel()
                pool.shutdown(wait=True)
                raise

    def _boot(self, job: Job, base: Path) -> None:
        if self._stopped:
            return
        self.on_start(job)
        record, console = base.with_suffix(".json"), base.with_suffix(".console")
        options = [word for option in job.spec.options for word in ("-o", option)]
        command = [sys.executable, "-m", "paravirt.cli", "boot", *self.common, "--backend", job.spec.name, *options,
                   *job.options, "--quiet", "--json", str(record), "--console", str(console)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        result = Result(job, _read(record), console.read_bytes() if console.exists() else b"")
        said = printable(done.stderr.strip().split(b"\n")[-1].removeprefix(b"paravirt: "), 500)
        if result.record is None:
            result.problem = said or f"the process ended with status {done.returncode}"
        elif result.record.outcome.kind not in ENDED:
            result.problem = said
        self.results.append(result)
        self.on_end(result)


def _read(path: Path) -> Record | None:
    try:
        return Record.from_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def jobs(specs: Iterable[Spec], *, counted: bool, suite: Sequence[str] | None) -> list[Job]:
    """What is run on each backend: plain, for the costs; with all ops counted; the suite.

    :param suite: further options of the suite's run.
    """
    found = []
    for spec in specs:
        found.append(Job("plain", spec, ("--sample", str(SAMPLE_MS))))
        if counted:
            found.append(Job("counted", spec, ("--count-ops", "--count-modes", "--sample", str(SAMPLE_MS))))
        if suite is not None:
            found.append(Job("suite", spec, tuple(suite)))
    return found
