"""The local APIC as its calls see it: by offset of the register, whether there is one or not.

Where there is none, reads give all ones and writes are dropped, as they do by memory.

Ref: Intel SDM vol. 3A, 10.4 (local APIC register map).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paravirt_vmi.platform.monitor import Monitor

BASE, OFFSET_MASK = 0xFEE00000, 0xFFF


def write(m: Monitor, register: int, value: int) -> None:
    m.machine.mmio.write(BASE + (register & OFFSET_MASK & ~3), 4, value)


def read(m: Monitor, register: int) -> int:
    return m.machine.mmio.read(BASE + (register & OFFSET_MASK & ~3), 4)


def raise_timer(m: Monitor) -> None:
    """Without a local APIC there is no LVTT, and the alarm is lost."""
