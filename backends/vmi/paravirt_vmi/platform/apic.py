"""The local APIC as its calls see it: by offset of the register, whether there is one or not.

Where there is none, reads give all ones and writes are dropped, as they do by memory.

Ref: Intel SDM vol. 3A, 10.4 (local APIC register map).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt.api import LocalApic, cpuid

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

BASE, OFFSET_MASK, APIC_BYTES = 0xFEE00000, 0xFFF, 0x1000
CPUID_APIC = 1 << 9  # leaf 1, EDX


def write(m: Monitor, register: int, value: int) -> None:
    m.machine.mmio.write(BASE + (register & OFFSET_MASK & ~3), 4, value)


def read(m: Monitor, register: int) -> int:
    return m.machine.mmio.read(BASE + (register & OFFSET_MASK & ~3), 4)


def raise_timer(m: Monitor) -> None:
    """An alarm by LVTT. Without a local APIC there is none, and the alarm is lost."""
    if m.lapic is not None:
        m.lapic.timer_entry()


def attach(m: Monitor) -> None:
    """Put a local APIC on the machine, behind the board: the 8259's output goes through it."""
    machine, board = m.machine, m.board
    m.lapic = lapic = LocalApic(machine.timeline, m.intr, board.acknowledge)
    machine.mmio.claim(BASE, APIC_BYTES, lapic, "local APIC")
    machine.acknowledge = lapic.acknowledge
    machine.device_state = lambda: {**board.state(), "lapic": lapic.state()}


def cpuid_leaf(m: Monitor, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """The machine's CPUID; the APIC bit shows where there is one."""
    a, b, c, d = cpuid.cpuid(leaf, subleaf)
    return a, b, c, d | (CPUID_APIC if leaf == 1 and m.lapic is not None else 0)
