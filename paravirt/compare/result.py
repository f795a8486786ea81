"""All that a comparison found, as one value; ``--json`` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field

from paravirt.compare.costs import Row, cost_rows, op_rows
from paravirt.compare.lmbench import Operation, suite
from paravirt.compare.runs import Result
from paravirt.compare.verdict import Difference, Implementations, differences
from paravirt.record import Record

SCHEMA = 1
AGREE, DIFFER, FAILED = 0, 1, 70


class RunOf(BaseModel):
    """One run of one backend."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="the backend, with its options")
    kind: str = Field(description="plain, counted or suite")
    problem: str = Field(description="why it cannot be compared; empty if it can")
    record: Record | None


class Comparison(BaseModel):
    """What `paravirt compare` found."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = Field(SCHEMA, serialization_alias="schema")
    kernel: str
    backends: tuple[str, ...] = Field(description="the first is what the others are held against")
    complete: bool = Field(description="false: interrupted, some runs are missing")
    differences: tuple[Difference, ...]
    costs: tuple[Row, ...]
    ops: tuple[Row, ...] = Field(description="calls by op, of the counted runs")
    lmbench: dict[str, list[Operation]] = Field(description="operations by backend, of the suite")
    runs: tuple[RunOf, ...]

    @property
    def agree(self) -> bool:
        return self.complete and not self.differences and not any(run.problem for run in self.runs)

    @property
    def exit_code(self) -> int:
        if any(run.problem for run in self.runs):
            return FAILED
        return DIFFER if self.differences else AGREE


def comparison(kernel: str, backends: Sequence[str], results: Sequence[Result],
               tables: Mapping[str, Implementations], *, paravirt: bool, complete: bool) -> Comparison:
    """Put what the runs left behind together, in the order of `backends`.

    :param tables: by backend, how each op is implemented.
    """
    order = {name: number for number, name in enumerate(backends)}
    ranked = sorted(results, key=lambda result: order[str(result.job.spec)])
    plain, counted, suites = ([result for result in ranked if result.job.kind == kind]
                              for kind in ("plain", "counted", "suite"))
    return Comparison(
        kernel=kernel, backends=tuple(backends), complete=complete,
        differences=tuple(differences(plain, counted, tables, paravirt=paravirt)),
        costs=tuple(cost_rows(plain, counted)),
        ops=tuple(op_rows(counted)), lmbench=suite(suites),
        runs=tuple(RunOf(name=str(each.job.spec), kind=each.job.kind, problem=each.problem, record=each.record)
                   for each in ranked))
