"""Whether runs of one kernel on several backends agree, and where they do not.

They agree if they end in the same way, leave the same end state (where the kernel has one) and print the same
console but for what `rules` names. The first backend is what the others are held against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from paravirt.compare.rules import normalise
from paravirt.compare.runs import Result
from paravirt.record import Record

NAMED_OPS = 12
Implementations = Mapping[str, str]  # op -> what its slot holds


class Difference(BaseModel):
    """One way in which a backend's run differs from the first backend's."""

    model_config = ConfigDict(frozen=True)

    backend: str
    what: str = Field(description="outcome, end state, console")
    expected: str = Field(description="of the first backend")
    got: str
    line: int | None = Field(None, description="of a console: number of the first line that differs, from 1")
    ops: tuple[str, ...] = Field((), description="ops that are implemented differently or called more or less often")


def differences(plain: Sequence[Result], counted: Sequence[Result], tables: Mapping[str, Implementations], *,
                paravirt: bool) -> list[Difference]:
    """What is different in the runs that ended well.

    :param plain: one a backend, the first is the reference. :param counted: the same with all ops counted.
    :param tables: by backend, how each op is implemented.
    """
    ended = [result for result in plain if not result.problem]
    if len(ended) < 2:
        return []
    first, *others = ended
    calls = {str(result.job.spec): result.record.counts.ops for result in counted if result.record is not None}
    found = []
    for other in others:
        a, b = str(first.job.spec), str(other.job.spec)
        ops = (*_other_code(tables.get(a, {}), tables.get(b, {})), *_other_calls(calls.get(a, {}), calls.get(b, {})))
        found += [each.model_copy(update={"backend": b, "ops": ops})
                  for each in _compare(first, other, paravirt=paravirt)]
    return found


def _compare(first: Result, other: Result, *, paravirt: bool) -> list[Difference]:
    assert first.record is not None and other.record is not None
    found = []
    a, b = first.record, other.record
    if (a.outcome.kind, a.exit_code) != (b.outcome.kind, b.exit_code):
        found.append(Difference(backend="", what="outcome", expected=f"{a.outcome.kind}, status {a.exit_code}",
                                got=f"{b.outcome.kind}, status {b.exit_code}"))
    if (place := _end_states(a, b)) is not None:
        where, expected, got = place
        found.append(Difference(backend="", what=f"end state{where}", expected=expected, got=got))
    expected_lines, got_lines = (normalise(result.console, paravirt=paravirt) for result in (first, other))
    if expected_lines != got_lines:
        number = next((i for i, pair in enumerate(zip(expected_lines, got_lines, strict=False)) if pair[0] != pair[1]),
                      min(len(expected_lines), len(got_lines)))
        found.append(Difference(backend="", what="console", line=number + 1, expected=_line(expected_lines, number),
                                got=_line(got_lines, number)))
    return found


def _end_states(a: Record, b: Record) -> tuple[str, str, str] | None:
    if a.end_state is None or b.end_state is None:
        said = ["none" if state is None else "there is one" for state in (a.end_state, b.end_state)]
        return None if said[0] == said[1] else ("", said[0], said[1])
    return first_difference(a.end_state, b.end_state)


def _line(lines: Sequence[str], number: int) -> str:
    return lines[number] if number < len(lines) else "(the end)"


def first_difference(a: Any, b: Any, where: str = "") -> tuple[str, str, str] | None:
    """The first place where two JSON values differ, with both values there; digests are left to what they are of."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}, key=lambda key: (key == "digest", key)):
            if (found := first_difference(a.get(key), b.get(key), f"{where} {key}")) is not None:
                return found
        return None
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            if (found := first_difference(left, right, f"{where} {number}")) is not None:
                return found
        return None
    return None if a == b else (where, str(a), str(b))


def _other_code(first: Implementations, other: Implementations) -> tuple[str, ...]:
    """Ops with another implementation; none if it is a whole table of its own."""
    names = [name for name in first if first[name] != other.get(name, "")]
    return tuple(f"{name}: {other.get(name, 'none')}" for name in names) if len(names) <= NAMED_OPS else ()


def _other_calls(first: Mapping[str, int], other: Mapping[str, int]) -> tuple[str, ...]:
    gaps = {name: other.get(name, 0) - first.get(name, 0) for name in {**first, **other}}
    ranked = sorted((name for name in gaps if gaps[name]), key=lambda name: (-abs(gaps[name]), name))
    return tuple(f"{name}: {first.get(name, 0)} -> {other.get(name, 0)} calls" for name in ranked[:NAMED_OPS])
