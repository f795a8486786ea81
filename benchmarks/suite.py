"""What is measured: CPU kernels, round trips, boots of real kernels, memory and start-up.

A CPU kernel's or a round trip's time is that of a long run less that of a run a quarter as long, made right before
it: process start, loading and translation are in both and fall out.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from benchmarks.runner import (
    MEMORY_MIB,
    OURS,
    QEMU,
    BenchmarkError,
    Boot,
    Engine,
    Sample,
    alternate,
    checked,
    checksum,
    medians,
    run,
)

SEEDS = (1, 20071009)
LONG = 4  # a long run in short ones
CALM = 0.8, 1.4  # wall over processor time: these guests never wait, so what lies outside is the host's other load
# Rounds of a short run, for about 0.15 s of QEMU.
CPU_KERNELS: Mapping[str, int] = {
    "alu": 300, "copy": 1500, "repcopy": 1500, "call": 1300, "sort": 50, "sieve": 150, "hash": 120, "interpreter": 130,
}


class Trip(NamedTuple):
    """A round trip: what one round is, and rounds of a short run on each engine."""

    what: str
    ours: int
    qemu: int


TRIPS: Mapping[str, Trip] = {
    "exception": Trip("UD2 in ring 3, handler, IRET", 200_000, 200_000),
    "int80": Trip("INT 80h in ring 3, handler, IRET", 200_000, 200_000),
    "sysenter": Trip("SYSENTER, handler, SYSEXIT", 400_000, 1_000_000),
    "pagefault": Trip("page fault in ring 3, PTE written, INVLPG, IRET", 150_000, 150_000),
    "cr3": Trip("CR3 written, 16 pages read", 60_000, 60_000),
    "out": Trip("OUT to port 80h", 200_000, 3_000_000),
    "in": Trip("IN from port 3FDh, the serial port's line status", 200_000, 3_000_000),
    "rdtsc": Trip("RDTSC", 4_000_000, 4_000_000),
}

USER_MARK = r"\nuser-42"  # the shell has computed it, so the echoed command line does not match
USER_SPACE = 'rdinit=/bin/busybox -- sh -c "echo user-$((6*7)); busybox reboot -f"'
APPEND = "console=ttyS0,115200 nokaslr panic=-1"


@dataclass(frozen=True)
class Figure:
    """One thing measured on the engines, in seconds (or bytes) by engine name; smaller is better.

    :ivar wall: by the clock on the wall; :ivar cpu: processor time, None for what has none.
    :ivar variants: ratios of the wall and of the processor time by build and seed, where there are several.
        Then each of the figure's ratios is the worst of them, and its times are those of the worst on the wall.
    """

    group: str
    name: str
    what: str
    wall: Mapping[str, float]
    cpu: Mapping[str, float] | None = None
    variants: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How fast we are, QEMU being 1; None without QEMU."""
        if self.variants:
            return min(wall for wall, _ in self.variants.values())
        return self.wall[QEMU] / self.wall[OURS] if QEMU in self.wall else None

    @property
    def cpu_ratio(self) -> float | None:
        """The same in processor time."""
        if self.variants:
            return min(cpu for _, cpu in self.variants.values())
        return self.cpu[QEMU] / self.cpu[OURS] if self.cpu and QEMU in self.cpu else None


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    :ivar repeats: runs on each engine; :ivar boots: boots on each; :ivar divide: by which short runs are shortened.
    :ivar takes: how often at most a measurement is made again that the host disturbed.
    :ivar variants: (flags, seed) pairs.
    """

    repeats: int
    boots: int
    divide: int
    takes: int
    variants: tuple[tuple[str, int], ...]
    groups: frozenset[str]


def geometric_mean(values: Sequence[float]) -> float:
    return statistics.geometric_mean(values)


def per_round(engines: Sequence[Engine], guest: Path, name: str, seed: int, rounds: Mapping[str, int],
              plan: Plan) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds a round by engine: on the wall, and of the processor. Taken again when the host disturbed it.

    :param rounds: of a short run, by engine.
    :raises BenchmarkError: a run failed, engines that did the same work disagree on the result, or the host is too
        busy for a long run to take longer than a short one.
    """
    checksums: set[str] = set()

    def pair(engine: Engine) -> Sample:
        """A long run less the short one right before it: the host's speed changes from minute to minute."""
        short, long = (checked(engine, Boot(guest, f"bench={name},{rounds[engine.name] * length},{seed}"))
                       for length in (1, LONG))
        checksums.add(checksum(long))
        return replace(long, wall=long.wall - short.wall, cpu=long.cpu - short.cpu)

    for _ in range(plan.takes):
        samples = alternate(engines, plan.repeats, pair)
        if len(set(rounds.values())) == 1 and len(checksums) != 1:
            raise BenchmarkError(f"{name}, seed {seed}: the engines' results differ: {', '.join(sorted(checksums))}")
        wall, cpu = ({engine: median / (rounds[engine] * (LONG - 1)) for engine, median in medians(samples, of).items()}
                     for of in (wall_time, cpu_time))
        if all(0 < CALM[0] * cpu[engine] < wall[engine] < CALM[1] * cpu[engine] for engine in wall):
            break
    if min(*wall.values(), *cpu.values()) <= 0:
        raise BenchmarkError(f"{name}, seed {seed}: the host is too busy to measure anything")
    return wall, cpu


