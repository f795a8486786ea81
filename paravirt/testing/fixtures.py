"""What the fixtures of the pytest plugin give to a test."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from inspect import Parameter, Signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from paravirt import boot_sequence
from paravirt.console import Console
from paravirt.forms import hookimpl
from paravirt.hookspecs import op_infos
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt.testing.boots import Stopped, boot_to_rest_init

MEMORY = 32 << 20
NAMES = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
ARITHMETIC_FLAGS = 0x8D5  # CF, PF, AF, ZF, SF, OF
RET = b"\xc3"


class Boot:
    """Boots a kernel on one backend: ``record = boot(append="panic", count_ops=True)``.

    :ivar output: what the last guest printed. :ivar record: of the last boot.
    """

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.output = ""
        self.record: Record | None = None

    def __call__(self, kernel: Path | str | None = None, **options: Any) -> Record:
        """:param kernel: default: the reference kernel. :param options: fields of `BootOptions`."""
        output = bytearray()
        given = BootOptions(**{"backend": self.backend, "memory": MEMORY, **options})
        try:
            self.record = boot_sequence.boot(kernel, given, Console(output.extend))
        finally:
            self.output = output.decode("utf-8", "replace")
        return self.record

    def assert_ops(self, **expected: int) -> None:
        """Compare counts of the last boot, which must have had ``count_ops=True`` for ops that are guest code."""
        assert self.record is not None, "nothing was booted"
        counted = {name: self.record.counts.ops.get(name, 0) for name in expected}
        assert counted == expected, f"op counts: expected {expected}, got {counted}"


class OpRecorder:
    """Notes calls of ops, by wrappers around them: ``op_recorder("write_cr3", "set_ldt")``.

    :ivar calls: ``(name, arguments)`` in order, results not included.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.plugin = SimpleNamespace(__name__="op recorder")

    def __call__(self, *ops: str) -> OpRecorder:
        """Record these ops; those that are jumped to cannot be."""
        infos = op_infos()
        for name in ops:
            if name not in infos:
                raise ValueError(f"no op {name!r}")
            setattr(self.plugin, name, hookimpl(wrapper=True)(_noting(self.calls, name)))
        return self

    @property
    def counts(self) -> Counter[str]:
        return Counter(name for name, _ in self.calls)

    def assert_counts(self, **expected: int) -> None:
        """Each op of `expected` was called so often."""
        got = {name: self.counts[name] for name in expected}
        assert got == expected, f"calls: expected {expected}, got {got}"


def _noting(calls: list[tuple[str, tuple[int, ...]]], name: str) -> Any:
    """A pluggy wrapper that takes the op's arguments by name: pluggy reads the names off its signature."""

    def wrapper(*arguments: int) -> Generator[None, Any, Any]:
        calls.append((name, arguments))
        return (yield)

    names = [Parameter(param.name, Parameter.POSITIONAL_OR_KEYWORD) for param in op_infos()[name].params]
    wrapper.__signature__ = Signature(names)  # type: ignore[attr-defined]
    wrapper.__name__ = name
    return wrapper


class State(NamedTuple):
    """What a snippet left: general registers by name, ESP aside, arithmetic flags, and a page of memory."""

    registers: Mapping[str, int]
    flags: int
    memory: bytes


@functools.cache
def _parse(code: str) -> bytes:
    return bytes.fromhex(code)


def run_snippet(backend: str, code: str | bytes, **registers: int) -> State:
    """Run guest code in the kernel of `backend` at rest_init, as a function called with ``call``.

    :param code: machine code, as bytes or hexadecimal text, without the closing ret; it may lie anywhere.
    :param registers: by name, on entry. EBX, where it is not given, is the address of a zeroed page, which is part of
        the state; a register that points into that page is given as an offset from it.
    """
    left: list[State] = []

    def inspect(stopped: Stopped) -> None:
        left.append(_run(stopped, _parse(code) if isinstance(code, str) else code, registers))

    outcome = boot_to_rest_init(inspect, BootOptions(backend=backend, memory=MEMORY))
    assert left, f"backend {backend!r}: the snippet did not come back: {outcome.end.word}: {outcome.reason}"
    return left[0]


def _run(stopped: Stopped, code: bytes, given: Mapping[str, int]) -> State:
    kernel, vcpu, note = stopped.kernel, stopped.machine.vcpu, stopped.kernel.note
    page, size = kernel.get_page(), len(code) + len(RET)
    at = note.code + 4096 * note.code_pages - size
    vcpu.ram.write(vcpu.translate(at), code + RET)
    registers = {number: 0 for number, name in enumerate(NAMES) if name != "esp"}
    registers[NAMES.index("ebx")] = page
    registers |= {NAMES.index(name): value for name, value in given.items()}
    stopped.ops.irq_disable()
    stopped.calls.invoke(at, registers, [], wide=False)
    flags = vcpu.eflags & ARITHMETIC_FLAGS
    left = {name: vcpu.reg(number) for number, name in enumerate(NAMES) if name != "esp"}
    for name, value in left.items():
        if page <= value < page + 4096:  # frames differ between backends
            left[name] = value - page
    return State(left, flags, vcpu.read(page, 4096))


def compare_on(backends: Iterable[str], code: str | bytes, **registers: int) -> State:
    """Run a snippet on every backend; all must leave one state, which is returned."""
    states = {name: run_snippet(name, code, **registers) for name in backends}
    assert states, "no backend can boot the reference kernel"
    (first, expected), *rest = states.items()
    for name, state in rest:
        assert state == expected, "\n".join(_differences(first, expected, name, state))
    return expected


def _differences(first: str, expected: State, name: str, got: State) -> Iterator[str]:
    yield f"backend {name!r} leaves another state than {first!r}:"
    for register, value in expected.registers.items():
        if got.registers[register] != value:
            yield f"  {register}: expected {value:#x}, got {got.registers[register]:#x}"
    if got.flags != expected.flags:
        yield f"  flags: expected {expected.flags:#x}, got {got.flags:#x}"
    for at, (before, after) in enumerate(zip(expected.memory, got.memory, strict=True)):
        if before != after:
            yield f"  memory at {at:#x}: expected {before:#x}, got {after:#x}"
            return


__all__ = ["Boot", "OpRecorder", "State", "compare_on", "run_snippet"]
