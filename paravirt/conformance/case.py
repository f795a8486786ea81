"""Cases, their results, and how one is run: a boot of its own, so that no case sees what another left."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

from paravirt.backend import Backend
from paravirt.binding import NULL_SLOT
from paravirt.conformance.bench import Bench, Mismatch, NotApplicable
from paravirt.errors import GuestFault, ParavirtError
from paravirt.hookspecs import MODULES, op_infos
from paravirt.machine.outcome import End, GuestExit, Outcome
from paravirt.options import BootOptions
from paravirt.testing.boots import InPlace, Stopped, boot_to_rest_init

MARK = "__conformance__"
MEMORY = 16 << 20
MAX_INSTRUCTIONS = 20_000_000  # boot and case take an eighth of that
CaseFunction = TypeVar("CaseFunction", bound=Callable[..., Iterator[None] | None])


class Verdict(enum.Enum):
    PASS = "pass"
    FAIL = "fail"
    MISSING = "missing"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Result:
    """One case of one op. `detail` says what was expected and got, or why the case does not apply."""

    op: str
    case: str
    verdict: Verdict
    detail: str = ""


@dataclass(frozen=True)
class Case:
    """:ivar ends: kinds of outcome with which the run must end inside the case; empty: it must come back.
    :ivar after: looks at the machine when the run has ended so.
    :ivar in_place: the case runs where start_kernel calls the op, and makes that call. Where it yields, the boot
        goes on, and the rest runs at rest_init."""

    op: str
    name: str
    body: Callable[[Bench], Iterator[None] | None]
    ends: tuple[str, ...] = ()
    after: Callable[[Bench], None] | None = None
    in_place: bool = False


def case(*ops: str, ends: tuple[str, ...] = (), after: Callable[[Bench], None] | None = None,
         in_place: bool = False) -> Callable[[CaseFunction], CaseFunction]:
    """Mark a function as a case of each of `ops`; which one it is about is ``bench.name``."""

    def mark(function: CaseFunction) -> CaseFunction:
        setattr(function, MARK, {"body": function, "ends": ends, "after": after, "in_place": in_place})
        setattr(function, f"{MARK}ops", ops)
        return function

    return mark


def collect(modules: Iterable[ModuleType]) -> list[Case]:
    """All cases, in the order of the op tables."""
    found: dict[str, list[Case]] = {name: [] for name in op_infos()}
    for module in modules:
        for name, function in vars(module).items():
            if hasattr(function, MARK):
                for op in getattr(function, f"{MARK}ops"):
                    found[op].append(Case(op, name, **getattr(function, MARK)))
    return [each for cases in found.values() for each in cases]


def groups() -> Mapping[str, str]:
    """The group of each op: the module of its specification, ``apic`` or ``smp`` for example."""
    return {name: module.__name__.rpartition(".")[2] for module in MODULES for name in vars(module)
            if name in op_infos()}


def absent(backend: Backend, op: str) -> str:
    """Why the backend's platform has no use for an op, from its `absent` mapping of ops and groups; "" if it has."""
    return backend.absent.get(op) or backend.absent.get(groups()[op], "")


def run_case(each: Case, backend: str, plugins: tuple[object, ...] = (),
             prepare: Callable[[Bench], None] = lambda bench: None) -> Result:
    """Boot the reference kernel on `backend` and run a case.

    :param prepare: called when the kernel stands, before the case.
    """
    inside: list[Bench] = []
    rest: list[Iterator[None]] = []

    def begin(stopped: Stopped, arguments: tuple[int, ...] = ()) -> int:
        reason = absent(stopped.backend, each.op)
        if reason:
            raise NotApplicable(reason)
        slot = stopped.ops.slots[each.op]
        if slot.kind == NULL_SLOT:
            raise NotApplicable(f"NULL: {slot.info.null_means}")
        bench = Bench(stopped, each.op, arguments)
        prepare(bench)
        inside.append(bench)
        left = each.body(bench)
        if left is not None:
            rest.append(left)
            next(left, None)
        if each.ends:
            raise Mismatch("the end of the run", " or ".join(each.ends), "the op came back")
        return bench.result

    def inspect(stopped: Stopped) -> None:
        if not each.in_place:
            begin(stopped)
        elif not inside:
            raise Mismatch("start_kernel", f"a call of {each.op}", "none")
        for left in rest:
            next(left, None)

    def after(stopped: Stopped, outcome: Outcome) -> None:
        if not inside:
            raise Mismatch("the boot", "the kernel at rest_init", _how(outcome))
        if outcome.end is End.STOPPED and not each.ends:
            return
        if outcome.end.word not in each.ends:
            raise Mismatch("the run", " or ".join(each.ends) or "an op that comes back", _how(outcome))
        if each.after is not None:
            each.after(inside[0])

    options = BootOptions(backend=backend, plugins=plugins, memory=MEMORY, max_instructions=MAX_INSTRUCTIONS,
                          idle_limit=5.0)
    try:
        boot_to_rest_init(inspect, options, after=after,
                          in_place=InPlace(each.op, begin) if each.in_place else None)
    except NotApplicable as reason:
        return Result(each.op, each.name, Verdict.NOT_APPLICABLE, str(reason))
    except Mismatch as problem:
        return Result(each.op, each.name, Verdict.FAIL, str(problem))
    except ParavirtError as problem:
        missing = re.search(rf"\b{each.op}: no implementation", str(problem))  # safe_halt is not halt
        return Result(each.op, each.name, Verdict.MISSING if missing else Verdict.FAIL, str(problem))
    except (GuestFault, GuestExit) as problem:
        return Result(each.op, each.name, Verdict.FAIL, f"the case: expected memory that is mapped, got {problem}")
    return Result(each.op, each.name, Verdict.PASS)


def _how(outcome: Outcome) -> str:
    place = f" at {outcome.eip:#x} {outcome.symbol}".rstrip() if outcome.eip is not None else ""
    return f"{outcome.end.word}: {outcome.reason}{place}"
