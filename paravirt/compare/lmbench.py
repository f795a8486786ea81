"""What one operation of the kernel's services costs, from the counters before and behind many of them.

The reference kernel's /bench prints a line in two halves round each measurement; ``--mark`` reads the counters at
both. What the halves themselves cost is what is counted round doing nothing, and is subtracted.

Ref: guest/user/bench.c; L. McVoy, C. Staelin, "lmbench: Portable Tools for Performance Analysis", USENIX 1996.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from paravirt.compare.runs import Result
from paravirt.record import MarkRecord, Record

BEGIN = re.compile(r"bench: (?P<name>.*) (?P<operations>\d+) operations")
OPTIONS = ("--append", "noselftest init=/bench", "--mark", "bench: .* operations| took ", "--count-ops")
NOTHING, TRIP, PAIR, SWITCH = "nothing", "pipe latency", "pipe without a switch", "context switch"


class Operation(BaseModel):
    """One operation on one backend: totals of all of them, without what measuring costs.

    :ivar counts: instructions, virtual_ns, traps, exceptions, interrupts, port_io, ``op NAME`` and the backend's own.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    operations: int
    counts: Mapping[str, int] = Field(description="totals; zero where a key is missing")

    def each(self, key: str) -> float:
        """Of one operation."""
        return self.counts.get(key, 0) / self.operations


def operations(record: Record) -> list[Operation]:
    """The benchmark's operations in the order in which they ran; none if the record has no such marks."""
    measured = [(found, _gap(begin, end)) for begin, end in zip(record.marks[::2], record.marks[1::2], strict=False)
                if (found := BEGIN.search(begin.text)) is not None]
    totals = {found["name"]: (int(found["operations"]), counts) for found, counts in measured}
    nothing = totals.pop(NOTHING, (1, {}))[1]
    kept = {name: (number, _minus(counts, nothing)) for name, (number, counts) in totals.items()}
    if TRIP in kept and PAIR in kept and SWITCH in kept:
        # A round trip is two switches, and two pairs of calls.
        number, pairs = kept.pop(PAIR)
        kept[SWITCH] = (2 * number, _minus(kept[TRIP][1], {key: 2 * value for key, value in pairs.items()}))
    return [Operation(name=name, operations=number, counts=counts) for name, (number, counts) in kept.items()]


def suite(results: Sequence[Result]) -> dict[str, list[Operation]]:
    """Operations by backend."""
    return {str(result.job.spec): operations(result.record) for result in results
            if result.record is not None and not result.problem}


def _flat(mark: MarkRecord) -> dict[str, int]:
    counts = mark.counts
    return {
        "instructions": mark.instructions, "virtual_ns": mark.virtual_ns, "traps": counts.traps,
        "exceptions": sum(counts.exceptions.values()), "interrupts": counts.interrupts, "port_io": counts.port_io,
        **{f"op {name}": number for name, number in counts.ops.items()}, **counts.backend,
    }


def _gap(begin: MarkRecord, end: MarkRecord) -> dict[str, int]:
    return _minus(_flat(end), _flat(begin))


def _minus(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    gaps = {key: a.get(key, 0) - b.get(key, 0) for key in {**a, **b}}
    return {key: value for key, value in gaps.items() if value}
