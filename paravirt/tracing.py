"""Watches a machine and its ops for `trace.Trace`: exits, calls of ops, time in user and kernel mode.

Nothing of this exists unless a trace was asked for. With it, exceptions are delivered and platforms answer in Python,
so that every exit passes here; the guest's state is the same.

Lanes: ``traps`` every exit to the host, with EIP; ``ops`` every call of an op, with its arguments and its caller;
``switches`` context switches; ``mode`` how long the CPU was in user mode and in the kernel. Platforms add their own
(`Guest.trace`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paravirt.calls import FIRST_OP
from paravirt.errors import GuestFault
from paravirt.hookspecs import OpInfo
from paravirt.hookspecs.types import carry
from paravirt.machine.core import Machine
from paravirt.machine.exits import Dispatcher
from paravirt.trace import Trace

if TYPE_CHECKING:
    from paravirt.ops import Ops

USER = 3
SWITCH, TO_USER = "load_esp0", ("iret", "irq_enable_sysexit")
EXCEPTIONS = ("#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "", "#TS", "#NP", "#SS", "#GP", "#PF", "",
              "#MF", "#AC", "#MC", "#XM")


class Tracer:
    """The watcher of one machine."""

    def __init__(self, machine: Machine, trace: Trace) -> None:
        self._machine, self._vcpu, self.trace = machine, machine.vcpu, trace
        self._mode, self._since = "kernel", 0
        self._host_ops: dict[int, OpInfo] = {}
        self._places: dict[int, str] = {}
        self._watched: set[int] = set()
        trace.now = machine.engine.now
        machine.watch_exits = self._wrap

    def watch_ops(self, ops: Ops) -> None:
        """Tell of every op: guest code by a hook on its first instruction or at the call site that holds it, host
        functions at the gate."""
        for slot in ops.slots.values():
            if slot.through_gate:
                self._host_ops[slot.number] = slot.info
        ops.counters.on_slot = lambda slot: self._watch(slot.address, slot.info, None)
        ops.counters.on_site = lambda site, op: self._watch(site.address, ops.slots[op].info, site.address)
        ops.counters.watch(ops.slots)

    def _place(self, address: int) -> str:
        """Symbol and offset of a code address; there are few of them and many events."""
        place = self._places.get(address)
        if place is None:
            place = self._places[address] = self._machine.symbolize(address) or hex(address)
        return place

    # ------------------------------------------------------------------ ops

    def _watch(self, address: int, info: OpInfo, site: int | None) -> None:
        if address in self._watched:
            return
        self._watched.add(address)
        self._machine.engine.code.on(address, lambda: self._op(info, site))

    def _op(self, info: OpInfo, site: int | None) -> None:
        """:param site: the call site that holds the op's code; None: it was called, and the stack holds the caller."""
        vcpu, trace = self._vcpu, self.trace
        esp = vcpu.esp
        above = 0 if site is not None else 4
        values: dict[str, object] = {}
        try:
            for param, words in zip(info.params, carry(info.params), strict=True):
                value = 0
                for shift, word in enumerate(words):
                    part = vcpu.reg(word.register) if word.register is not None else vcpu.read_u32(
                        esp + above + word.stack)
                    value |= part << 32 * shift
                values[param.name] = hex(value)
            caller = site if site is not None or info.jumped else vcpu.read_u32(esp)
        except GuestFault:
            caller = site
        if caller is not None:
            values["caller"] = self._place(caller)
        trace.event("ops", info.name, values)
        if info.name == SWITCH:
            trace.event("switches", "context switch", values)
        elif info.name in TO_USER:
            self._leave(info.name)

    def _leave(self, op: str) -> None:
        """The kernel is about to return; into user mode, if the frame says so."""
        try:
            if op == "iret" and self._vcpu.read_u32(self._vcpu.esp + 4) & 3 != USER:
                return
        except GuestFault:
            return
        self._change("user")

    def _change(self, mode: str) -> None:
        if mode != self._mode:
            self.trace.event("mode", self._mode, since=self._since)
            self._mode, self._since = mode, self.trace.now()

    # ------------------------------------------------------------------ exits

    def _wrap(self, dispatcher: Dispatcher) -> Any:
        return _Watched(self, dispatcher)

    def exit(self, name: str, call: Callable[..., Any], *arguments: Any, **about: object) -> Any:
        """An exit: what it was, where, and how long its answer took in virtual time."""
        vcpu, trace = self._vcpu, self.trace
        eip, since = vcpu.eip, trace.now()
        if vcpu.cpl == USER:
            self._change("kernel")
        try:
            return call(*arguments)
        finally:
            trace.event("traps", name, {"eip": self._place(eip), **about}, since=since)

    def gate(self, stub: int, call: Callable[[int], None]) -> None:
        info = self._host_ops.get(stub - FIRST_OP)
        if info is not None:
            self._op(info, None)
        self.exit("gate", call, stub, op=info.name if info is not None else "kernel")

    def close(self, **about: object) -> None:
        """The run is over."""
        self._change("")
        self.trace.close(**about)


class _Watched:
    """`Dispatcher` with every exit told. Implements `engine.Handlers`."""

    def __init__(self, tracer: Tracer, inner: Dispatcher) -> None:
        self._tracer, self._inner = tracer, inner
        self.acknowledge, self.port_allowed = inner.acknowledge, inner.port_allowed

    def exception(self, vector: int, error: int, software: bool) -> None:
        name = f"int {vector:#x}" if software else (EXCEPTIONS[vector] if vector < len(EXCEPTIONS) else str(vector))
        about: dict[str, object] = {} if software else {"error": error}
        if vector == 14 and not software:
            about["cr2"] = hex(self._inner.vcpu.cr(2))
        self._tracer.exit(name, self._inner.exception, vector, error, software, **about)

    def gate(self, stub: int) -> None:
        self._tracer.gate(stub, self._inner.gate)

    def interrupt(self, vector: int) -> None:
        self._tracer.exit("interrupt", self._inner.interrupt, vector, vector=vector)

    def port_in(self, port: int, size: int) -> int:
        return int(self._tracer.exit("in", self._inner.port_in, port, size, port=hex(port), size=size))

    def port_out(self, port: int, size: int, value: int) -> None:
        self._tracer.exit("out", self._inner.port_out, port, size, value, port=hex(port), size=size, value=hex(value))

    def cpuid(self, leaf: int, subleaf: int) -> Any:
        return self._tracer.exit("cpuid", self._inner.cpuid, leaf, subleaf, leaf=hex(leaf))

    def sysenter(self) -> None:
        self._tracer.exit("sysenter", self._inner.sysenter)

    def mmio_read(self, address: int, size: int) -> int:
        return int(self._tracer.exit("mmio read", self._inner.mmio_read, address, size, address=hex(address)))

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self._tracer.exit("mmio write", self._inner.mmio_write, address, size, value, address=hex(address),
                          value=hex(value))
