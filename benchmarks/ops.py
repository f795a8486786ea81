"""``python -m benchmarks.ops``: what a call of one op costs, by how it is implemented.

A loop in the guest calls one op through its slot; the same loop without the call is subtracted. Guest code must cost
its instructions and nothing else; a host function, Python that the gate page reaches, at most 1.5 us a round trip.
An op under a wrapper, as observers use them, goes through pluggy and is shown for comparison.

Ref: paravirt/calls.py, paravirt/host_ops.py; SLOTS of paravirt/hookspecs/tables.py.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from paravirt.api import Backend, Guest, OpTable, hookimpl
from paravirt.hookspecs import slot
from paravirt.machine.layout import EAX, ECX
from paravirt.options import BootOptions
from paravirt.testing.boots import Stopped, boot_to_rest_init
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps

TARGET_NS = 1500
CALLS = 200_000
REPEATS = 5
NAME = "measured"


class Cost(NamedTuple):
    """Of one call: instructions exactly, ns of the host's CPU time at best."""

    what: str
    instructions: float
    ns: float


def loop(op: str | None, table: int) -> bytes:
    """``esi`` times: set up, the call of `op` or nothing. C's callers keep nothing in EAX, ECX and EDX."""
    call = b"" if op is None else b"\xff\x15" + struct.pack("<I", table + 4 * slot(op)[1])
    body = b"\x31\xc0\x31\xd2" + call + b"\x4e"  # xor eax, eax; xor edx, edx; call; dec esi
    return body + b"\x75" + struct.pack("<b", -(len(body) + 2)) + b"\xc3"


def measure(what: str, op: str, plugins: Sequence[object] = (), backend: str = "native", calls: int = CALLS,
            repeats: int = REPEATS) -> Cost:
    """Boot a backend to rest_init and run both loops there."""
    found: list[Cost] = []

    def inspect(stopped: Stopped) -> None:
        with_call = _run(stopped, op, calls, repeats)
        without = _run(stopped, None, calls, repeats)
        found.append(Cost(what, (with_call[0] - without[0]) / calls, (with_call[1] - without[1]) / calls))

    outcome = boot_to_rest_init(inspect, BootOptions(backend=backend, plugins=tuple(plugins), memory=16 << 20))
    if not found:
        raise RuntimeError(f"{what}: {outcome.reason}")
    return found[0]


def _run(stopped: Stopped, op: str | None, calls: int, repeats: int) -> tuple[int, float]:
    """Instructions and the least ns of CPU time of one loop, interrupts off."""
    note, vcpu, engine = stopped.kernel.note, stopped.machine.vcpu, stopped.machine.engine
    at = note.code + 4096 * (note.code_pages - 1) + (2048 if op is None else 1024)
    vcpu.ram.write(vcpu.translate(at), loop(op, note.paravirt_ops))
    stopped.ops.irq_disable()
    times, instructions = [], 0
    for _ in range(repeats):
        before, start = engine.instructions(), time.thread_time_ns()
        stopped.calls.invoke(at, {EAX: 0, ECX: 0, 6: calls}, [], wide=False)
        times.append(time.thread_time_ns() - start)
        instructions = engine.instructions() - before
    return instructions, min(times)


def with_host_function(op: str, function: object) -> object:
    """A plugin with one backend: native, of which one op is a Python function."""
    table = type("MeasuredOps", (NativeOps,), {op: function})

    class Measured(Native):
        name = NAME

        @hookimpl
        def paravirt_install_ops(self, guest: Guest) -> OpTable:
            made: OpTable = table(guest)
            return made

    def paravirt_backends() -> tuple[type[Backend], ...]:
        return (Measured,)

    return SimpleNamespace(__name__="measured plugin", paravirt_backends=hookimpl(paravirt_backends))


def observer(op: str) -> object:
    """A plugin that wraps one op, and does nothing."""

    def wrapper() -> Generator[None, Any, Any]:
        return (yield)

    return SimpleNamespace(__name__="observer", **{op: hookimpl(wrapper=True)(wrapper)})


@hookimpl
def clts(self: OpTable) -> None:
    """A host function without arguments."""


@hookimpl
def set_pte_atomic(self: OpTable, ptep: int, pte: int) -> None:
    """A host function with three words of arguments."""


def costs(calls: int = CALLS, repeats: int = REPEATS) -> list[Cost]:
    few = max(1, calls // 10)
    return [
        measure("guest code: clts", "clts", calls=calls, repeats=repeats),
        measure("guest code: read_cr0", "read_cr0", calls=calls, repeats=repeats),
        measure("host function, no argument", "clts", [with_host_function("clts", clts)], NAME, few, repeats),
        measure("host function, pointer and u64", "set_pte_atomic",
                [with_host_function("set_pte_atomic", set_pte_atomic)], NAME, few, repeats),
        measure("guest code under a wrapper", "clts", [observer("clts")], calls=few, repeats=repeats),
    ]


def main() -> int:
    found = costs()
    width = max(len(cost.what) for cost in found)
    print(f"{'':{width}}  instructions        ns")
    for cost in found:
        print(f"{cost.what:{width}}  {cost.instructions:12.2f}  {cost.ns:8.1f}")
    slow = [cost for cost in found if cost.what.startswith("host") and cost.ns > TARGET_NS]
    for cost in slow:
        print(f"{cost.what}: more than {TARGET_NS} ns", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
