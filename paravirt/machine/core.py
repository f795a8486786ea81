"""The machine: CPU, memory, buses, time, and the loop that runs them until something ends the run.

``with Machine(memory=128 << 20) as machine: boot(kernel, machine=machine)``; afterwards registers and
memory can still be looked at. Two machines of one process share nothing but the code of libunicorn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType

from paravirt.machine import layout
from paravirt.machine.bus import MmioBus, PortBus
from paravirt.machine.engine import DOUBLE_FAULT, CpuStopped, Engine, Handlers, TripleFault
from paravirt.machine.exits import PORT_NS, Dispatcher, ExitTable
from paravirt.machine.outcome import End, GuestExit, Outcome, crash
from paravirt.machine.ram import Ram
from paravirt.machine.shortcuts import PortShortcuts
from paravirt.machine.timeline import Timeline
from paravirt.machine.vcpu import Vcpu

SLICE_NS = 10_000_000
DEFAULT_MEMORY = 128 << 20


class Machine:
    """:param memory: bytes of RAM, a multiple of 4096.
    :param disabled: speed-ups to leave out, names of `machine.accel.NAMES`.
    :param reserved: further bytes of RAM, which the platform keeps for itself; a multiple of 4096."""

    def __init__(self, memory: int = DEFAULT_MEMORY, disabled: Iterable[str] = (), reserved: int = 0) -> None:
        self.ram, self.memory = Ram(memory + reserved), memory
        self.ports, self.mmio = PortBus(), MmioBus()
        self._dispatcher: Dispatcher | None = None
        self.engine = Engine(self.ram, disabled)
        self.vcpu = Vcpu(self, self.engine)
        self.timeline = Timeline(self.engine.now, self.engine.shorten)
        self.watch_exits: Callable[[Dispatcher], Handlers] = lambda dispatcher: dispatcher
        self.exits_watched = False
        self.acknowledge: Callable[[], int] = lambda: -1
        self.device_state: Callable[[], Mapping[str, object]] = dict
        self.wait_for_input: Callable[[], bool] = lambda: False
        self.each_slice: Callable[[], None] = lambda: None
        self.port_shortcuts: PortShortcuts | None = None
        self.settle: Callable[[], None] = lambda: None  # others look: a device takes what C did in its place
        self.entering: Callable[[], None] = lambda: None  # the platform's last word before the CPU runs (on)
        self.sleep: Callable[[int], None] = lambda ns: None
        self.symbolize: Callable[[int], str] = lambda eip: ""
        self.max_instructions: int | None = None
        self.idle_limit_ns = 0
        self.outcome: Outcome | None = None
        self.input_at_end: Callable[[], bool] = lambda: True
        self._last_activity = 0
        self._wakes: Callable[[], bool] | None = None
        self._waits_for = ""

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give engine and memory back. Nothing of the machine may be used afterwards."""
        self.engine.close()
        self.ram.close()

    # ------------------------------------------------------------------ wiring

    def connect(self, table: ExitTable) -> None:
        """Let a platform's exit table answer."""
        self._dispatcher = dispatcher = Dispatcher(self.vcpu, table, self.mmio, self._acknowledge)
        handlers = self.watch_exits(dispatcher)
        self.exits_watched = handlers is not dispatcher
        self.engine.connect(handlers)
        self._leave_to_the_cpu(dispatcher)

    def watch_exception(self, vector: int, look: Callable[[int], None]) -> None:
        """Have `look` called with EIP of the instruction when the platform has answered an exception of `vector`.

        What a platform answers in C is not seen.
        """
        self.dispatcher.watch(vector, look)
        self._leave_to_the_cpu(self.dispatcher)

    def _leave_to_the_cpu(self, dispatcher: Dispatcher) -> None:
        self.engine.native_vectors(dispatcher.native_vectors(), interrupts=dispatcher.native_interrupts,
                                   sysenter=dispatcher.native_sysenter)
        self.engine.decide_ports(dispatcher.decides_ports)
        plain = dispatcher.plain_ports and not self.exits_watched
        self.engine.port_shortcuts(self.port_shortcuts if plain else None, PORT_NS)

    @property
    def dispatcher(self) -> Dispatcher:
        if self._dispatcher is None:
            raise RuntimeError("no platform answers this machine's exits yet")
        return self._dispatcher

    @property
    def traps(self) -> int:
        """Exits to the host so far."""
        record, dispatcher = self.engine.record, self._dispatcher
        return int(record.traps + record.ports_answered) + (dispatcher.traps if dispatcher is not None else 0)

    @property
    def port_io(self) -> int:
        """IN and OUT so far that reached the bus."""
        dispatcher = self._dispatcher
        return int(self.engine.record.ports_answered) + (dispatcher.port_io if dispatcher is not None else 0)

    def raise_exception(self, vector: int, error: int) -> None:
        """Raise an exception at EIP, from inside an exit: it counts, costs time and goes to the platform."""
        self.engine.count_exception(vector)
        self.dispatcher.exception(vector, error, False)

    def _acknowledge(self) -> int:
        return self.acknowledge()

    def interrupt_line(self, level: bool) -> None:
        """The CPU's INTR pin, driven by the interrupt controller."""
        self.engine.request_interrupt(level)

    def end(self, end: End, reason: str, status: int = 0) -> None:
        """A device, a platform or a signal ends the run. The first one counts."""
        if self.outcome is None:
            self.outcome = Outcome(end, reason, status=status)
        self.engine.stop()
        self.engine.shorten()

    def interrupt(self, outcome: Outcome) -> None:
        """End the run from another thread."""
        if self.outcome is None:
            self.outcome = outcome
        self.engine.stop()

    def block(self, wakes: Callable[[], bool], waits_for: str) -> None:
        """A platform lets the CPU wait, as HLT does: it runs no instruction until `wakes` says yes.

        From inside an exit, which ends the slice behind it. `wakes` is asked again when a deadline has passed or
        input has come.

        :param waits_for: what the guest waits for, for the sentence when nothing can happen any more.
        """
        self._wakes, self._waits_for = wakes, waits_for
        self.engine.stop()

    def active(self, when: int | None = None) -> None:
        """The guest did something that shows: it is not idle for ever.

        :param when: at this virtual ns, if not now.
        """
        self._last_activity = self.engine.now() if when is None else when

    @property
    def last_activity(self) -> int:
        """When it last did, in virtual ns."""
        return self._last_activity

    # ------------------------------------------------------------------ running

    def run(self) -> None:
        """Run the guest. Never returns.

        :raises GuestExit: with the outcome; also what a handler raised passes through.
        """
        engine = self.engine
        try:
            halted = False
            while True:
                self.each_slice()
                self.timeline.run_due()
                self._check()
                if self._waits(halted):
                    self._idle()
                    continue
                self.entering()
                now = engine.now()
                deadline = self.timeline.next_deadline()
                until = now + SLICE_NS if deadline is None else min(deadline, now + SLICE_NS)
                if self.max_instructions is not None:  # an instruction takes a nanosecond or more
                    until = min(until, now + self.max_instructions - engine.instructions())
                try:
                    halted = engine.run(until)
                finally:
                    self.settle()
        except CpuStopped as problem:
            raise self._crash(str(problem)) from None
        except TripleFault:
            raise self._shutdown() from None

    def _check(self) -> None:
        if self.outcome is not None:
            raise GuestExit(self._placed(self.outcome))
        limit = self.max_instructions
        if limit is not None and self.engine.instructions() >= limit:
            raise GuestExit(self._placed(Outcome(End.LIMIT, f"{limit} instructions have run")))

    def _waits(self, halted: bool) -> bool:
        """Whether the CPU has nothing to do until something happens: a platform has blocked it, or HLT."""
        if self._wakes is not None:
            if not self._wakes():
                return True
            self._wakes = None
            return False
        if not halted or self.engine.nmi.pending:
            return False
        if not self.engine.interrupts_on():
            raise GuestExit(self._placed(Outcome(End.HALT, "the guest halted with interrupts off")))
        self._waits_for = "an interrupt"
        return not self.engine.interrupt_pending

    def _idle(self) -> None:
        """Let time pass to the next thing that can happen."""
        deadline = self.timeline.next_deadline()
        if deadline is None:
            if self.wait_for_input() or self.outcome is not None:
                return
            raise GuestExit(self._placed(Outcome(
                End.IDLE, f"the guest waits for {self._waits_for} that no device will raise")))
        if self.idle_limit_ns and self.input_at_end() and deadline - self._last_activity > self.idle_limit_ns:
            raise GuestExit(self._placed(Outcome(
                End.IDLE, f"nothing but timer interrupts for {self.idle_limit_ns // 10**9} virtual seconds")))
        self.sleep(deadline - self.engine.now())
        self.engine.skip_to(deadline)

    def _placed(self, outcome: Outcome) -> Outcome:
        if outcome.eip is not None:
            return outcome
        eip = self.engine.eip
        return outcome.at(eip, self.symbolize(eip))

    def _crash(self, reason: str) -> GuestExit:
        return GuestExit(self._placed(crash(reason).outcome))

    def _shutdown(self) -> GuestExit:
        idt = self.vcpu.table(layout.IDTR)
        if idt.limit == 0:
            return GuestExit(self._placed(Outcome(
                End.REBOOT, "triple fault with an empty IDT: the guest's way to reset")))
        recent = self.engine.recent_exceptions()
        first = recent[1] if recent[0] == DOUBLE_FAULT else recent[0]
        return self._crash(f"triple fault: exception {first} could not be delivered, nor the double fault "
                           f"(exception {DOUBLE_FAULT}) that came of it")

    # ------------------------------------------------------------------ what is left behind

    def state_hash(self) -> str:
        """SHA-256 over all memory, registers and device state; equal for two runs of the same command."""
        digest = hashlib.sha256()
        state = self.vcpu.state
        quads = state.quads
        registers = [*quads[: layout.EDI + 1], quads[layout.EIP], self.vcpu.eflags, *quads[layout.CR : layout.CR + 5],
                     *quads[layout.DR : layout.DR + 8], self.engine.now()]
        segments = [self.vcpu.segment(index) for index in range(6)]
        tables = [self.vcpu.table(at) for at in (layout.LDTR, layout.TR, layout.GDTR, layout.IDTR)]
        others = self.engine.registers.all()
        digest.update(json.dumps([[int(r) for r in registers], segments, tables, others]).encode())
        digest.update(json.dumps(self.device_state(), sort_keys=True, default=_plain).encode())
        for page, contents in self.ram.contents():
            digest.update(page.to_bytes(4, "little"))
            digest.update(contents)
        return digest.hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise TypeError(f"device state holds a {type(value).__name__}")
