"""The part of the monitor that runs in C: delivery with the guest's flag, SYSENTER, ports of the kernel, hot calls.

Everything else is asked for in Python (`Traps.ask`), and without the library everything is: exit table and library
give the same results.

Ref: platform/vmi.c (struct vmi).
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

from paravirt.api import Exit, ExitTable, Kind, PlatformCode, idt
from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import ROM_BYTES
from paravirt_vmi.platform.monitor import Monitor
from paravirt_vmi.platform.traps import Traps
from paravirt_vmi.rom import ATTENTION

LIBRARY = Path(__file__).resolve().parent.parent / "platform.so"
MAX_CALLS, NO_TRAP, ATTENTION_BYTE = 80, 0xFF, 0xFE


class State(ctypes.Structure):
    """``struct vmi`` of vmi.c."""

    _fields_ = (
        ("page", ctypes.c_void_p), ("base", ctypes.c_uint32), ("active", ctypes.c_uint32), ("iopl", ctypes.c_uint32),
        ("ask", ctypes.c_void_p), ("update_cr0", ctypes.c_void_p), ("update_cr3", ctypes.c_void_p),
        ("flush_page", ctypes.c_void_p), ("frames", ctypes.c_void_p),
        ("counts", ctypes.c_uint64 * MAX_CALLS), ("attentions", ctypes.c_uint64), ("flushes", ctypes.c_uint64),
        ("deferred", ctypes.c_uint64),
        ("traps", ctypes.c_uint8 * ROM_BYTES),
    )


class NativeSide:
    """The library, if this engine can have it."""

    def __init__(self, monitor: Monitor, traps: Traps) -> None:
        self._monitor, self._traps = monitor, traps
        self._state = State()
        try:
            self._code: PlatformCode | None = PlatformCode(monitor.machine.engine, LIBRARY, self._state)
        except PlatformCode.Unavailable:
            self._code = None  # the record's seams say why

    def exit_table(self, table: ExitTable) -> ExitTable:
        """With the library it is C that gives interrupts to the guest's IDT."""
        return table if self._code is None else {**table, Exit(Kind.INTERRUPT): idt.interrupt}

    def attach(self) -> None:
        code, state, m = self._code, self._state, self._monitor
        if code is None:
            return
        state.page = m.ram.address + m.page_at
        state.update_cr0, state.update_cr3 = code.unicorn("cpu_x86_update_cr0"), code.unicorn("cpu_x86_update_cr3")
        state.flush_page, state.frames = code.unicorn("tlb_flush_page"), ctypes.addressof(m.frames)
        ctypes.memset(state.traps, NO_TRAP, ROM_BYTES)
        for offset, call in m.rom.traps.items():
            state.traps[offset] = ATTENTION_BYTE if call == ATTENTION else call
        state.ask = code.callback(ctypes.c_int, (ctypes.c_uint32, ctypes.c_int),
                                  lambda vector, software: self._traps.ask(vector, bool(software)), 1)
        m.on_change.append(self._copy)

    def _copy(self) -> None:
        state, m = self._state, self._monitor
        state.base, state.active, state.iopl = m.base, m.active, m.iopl

    def counts(self) -> Mapping[str, int]:
        """What was answered in C."""
        found = {f"vmi.trap.{call.name}": self._state.counts[call.number] for call in CALLS}
        found |= {"vmi.attention": self._state.attentions, "vmi.queue_flushes": self._state.flushes,
                  "vmi.deferred": self._state.deferred}
        return {name: count for name, count in found.items() if count}
