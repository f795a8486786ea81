"""What each backend's run cost, as rows of one table: a figure, then a value for each backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from paravirt.compare.runs import Result
from paravirt.record import Counts, Record

# Ops that write a page-table entry; a table of the guest may be written through any of them.
PAGE_TABLE_WRITES = ("set_pte", "set_pte_at", "set_pte_present", "set_pte_atomic", "set_pmd", "set_pud", "pte_clear",
                     "pmd_clear")


class Row(BaseModel):
    """One figure of several backends; None where a run has none. `unit` is empty for plain counts."""

    model_config = ConfigDict(frozen=True)

    name: str
    values: Mapping[str, int | float | None]
    unit: str = ""


FIGURES: tuple[tuple[str, Callable[[Record], int]], ...] = (
    ("instructions", lambda record: record.instructions),
    ("virtual ns", lambda record: record.virtual_ns),
    ("traps", lambda record: record.counts.traps),
    ("exceptions and INT n", lambda record: sum(record.counts.exceptions.values())),
    ("interrupts", lambda record: record.counts.interrupts),
    ("port I/O", lambda record: record.counts.port_io),
    ("patched call sites", lambda record: record.counts.patched_sites),
)


def cost_rows(plain: Sequence[Result], counted: Sequence[Result]) -> list[Row]:
    """The table of whole runs: what every backend has, then what each counts by itself, then ops."""
    records = {str(result.job.spec): result.record for result in plain if result.record is not None}
    rows = [Row(name=name, values={spec: figure(record) for spec, record in records.items()})
            for name, figure in FIGURES]
    rows += _own(records)
    ops = {str(result.job.spec): result.record.counts for result in counted if result.record is not None}
    if ops:
        rows += _modes({str(result.job.spec): result.record for result in counted if result.record is not None})
        rows.append(Row(name="ops called", values={spec: sum(counts.ops.values()) for spec, counts in ops.items()}))
        rows.append(Row(name="page-table writes", values={spec: page_table_writes(c) for spec, c in ops.items()}))
    return rows


def _modes(records: Mapping[str, Record]) -> list[Row]:
    user = {spec: record.counts.user_instructions for spec, record in records.items()}
    kernel = {spec: None if number is None else records[spec].instructions - number for spec, number in user.items()}
    return [Row(name="instructions, user", values=user), Row(name="instructions, kernel", values=kernel)]


def _own(records: Mapping[str, Record]) -> list[Row]:
    names = sorted({name for record in records.values() for name in record.counts.backend}, key=_by_number)
    return [Row(name=name, values={spec: record.counts.backend.get(name) for spec, record in records.items()})
            for name in names]


def _by_number(name: str) -> tuple[str, int]:
    """Sorts what is counted by a number, batches by their size for instance, by that number."""
    stem, _, last = name.rpartition(".")
    return (stem, int(last)) if last.isdecimal() else (name, -1)


def op_rows(counted: Sequence[Result]) -> list[Row]:
    """How often each op was called."""
    records = {str(result.job.spec): result.record for result in counted if result.record is not None}
    names = sorted({name for record in records.values() for name in record.counts.ops})
    return [Row(name=name, values={spec: record.counts.ops.get(name, 0) for spec, record in records.items()})
            for name in names]


def page_table_writes(counts: Counts) -> int:
    """Calls of ops that write page tables."""
    return sum(counts.ops.get(name, 0) for name in PAGE_TABLE_WRITES)