def wall_time(sample: Sample) -> float:
    return sample.wall


def cpu_time(sample: Sample) -> float:
    return sample.cpu


def cpu_kernels(engines: Sequence[Engine], guests: Mapping[str, Path], plan: Plan) -> Iterator[Figure]:
    """Each CPU kernel in each variant; the worst variant counts."""
    for name, full in CPU_KERNELS.items():
        rounds = {engine.name: max(1, full // plan.divide) for engine in engines}
        found = []
        for flags, seed in plan.variants:
            wall, cpu = per_round(engines, guests[flags], name, seed, rounds, plan)
            found.append((f"{flags}/{seed}", Figure("cpu", name, flags, wall, cpu)))
        variants = {key: (one.ratio or 0.0, one.cpu_ratio or 0.0) for key, one in found if one.ratio is not None}
        key, worst = min(found, key=lambda pair: (pair[1].ratio or 0.0, -pair[1].wall[OURS]))
        yield Figure("cpu", name, key, worst.wall, worst.cpu, variants)


def round_trips(engines: Sequence[Engine], guest: Path, plan: Plan) -> Iterator[Figure]:
    """What it costs to leave straight code."""
    for name, trip in TRIPS.items():
        rounds = {OURS: trip.ours // plan.divide, QEMU: trip.qemu // plan.divide}
        used = {engine.name: rounds[engine.name] for engine in engines}
        wall, cpu = per_round(engines, guest, name, SEEDS[0], used, plan)
        yield Figure("trip", name, trip.what, wall, cpu)


def boots(engines: Sequence[Engine], linux: Mapping[str, Boot], plan: Plan) -> Iterator[Figure]:
    """Real kernels, from the command to the first line of user space and to the end of the process. One that does not
    get there is told and left out."""
    for name, boot in linux.items():
        def measure(engine: Engine, boot: Boot = boot) -> Sample:
            sample = run(engine.command(boot), USER_MARK)
            if sample.status or sample.mark is None:
                raise BenchmarkError(f"{engine.name}: {boot.kernel}: status {sample.status}, "
                                     f"{'no ' if sample.mark is None else ''}user space\n{sample.output[-2000:]}")
            return sample

        try:
            samples = alternate(engines, plan.boots, measure)
        except BenchmarkError as problem:  # the other kernels have nothing to do with it
            print(f"benchmarks: {problem}", file=sys.stderr)
            continue
        yield Figure("boot", f"{name} to user space", str(boot.kernel.name), medians(samples, lambda s: s.mark or 0.0))
        yield Figure("boot", f"{name} to exit", str(boot.kernel.name), medians(samples, wall_time),
                     medians(samples, cpu_time))
        yield Figure("memory", f"{name}, peak", "resident, guest RAM included", medians(samples, lambda s: s.rss))


def footprint(engines: Sequence[Engine], guest: Path, plan: Plan) -> Iterator[Figure]:
    """Peak resident memory of a guest that writes to every page of its RAM, less that RAM."""
    boot = Boot(guest, f"bench=touch,1,{SEEDS[0]}")
    samples = alternate(engines, plan.boots, lambda engine: checked(engine, boot))
    yield Figure("memory", "beside guest RAM", f"peak resident less {MEMORY_MIB} MiB, all of which was written",
                 medians(samples, lambda s: s.rss - (MEMORY_MIB << 20)))


def start_up(engines: Sequence[Engine], guest: Path, program: Path, plan: Plan) -> Iterator[Figure]:
    """A guest that ends at once, from command to exit; and our command's help."""
    boot = Boot(guest, f"bench=none,1,{SEEDS[0]}")
    samples = alternate(engines, 2 * plan.repeats, lambda engine: checked(engine, boot))
    yield Figure("start", "empty guest", "from command to exit", medians(samples, wall_time),
                 medians(samples, cpu_time))
    helps = {OURS: [run([str(program), "--help"]) for _ in range(2 * plan.repeats)]}
    yield Figure("start", "paravirt --help", "from command to exit", medians(helps, wall_time),
                 medians(helps, cpu_time))
