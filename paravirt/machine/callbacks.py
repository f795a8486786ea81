"""What libunicorn calls when the CPU leaves the guest, and whom it asks then.

Each callback loads the state, asks the `Handlers`, stores the state. An exception that a handler raises
must not cross libunicorn's frames: it is kept, the CPU is stopped, and `Engine.run` raises it.

Ref: Unicorn 2.1.4 include/unicorn/unicorn.h (callback types); Intel SDM vol. 1, 19.5 (I/O permission).
"""

from __future__ import annotations

import ctypes
from typing import Any, Protocol

from paravirt.machine import layout
from paravirt.machine.accel import Accelerator, NativeMachine
from paravirt.machine.library import (
    GATE,
    IN,
    INSN,
    INTR,
    MMIO_READ,
    MMIO_WRITE,
    OUT,
    PORT_CHECK,
    SYSENTER,
    Library,
    Pointer,
    const,
    x86,
)
from paravirt.machine.ram import Ram
from paravirt.machine.seams import Seams

EXCEPTION_NS = 500
RDTSC_NS = 50
GATE_NS = 1000  # a call of the host costs time, or a hypercall would look cheaper than an instruction
GATE_VECTOR, STUB_BYTES = 0x83, 8
USER_RING = 3
UD, GP = 6, 13
SYSENTER_BYTES = 2


class Handlers(Protocol):
    """Who answers what the CPU cannot do alone."""

    def exception(self, vector: int, error: int, software: bool) -> None: ...
    def gate(self, stub: int) -> None: ...
    def port_in(self, port: int, size: int) -> int: ...
    def port_out(self, port: int, size: int, value: int) -> None: ...
    def port_allowed(self, port: int, size: int) -> bool: ...
    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]: ...
    def sysenter(self) -> None: ...
    def acknowledge(self) -> int: ...
    def interrupt(self, vector: int) -> None: ...
    def mmio_read(self, address: int, size: int) -> int: ...
    def mmio_write(self, address: int, size: int, value: int) -> None: ...


class Clock(Protocol):
    """The part of the engine that callbacks need."""

    interrupt_pending: bool
    budget: memoryview

    def now(self) -> int: ...
    def charge(self, ns: int) -> None: ...
    def count_exception(self, vector: int) -> None: ...
    def stop(self) -> None: ...


