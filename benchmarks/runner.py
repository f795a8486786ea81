"""Runs one guest on one engine and measures the process: time, processor time, memory, and when a line appears.

Runs alternate between the engines, so that a busy host disturbs both alike. Medians are taken of what is left.

Ref: getrusage(2), wait4(2): ru_utime + ru_stime of the ended child alone; ru_maxrss in KiB.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MEMORY_MIB = 128
OURS, QEMU = "paravirt", "qemu"
QEMU_PROGRAM = "qemu-system-i386"
GUEST_PASSED = 0x10  # what the benchmark guest writes to port 0xf4
TIME_LIMIT = 300.0  # seconds; a run that takes longer is hung


class BenchmarkError(Exception):
    """A run that cannot count; the message says which and why."""


@dataclass(frozen=True)
class Boot:
    """What to start: a kernel, its command line, perhaps an initrd."""

    kernel: Path
    append: str
    initrd: Path | None = None


@dataclass(frozen=True)
class Sample:
    """One run of one process.

    :ivar wall: seconds from the command to its end; :ivar cpu: seconds of processor time, user and system.
    :ivar mark: seconds from the command to the awaited output, None without it.
    :ivar rss: peak resident memory, bytes.
    """

    wall: float
    cpu: float
    mark: float | None
    rss: int
    status: int
    output: str


@dataclass(frozen=True)
class Engine:
    """One of the two programs that are compared. :ivar passed: exit status of a benchmark guest that passed."""

    name: str
    command: Callable[[Boot], list[str]]
    passed: int


def our_engine(program: Path, extra: Sequence[str] = ()) -> Engine:
    """The engine of this project. :param extra: more options of ``paravirt boot``."""

    def command(boot: Boot) -> list[str]:
        initrd = ["--initrd", str(boot.initrd)] if boot.initrd else []
        return [str(program), "boot", str(boot.kernel), "--backend", "native", "-q", "--memory", f"{MEMORY_MIB}M",
                "--append", boot.append, *initrd, *extra]

    return Engine(OURS, command, GUEST_PASSED)


def qemu_engine() -> Engine | None:
    """QEMU's translator on one thread, None where it is not installed. A machine without needless devices."""
    program = shutil.which(QEMU_PROGRAM)
    if program is None:
        return None

    def command(boot: Boot) -> list[str]:
        initrd = ["-initrd", str(boot.initrd)] if boot.initrd else []
        return [program, "-accel", "tcg,thread=single", "-m", str(MEMORY_MIB), "-nodefaults", "-display", "none",
                "-serial", "stdio", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=1",
                "-kernel", str(boot.kernel), "-append", boot.append, *initrd]

    return Engine(QEMU, command, GUEST_PASSED << 1 | 1)  # what isa-debug-exit makes of the value


def our_program() -> Path:
    """The ``paravirt`` command beside this interpreter."""
    return Path(sys.executable).parent / "paravirt"


def qemu_version() -> str | None:
    """QEMU's first line about itself, None without it."""
    program = shutil.which(QEMU_PROGRAM)
    if program is None:
        return None
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("\n")[0]


def run(command: Sequence[str], awaited: str | None = None) -> Sample:
    """Run `command` with empty input.

    :param awaited: a regular expression; `Sample.mark` tells when it was first matched.
    :raises BenchmarkError: when it does not end in time.
    """
    pattern = re.compile(awaited.encode()) if awaited else None
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output, mark = bytearray(), None
    with selectors.DefaultSelector() as selector, process.stdout as stream:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, start + TIME_LIMIT - time.perf_counter())):
                process.send_signal(signal.SIGKILL)
                process.wait()
                raise BenchmarkError(f"no end within {TIME_LIMIT:g} s: {' '.join(command)}")
            data = os.read(stream.fileno(), 65536)
            if not data:
                break
            output += data
            if pattern is not None and mark is None and pattern.search(output):
                mark = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    text = output.decode("utf-8", "replace").replace("\r", "")
    return Sample(wall, usage.ru_utime + usage.ru_stime, mark, usage.ru_maxrss << 10, process.returncode, text)


def checked(engine: Engine, boot: Boot) -> Sample:
    """A run of the benchmark guest that must pass. :raises BenchmarkError: when it does not."""
    sample = run(engine.command(boot))
    if sample.status != engine.passed or "sum " not in sample.output:
        raise BenchmarkError(f"{engine.name}: {boot.append}: status {sample.status}\n{sample.output[-2000:]}")
    return sample


def checksum(sample: Sample) -> str:
    """What the benchmark guest printed: the same on every engine."""
    found = re.search(r"sum ([0-9a-f]{8})", sample.output)
    return found[1] if found else ""


def alternate(engines: Sequence[Engine], times: int, measure: Callable[[Engine], Sample]) -> dict[str, list[Sample]]:
    """`times` runs on each engine in turn, the first engine changing each time."""
    samples: dict[str, list[Sample]] = {engine.name: [] for engine in engines}
    for number in range(times):
        for engine in engines if number % 2 == 0 else reversed(engines):
            samples[engine.name].append(measure(engine))
    return samples


def medians(samples: Mapping[str, Sequence[Sample]], of: Callable[[Sample], float]) -> dict[str, float]:
    """Each engine's median of what `of` takes from a sample."""
    return {name: statistics.median(of(sample) for sample in group) for name, group in samples.items()}
