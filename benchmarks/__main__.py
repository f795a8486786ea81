"""``python -m benchmarks``: measure, print the table, keep the figures, fill the docs.

--quick takes less than two minutes and leaves the docs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import suite
from benchmarks.build import FLAGS, ROOT, WORK, build_guests
from benchmarks.plot import plot
from benchmarks.runner import MEMORY_MIB, QEMU_PROGRAM, BenchmarkError, Boot, our_engine, our_program, qemu_engine
from benchmarks.runner import qemu_version as find_qemu_version
from benchmarks.table import fill, markdown, plain
from paravirt.build.toolchain import BuildError

GUESTS = ROOT / "guests"
INITRD = GUESTS / "initrd.gz"
PAGE, PICTURE = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"
LINUX = {"686": GUESTS / "vmlinuz", "686-pae": GUESTS / "vmlinuz-pae"}
KERNELS = "PARAVIRT_BENCH_KERNELS"  # more kernels to boot: files, with colons between them
GROUPS = ("cpu", "trip", "boot", "memory", "start")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks against QEMU's TCG.")
    parser.add_argument("--quick", action="store_true", help="less than two minutes; the docs are left alone")
    parser.add_argument("--repeats", type=int, metavar="N", help="runs on each engine")
    parser.add_argument("--takes", type=int, default=3, metavar="N",
                        help="how often at most to measure again what the host's other load disturbed")
    parser.add_argument("--only", action="append", choices=GROUPS, metavar="GROUP", help=f"one of {', '.join(GROUPS)}")
    parser.add_argument("--kernel", action="append", type=Path, default=[], metavar="FILE",
                        help="one more kernel to boot, with guests/initrd.gz")
    parser.add_argument("--initrd", type=Path, default=INITRD, metavar="FILE", help="another initrd, with busybox")
    parser.add_argument("--program", type=Path, default=our_program(), metavar="FILE", help="the paravirt to measure")
    parser.add_argument("--extra", action="append", default=[], metavar="OPTION", help="one more option of our boots")
    parser.add_argument("--output", type=Path, default=WORK / "results.json", metavar="FILE", help="all figures")
    return parser.parse_args(arguments)


def make_plan(quick: bool, repeats: int | None, groups: Iterable[str], takes: int) -> suite.Plan:
    """Quick: each compiler flag set and each seed once. Full: all pairs."""
    flags, seeds = list(FLAGS), list(suite.SEEDS)
    pairs = zip(flags, seeds, strict=True) if quick else [(flag, seed) for flag in flags for seed in seeds]
    return suite.Plan(repeats=repeats or (2 if quick else 5), boots=1 if quick else min(3, repeats or 3),
                      divide=4 if quick else 1, takes=min(2, takes) if quick else takes, variants=tuple(pairs),
                      groups=frozenset(groups))


def linux_boots(options: argparse.Namespace) -> dict[str, Boot]:
    """The real kernels that are there; says which are not. Quick: one of ours, or those that were named."""
    further = [Path(name) for name in os.environ.get(KERNELS, "").split(":") if name]
    named = {path.name: path for path in [*options.kernel, *further]}
    wanted = named if options.quick and named else {**LINUX, **named}
    if options.quick and not named:
        del wanted["686-pae"]
    found = {}
    for name, path in wanted.items():
        missing = [str(file) for file in (path, options.initrd) if not file.exists()]
        if missing:
            print(f"no boot of {name}: no {' and no '.join(missing)} (make guests)", file=sys.stderr)
        else:
            found[name] = Boot(path, f"{suite.APPEND} {suite.USER_SPACE}", options.initrd)
    return found


def measure(options: argparse.Namespace, plan: suite.Plan) -> list[suite.Figure]:
    """All figures; each is told on stderr when it is known."""
    guests = build_guests()
    first = next(iter(guests.values()))
    qemu = qemu_engine()
    engines = [our_engine(options.program, options.extra), *([qemu] if qemu else [])]
    figures: list[suite.Figure] = []
    sources: dict[str, Callable[[], Iterator[suite.Figure]]] = {
        "start": lambda: suite.start_up(engines, first, options.program, plan),
        "memory": lambda: suite.footprint(engines, first, plan),
        "trip": lambda: suite.round_trips(engines, first, plan),
        "boot": lambda: suite.boots(engines, linux_boots(options), plan),
        "cpu": lambda: suite.cpu_kernels(engines, guests, plan),
    }
    for group, source in sources.items():
        if group not in plan.groups:
            continue
        for figure in source():
            told = f"{figure.ratio:.2f}" if figure.ratio else "measured"
            print(f"{group}: {figure.name}: {told}", file=sys.stderr, flush=True)
            figures.append(figure)
    return figures


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    started = time.monotonic()
    version = find_qemu_version()
    if version is None:
        print(f"{QEMU_PROGRAM} is not installed, so there is nothing to compare with: the figures below are ours "
              "alone.", file=sys.stderr)
    plan = make_plan(options.quick, options.repeats, options.only or GROUPS, options.takes)
    try:
        figures = measure(options, plan)
    except (BenchmarkError, BuildError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    print(plain(figures))
    about = [
        f"Compared with: {version or 'nothing, for QEMU was not installed'} (`-accel tcg,thread=single`).",
        f"Host: {cpu_model()}, {os.cpu_count()} processors; Python {platform.python_version()}. Guest RAM: "
        f"{MEMORY_MIB} MiB. Runs on each engine: {plan.repeats}, of boots: {plan.boots}. "
        f"Taken in {time.monotonic() - started:.0f} s; {os.getloadavg()[2]:.1f} processes were ready to run on the "
        "host: where that is more than its processors, the ratios of processor time say more.",
    ]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"about": about, "figures": [asdict(one) for one in figures]}, indent=1))
    if not options.quick and not options.only and version is not None:
        fill(PAGE, markdown(figures, about))
        PICTURE.write_text(plot(figures))
    return 0


def cpu_model() -> str:
    """The host processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