class Callbacks:
    """The C callbacks of one engine. Python's `ctypes` objects live as long as this does."""

    def __init__(self, engine: Clock, seams: Seams, ram: Ram, record: NativeMachine) -> None:
        self._engine, self._state, self._live, self._ram = engine, seams.state, seams.live, ram
        self._record = record
        self._ram_size = ram.size
        self._kept: list[object] = []
        self.handlers: Handlers
        self.error: BaseException | None = None
        self.denied: bytes | None = None  # state before an IN or OUT that the guest may not execute
        self.exceptions = [0] * 256
        self.gate_range = (0, 0)

    def fail(self, error: BaseException) -> None:
        """Keep what a handler raised, to raise it from `Engine.run`, and stop."""
        if self.error is None:
            self.error = error
        self._engine.stop()

    def keep(self, callback: Any) -> Any:
        """Let a ctypes callback live as long as the engine."""
        self._kept.append(callback)
        return callback

    def map_memory(self, library: Library, handle: int) -> None:
        """RAM from address 0, memory-mapped I/O behind it up to 4 GiB."""
        library.check(library.gil.uc_mem_map_ptr(
            Pointer(handle), ctypes.c_uint64(0), ctypes.c_size_t(self._ram.size),
            ctypes.c_uint32(const.UC_PROT_ALL), Pointer(self._ram.address)), "uc_mem_map_ptr")
        read, write = self.keep(MMIO_READ(self._mmio_read)), self.keep(MMIO_WRITE(self._mmio_write))
        library.check(library.gil.uc_mmio_map(
            Pointer(handle), ctypes.c_uint64(self._ram.size), ctypes.c_size_t((1 << 32) - self._ram.size),
            read, None, write, None), "uc_mmio_map")

    def install(self, library: Library, handle: int, accelerator: Accelerator | None, *, block_clock: bool) -> None:
        """Add the hooks; those that have a C side go through it."""
        record = self._record
        user = ctypes.addressof(record)
        intr, port_in, port_out = (
            self.keep(INTR(self._intr)), self.keep(IN(self._in)), self.keep(OUT(self._out)))
        invalid: Any = self.keep(INSN(self._invalid))
        rdtsc: Any = self.keep(INSN(self._rdtsc))
        sysenter: Any = self.keep(SYSENTER(self._sysenter))
        syscall: Any = self.keep(SYSENTER(self._syscall))
        acknowledge = self.keep(ctypes.CFUNCTYPE(ctypes.c_int)(self._acknowledge))
        self.acknowledge_pointer = ctypes.cast(acknowledge, Pointer)
        self.port_check_pointer = ctypes.cast(self.keep(PORT_CHECK(self._port_allowed)), Pointer)
        if accelerator is not None:
            record.intr = ctypes.cast(intr, Pointer)
            record.gate = ctypes.cast(self.keep(GATE(self._gate)), Pointer)
            record.port_in, record.port_out = ctypes.cast(port_in, Pointer), ctypes.cast(port_out, Pointer)
            intr, invalid = accelerator.function("pv_intr"), accelerator.function("pv_invalid")
            port_in, port_out = accelerator.function("pv_port_in"), accelerator.function("pv_port_out")
            record.python_sysenter = ctypes.cast(sysenter, Pointer)
            sysenter, syscall = accelerator.function("pv_sysenter"), accelerator.function("pv_syscall")
            if block_clock:
                rdtsc = accelerator.function("pv_rdtsc")
        library.hook(handle, const.UC_HOOK_INTR, intr, user)
        library.hook(handle, const.UC_HOOK_INSN_INVALID, invalid, user)
        for callback, instruction in (
            (port_in, x86.UC_X86_INS_IN), (port_out, x86.UC_X86_INS_OUT), (rdtsc, x86.UC_X86_INS_RDTSC),
            (self.keep(INSN(self._cpuid)), x86.UC_X86_INS_CPUID),
            (sysenter, x86.UC_X86_INS_SYSENTER), (syscall, x86.UC_X86_INS_SYSCALL),
        ):
            library.hook(handle, const.UC_HOOK_INSN, callback, user, instruction)
        self._check_ports, self._block_clock = accelerator is None, block_clock

    def close(self) -> None:
        self._kept.clear()

    # ------------------------------------------------------------------ exceptions

    def _intr(self, _uc: int, vector: int, _user: int) -> None:
        state = self._state
        try:
            state.load()
            words = state.words
            words[layout.OLD_EXCEPTION] = 0xFFFFFFFF
            vector &= 0xFF
            eip = state.quads[layout.EIP]
            if (vector == GATE_VECTOR and words[layout.IS_INT] and self.gate_range[0] < eip <= self.gate_range[1]
                    and words[layout.HFLAGS] & layout.HF_CPL != USER_RING):
                if eip < self._record.gate_free:
                    self._engine.charge(GATE_NS)
                self.handlers.gate((eip - self.gate_range[0]) // STUB_BYTES)
                state.store()
                return
            self._engine.count_exception(vector)
            try:
                self.handlers.exception(vector, words[layout.ERROR_CODE], bool(words[layout.IS_INT]))
            finally:
                state.store()
            if self._engine.budget[0] < 0 and self._block_clock:
                self._engine.stop()  # no block hook may come; a count ends its slice by itself
        except BaseException as error:
            self.fail(error)

    def _gate(self, stub: int) -> None:
        """From the C side, so the state is live: nothing to load or store."""
        try:
            self.handlers.gate(stub)
        except BaseException as error:
            self.fail(error)

    def _invalid(self, uc: int, user: int) -> int:
        self._state.load()
        self._state.words[layout.ERROR_CODE] = self._state.words[layout.IS_INT] = 0
        self._state.store()
        self._intr(uc, UD, user)
        return 1

    def _acknowledge(self) -> int:
        try:
            vector = self.handlers.acknowledge()
            if self._live is not None:  # the C side took the request back; another may be waiting
                self._live.interrupt_requested = self._engine.interrupt_pending
            return vector
        except BaseException as error:
            self.fail(error)
            return -1

    # ------------------------------------------------------------------ ports

    def _denied(self, port: int, size: int) -> bool:
        """Without the C side, #GP cannot be raised from here: the instruction runs, and `Engine.run` takes it
        back. A store right behind it in the same block may be done twice; nothing else can be seen."""
        if not self._check_ports:
            return False
        self._state.load()
        if self.denied is None and self.handlers.port_allowed(port, size):
            return False
        if self.denied is None:
            self.denied = bytes(self._state.bytes)
            self._engine.stop()
        return True

    def _port_allowed(self, port: int, size: int) -> int:
        """From the C side, for a port that IOPL refuses."""
        try:
            return self.handlers.port_allowed(port, size)
        except BaseException as error:
            self.fail(error)
            return 0

    def _in(self, _uc: int, port: int, size: int, _user: int) -> int:
        try:
            return 0 if self._denied(port, size) else self.handlers.port_in(port, size)
        except BaseException as error:
            self.fail(error)
            return 0

    def _out(self, _uc: int, port: int, size: int, value: int, _user: int) -> None:
        try:
            if not self._denied(port, size):
                self.handlers.port_out(port, size, value)
        except BaseException as error:
            self.fail(error)

    # ------------------------------------------------------------------ instructions

    def _cpuid(self, _uc: int, _user: int) -> int:
        state = self._state
        try:
            state.load()
            quads = state.quads
            a, b, c, d = self.handlers.cpuid(quads[layout.EAX] & 0xFFFFFFFF, quads[layout.ECX] & 0xFFFFFFFF)
            quads[layout.EAX], quads[layout.EBX], quads[layout.ECX], quads[layout.EDX] = a, b, c, d
            state.store()
        except BaseException as error:
            self.fail(error)
        return 1

    def _rdtsc(self, _uc: int, _user: int) -> int:
        state = self._state
        state.load()
        self._engine.charge(RDTSC_NS)
        now = self._engine.now() + self._record.tsc_offset
        state.quads[layout.EAX], state.quads[layout.EDX] = now & 0xFFFFFFFF, now >> 32 & 0xFFFFFFFF
        state.store()
        return 1

    def _sysenter(self, _uc: int, _user: int) -> None:
        state = self._state
        try:
            state.load()
            self.handlers.sysenter()
            # libunicorn goes on behind the instruction, wherever EIP points to by then.
            state.quads[layout.EIP] = (state.quads[layout.EIP] - SYSENTER_BYTES) & 0xFFFFFFFF
            state.store()
        except BaseException as error:
            self.fail(error)

    def _syscall(self, uc: int, user: int) -> None:
        """An instruction that this CPU has not, and libunicorn goes on behind."""
        self._invalid(uc, user)
        self._state.load()
        self._state.quads[layout.EIP] = (self._state.quads[layout.EIP] - SYSENTER_BYTES) & 0xFFFFFFFF
        self._state.store()

    # ------------------------------------------------------------------ memory-mapped I/O

    def _mmio_read(self, _uc: int, offset: int, size: int, _user: int) -> int:
        try:
            return self.handlers.mmio_read(self._ram_size + offset, size)
        except BaseException as error:
            self.fail(error)
            return 0

    def _mmio_write(self, _uc: int, offset: int, size: int, value: int, _user: int) -> None:
        try:
            self.handlers.mmio_write(self._ram_size + offset, size, value)
        except BaseException as error:
            self.fail(error)
