"""Hypercalls and entries into the guest as events of a trace.

Lane ``hypercalls``: each call with its arguments by name and its result; a multicall has the calls that it made, in
order, and they have events of their own in ``multicall entries``. Lane ``upcalls``: events, NMIs, the failsafe
callback. A trace does without the C library, so every call comes here.

Ref: hypercalls.py (the signatures).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.hypercalls import HYPERCALLS, Argument

if TYPE_CHECKING:
    from paravirt.api import Trace

MULTICALL = "multicall"


class HypercallTrace:
    """Tells `trace` of a domain's calls."""

    def __init__(self, domain: Domain, trace: Trace) -> None:
        self._trace = trace
        self._arguments = {call.name: call.arguments for call in HYPERCALLS.values()}
        self._batch: list[str] = []
        domain.dispatcher.on_call = self._call
        domain.traps.on_upcall = lambda what: trace.event("upcalls", what)

    def _call(self, name: str, words: Sequence[int], result: int, inner: bool) -> None:
        values = decode(self._arguments.get(name, ()), words)
        if inner:
            said = f"{name}({', '.join(f'{key}={value}' for key, value in values.items())}) = {result}"
            self._batch.append(said)
            self._trace.event("multicall entries", name, {**values, "result": result})
            return
        if name == MULTICALL:
            values["calls"], self._batch = self._batch, []
        self._trace.event("hypercalls", name, {**values, "result": result})


def decode(arguments: Sequence[Argument], words: Sequence[int]) -> dict[str, object]:
    """Argument words by name, as hexadecimal numbers."""
    values: dict[str, object] = {}
    at = 0
    for argument in arguments:
        value = words[at]
        if argument.kind == "u64":
            value |= words[at + 1] << 32
        at += 2 if argument.kind == "u64" else 1
        values[argument.name] = hex(value)
    return values
