"""The CPU: one Unicorn engine, its registers, its clock.

`run` goes on until a deadline in virtual time; what the guest cannot do alone reaches the `Handlers`
(callbacks.py). Virtual time is 1 ns an instruction of the blocks entered, and what exits are charged.

Ref: Unicorn 2.1.4 include/unicorn/unicorn.h; which forms are in use: seams.py.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterable
from typing import Any

from paravirt.machine import accel, layout
from paravirt.machine.callbacks import EXCEPTION_NS, GATE_NS, GP, RDTSC_NS, Callbacks, Handlers
from paravirt.machine.codehooks import CodeHooks
from paravirt.machine.halts import Halts
from paravirt.machine.library import EngineError, Library, const, unicorn, x86
from paravirt.machine.nmi import NMI, NmiPin
from paravirt.machine.ram import PAGE, Ram
from paravirt.machine.registers import OtherRegisters
from paravirt.machine.seams import TRANSLATION_BUFFER, Seams
from paravirt.machine.shortcuts import PortShortcuts

DOUBLE_FAULT = 8
STORM = 200_000  # exceptions without an instruction between them, 100 virtual ms: nothing will end it
EFLAGS_IF = 0x200
# Portable clock: instructions of one slice, and of one while an interrupt waits for the guest to
# enable it. The second differ and are prime to one another, or a loop of the guest could hide from them.
COUNT_SLICE = 5_000
COUNT_WAITING = (61, 127, 251, 509, 1021, 2039, 4093)


class CpuStopped(Exception):
    """libunicorn gave up: an access outside the physical address space, or a state it cannot run."""


class TripleFault(Exception):
    """A fault while a double fault was delivered: the CPU has shut down."""


class Engine:
    """One i386 CPU over `ram`. Physical addresses above RAM are memory-mapped I/O.

    :param disabled: seams to keep in their portable form, names of `machine.accel.NAMES`.
    """

    def __init__(self, ram: Ram, disabled: Iterable[str] = ()) -> None:
        self.ram = ram
        self._library = Library()
        self._uc: Any = unicorn.Uc(const.UC_ARCH_X86, const.UC_MODE_32)
        self._uc.ctl_set_cpu_model(x86.UC_CPU_X86_COREDUO)
        self._uc.ctl_set_tcg_buffer_size(TRANSLATION_BUFFER)
        self._uc.ctl_exits_enabled(True)
        self._uc.ctl_set_exits([])
        self._handle: int = self._uc._uch.value
        self.record = accel.NativeMachine(exception_ns=EXCEPTION_NS, rdtsc_ns=RDTSC_NS, gate_ns=GATE_NS,
                                         storm_limit=STORM)
        own = ctypes.addressof(self.record) + accel.NativeMachine.own_budget.offset
        self.record.budget = own
        self.skipped = 0
        self.interrupt_pending = False
        self._delivered = 0
        self._waiting_slice = 0
        self._halt = False
        self._virtual_flag: memoryview | None = None
        self.seams = Seams(self._library, self._uc, ram, self.record, disabled)
        self.state, self._live = self.seams.state, self.seams.live
        self.nmi = NmiPin(self.state, self._live, self.record)
        self.flush_tlb, self.flush_page, ram.on_write = self.seams.flushes()
        # [own budget, end, charged], and the budget, wherever the seams have put it: now = end - budget
        self.clock, self.budget = _view(own, 3), _view(self.record.budget, 1)
        self._callbacks = Callbacks(self, self.seams, ram, self.record)
        self._callbacks.map_memory(self._library, self._handle)
        self._callbacks.install(
            self._library, self._handle, self.seams.accelerator, block_clock=self.seams.block_clock)
        self.fail, self.keep = self._callbacks.fail, self._callbacks.keep
        self.on_stop: Callable[[], None] = lambda: None  # a platform's C may have put something off
        self.step_over: Callable[[int], int] | None = None
        self.registers = OtherRegisters(self._uc, self.state, self.record)
        self.code = CodeHooks(self._library, self._handle, self._callbacks, self.seams)
        self._halts = Halts(self.state, ram, self.code.hook)

    def connect(self, handlers: Handlers) -> None:
        """Say who answers the exits; before the first `run`."""
        self._callbacks.handlers = handlers

    def native_vectors(self, vectors: Iterable[int], *, interrupts: bool, sysenter: bool) -> None:
        """Let the guest's own IDT take these exceptions, and external interrupts, and the CPU SYSENTER, without
        asking Python.

        Without the delivery seam nothing changes: the handlers deliver.
        """
        if not self.seams.c_delivery:
            return
        self.record.native[:] = [0] * 4
        for vector in vectors:
            self.record.native[vector >> 6] |= 1 << (vector & 63)
        self.record.acknowledge = self._callbacks.acknowledge_pointer if interrupts else None
        self.record.sysenter_here = sysenter and self.record.sysenter > 0

    def virtual_flag(self, physical: int) -> None:
        """Let bit 9 of a word of RAM decide whether external interrupts are taken, in place of EFLAGS.IF, which the
        platform keeps set.

        :param physical: address of the word, a multiple of 4.
        """
        self._virtual_flag = self.ram.bytes[physical : physical + 4].cast("I")
        self.record.interrupt_flag = self.ram.address + physical

    def interrupts_on(self) -> bool:
        """Whether the guest takes external interrupts: by the platform's flag, else by EFLAGS.IF."""
        flag = self._virtual_flag
        return bool((self.state.words[layout.EFLAGS] if flag is None else flag[0]) & EFLAGS_IF)

    def halt(self) -> None:
        """From inside an exit: the CPU waits for an interrupt behind it, as HLT does."""
        self._halt = True
        self.stop()

    def decide_ports(self, asked: bool) -> None:
        """Whether the handlers are asked about ports that IOPL refuses; else the TSS decides."""
        self.record.port_check = self._callbacks.port_check_pointer if asked else None

    def port_shortcuts(self, shortcuts: PortShortcuts | None, cost: int) -> None:
        """Let C answer what devices have answered in advance; None: nothing.

        :param cost: of an access, in ns.
        """
        record = self.record
        record.shortcuts = shortcuts is not None and "ports" not in self.seams.missing
        if shortcuts is not None:
            self.keep(shortcuts)
            record.line, record.line_port = ctypes.addressof(shortcuts.line), shortcuts.line_port
            record.counters[:] = [ctypes.addressof(counter) for counter in shortcuts.counters]
            record.counter_port, record.port_ns = shortcuts.counter_port, cost
            record.post, record.post_port = ctypes.addressof(shortcuts.post), shortcuts.post_port

    def gate_page(self, start: int, end: int, free: int | None = None) -> None:
        """EIPs at which ``int 0x83`` of a kernel is a call of the host. From `free` on it costs the guest no time.

        What lies there is an observer's, and the guest is never left standing on it: events that come then would
        show it an address that it does not know of. `step_over` is asked to do the rest of it, at no cost, and says
        where it leads.
        """
        self.record.gate_start, self.record.gate_end = start, end
        self.record.gate_free = end if free is None else free
        self._callbacks.gate_range = (start, end)

    # ------------------------------------------------------------------ time

    def now(self) -> int:
        """Virtual nanoseconds since the machine was switched on."""
        return self.clock[1] - self.budget[0]

    def charge(self, ns: int) -> None:
        """Let an exit cost time."""
        self.budget[0] -= ns
        self.clock[2] += ns

    def refund(self, instructions: int) -> None:
        """Take instructions back that the guest would not have run by itself, and their time."""
        self.budget[0] += instructions

    def instructions(self) -> int:
        """Instructions run so far (each iteration of a REP is one). With the count clock an upper bound:
        a slice that ends early counts as a whole."""
        return self.now() - self.clock[2] - self.skipped

    def shorten(self) -> None:
        """End the running slice at the next block: something became due."""
        if self.budget[0] > 0:
            self.clock[1] -= self.budget[0]
            self.budget[0] = 0

    def skip_to(self, when: int) -> None:
        """Idle: let time pass without instructions."""
        now = self.now()
        if when > now:
            self.skipped += when - now
            self.clock[1], self.budget[0] = when, 0

    # ------------------------------------------------------------------ running

    @property
    def eip(self) -> int:
        return int(self.state.quads[layout.EIP]) & 0xFFFFFFFF

    def request_interrupt(self, pending: bool) -> None:
        """The CPU's INTR pin. Delivered at the first boundary where the guest allows it."""
        self.interrupt_pending = pending
        if self._live is not None and self.seams.accelerator is not None:
            self._live.interrupt_requested = pending
            if pending and self.interrupts_on():
                self.shorten()

    def request_nmi(self) -> None:
        """An edge on the CPU's NMI pin."""
        self.nmi.request()
        self.shorten()

    def run(self, deadline: int) -> bool:
        """Run until virtual time reaches `deadline` or something stops the CPU before.

        :return: True if the CPU executed HLT and waits.
        :raises CpuStopped: the CPU cannot go on.
        :raises TripleFault: the CPU has shut down.
        :raises BaseException: whatever a handler raised.
        """
        state, clock, budget, callbacks = self.state, self.clock, self.budget, self._callbacks
        state.load()
        if self._live is not None:
            self._live.halted = False
        self._halt = False
        self.record.window = 0
        if self.nmi.take():
            self._enter_interrupt(NMI)
        if self.interrupt_pending and not self.record.acknowledge and self._window_open():
            self._deliver_interrupt()
        now = clock[1] - budget[0]
        count = 0
        if not self.seams.block_clock:
            count = self._count(deadline - now)
            self._halts.begin()
            deadline = now + count
        clock[1], budget[0] = deadline, deadline - now
        status = self._library.emu_start(self._handle, int(state.quads[layout.EIP]), 0, 0, count)
        self.on_stop()
        if count:
            budget[0] -= count
        state.load()
        if callbacks.error is not None:
            error, callbacks.error = callbacks.error, None
            raise error
        if callbacks.denied is not None:
            self._take_back()
            return False
        if status in (const.UC_ERR_FETCH_PROT, const.UC_ERR_FETCH_UNMAPPED):
            raise CpuStopped("the guest executes code where there is no memory")
        if self.record.storm >= STORM:
            raise self._storm()
        if self.record.stopped:
            raise CpuStopped(f"the CPU cannot go on: {self.record.stopped.decode('ascii', 'replace')}")
        if status:
            raise CpuStopped(self._library.message(status))
        if self.record.gate_free <= self.eip < self.record.gate_end and self.step_over is not None:
            state.quads[layout.EIP] = self.step_over(self.eip)
            state.store()
        halted = self._halt or (self._live.halted if self._live is not None else self._halts.ended_by(self.eip))
        if not halted and self._live is not None and state.words[layout.OLD_EXCEPTION] == DOUBLE_FAULT:
            raise TripleFault
        return halted

    def _count(self, budget: int) -> int:
        if self.interrupt_pending:
            self._waiting_slice = (self._waiting_slice + 1) % len(COUNT_WAITING)
            return min(max(2, budget), COUNT_WAITING[self._waiting_slice])
        return min(max(2, budget), COUNT_SLICE)

    def _window_open(self) -> bool:
        return self.interrupts_on() and not self.state.words[layout.HFLAGS] & layout.HF_SHADOW

    def _deliver_interrupt(self) -> None:
        handlers = self._callbacks.handlers
        vector = handlers.acknowledge()
        if vector >= 0:
            self._enter_interrupt(vector)

    def _enter_interrupt(self, vector: int) -> None:
        self._delivered += 1
        self.charge(EXCEPTION_NS)
        self._callbacks.handlers.interrupt(vector)
        self.state.store()

    def _take_back(self) -> None:
        """Put the state before a forbidden IN or OUT back and raise #GP there."""
        callbacks, state = self._callbacks, self.state
        assert callbacks.denied is not None
        state.bytes[:], callbacks.denied = callbacks.denied, None
        self.count_exception(GP)
        callbacks.handlers.exception(GP, 0, False)
        state.store()

    # ------------------------------------------------------------------ the rest

    def count_modes(self) -> None:
        """Count instructions of user mode from now on; before the first `run`. Nothing without the block clock."""
        self.record.count_modes = self.seams.block_clock

    def user_instructions(self) -> int | None:
        """Instructions run in ring 3; None if they are not counted."""
        return int(self.record.user) if self.record.count_modes else None

    def internal_address(self, name: str) -> int:
        """Address of one of libunicorn's own i386 functions; :raises AttributeError: there is none."""
        return self._library.address(name + "_x86_64")

    def count_exception(self, vector: int) -> None:
        """An exception is about to be delivered by Python: it counts, and it costs time."""
        self._callbacks.exceptions[vector] += 1
        record = self.record
        record.recent = record.recent << 8 | vector
        instructions = self.now() - self.clock[2]
        if instructions != record.storm_at:
            record.storm_at, record.storm = instructions, 0
        record.storm += 1
        if record.storm >= STORM:
            raise self._storm()
        self.charge(EXCEPTION_NS)

    def stop(self) -> None:
        """End the running slice. From inside an exit: at the next block."""
        if self._uc is not None:  # a signal may come late
            self._library.emu_stop(self._handle)

    def interrupts(self) -> int:
        """Hardware interrupts delivered so far."""
        return int(self.record.interrupts) + self._delivered

    def _storm(self) -> CpuStopped:
        vector = self.recent_exceptions()[0]
        return CpuStopped(f"exception {vector} for ever: {STORM} in a row, and no instruction runs")

    def recent_exceptions(self) -> list[int]:
        """Vectors of the last exceptions, newest first, at most eight; a vector 0 at the end may be none."""
        return [int(self.record.recent) >> 8 * index & 0xFF for index in range(8)]

    def exceptions(self) -> dict[int, int]:
        """Exceptions and software interrupts so far, by vector."""
        counts = ((v, self.record.exceptions[v] + self._callbacks.exceptions[v]) for v in range(256))
        return {vector: count for vector, count in counts if count}

    def close(self) -> None:
        """Let go of the engine; nothing may be called afterwards."""
        self.clock[0], self.budget = self.budget[0], self.clock
        self.record.budget = ctypes.addressof(self.record) + accel.NativeMachine.own_budget.offset
        self.seams.close()
        self.registers.close()
        self._uc = None
        self._virtual_flag = None
        self._callbacks.close()


def _view(address: int, words: int) -> memoryview:
    return memoryview((ctypes.c_int64 * words).from_address(address)).cast("B").cast("q")


__all__ = ["EXCEPTION_NS", "PAGE", "CpuStopped", "Engine", "EngineError", "Handlers", "TripleFault"]
