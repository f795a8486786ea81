"""Registers of devices that C may answer: the accesses that a kernel makes ten thousand times.

A device is Python. Where the next access can do nothing but what is foreseen (the line status is read again, one
more byte is sent, a counter is read on), it says so in one of these records, and accel/shortcuts.c answers in its
place. Everything else, and everything on an engine without the seam "ports", asks the device; either way the guest,
the counts and virtual time are the same.

Ref: accel/machine.h, which has the same records.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from paravirt.machine.vcpu import Vcpu

LINE_BYTES = 1024


class SerialLine(ctypes.Structure):
    """``struct serial_line``: what a 16550 lets C do.

    `plain`: a byte written to the data register changes nothing but the output. `status`: what the line status
    reads; 0: ask. `polls`: reads of it since something was written; the one that makes it `patience` is the
    device's. `bytes[:sent]`: what was sent and has not gone out, the last of it at `sent_at` (virtual ns). `emptied`:
    C has sent of it, which the device has not noticed.
    """

    _fields_ = (
        ("plain", ctypes.c_uint64), ("status", ctypes.c_uint64), ("polls", ctypes.c_uint64),
        ("patience", ctypes.c_uint64), ("sent", ctypes.c_uint64), ("sent_at", ctypes.c_int64),
        ("emptied", ctypes.c_uint64), ("bytes", ctypes.c_uint8 * LINE_BYTES),
    )
    plain: int
    status: int
    polls: int
    patience: int
    sent: int
    sent_at: int
    emptied: int
    bytes: ctypes.Array[ctypes.c_uint8]


class Countdown(ctypes.Structure):
    """``struct countdown``: an 8254's counter whose two bytes are read in turn.

    `running`: it counts down in binary from `count`, nothing is latched, and nothing but time changes it; `start`:
    the tick that loaded it; `periodic`: it begins again at the end, and else it goes through 0; `high_next`: the
    next read gives the high byte.
    """

    _fields_ = (
        ("running", ctypes.c_uint64), ("periodic", ctypes.c_uint64), ("start", ctypes.c_int64),
        ("count", ctypes.c_int64), ("high_next", ctypes.c_uint64),
    )
    running: int
    periodic: int
    start: int
    count: int
    high_next: int


class Latch(ctypes.Structure):
    """``struct latch``: a register that gives back the byte that was written, and does nothing else."""

    _fields_ = (("value", ctypes.c_uint64),)
    value: int


class PortShortcuts(NamedTuple):
    """Whose registers they are, and where.

    :ivar line_port: the serial port's first; :ivar counter_port: that of the timer's first counter; :ivar post: the
        POST code, which kernels write to lose a microsecond.
    """

    line: SerialLine
    line_port: int
    counters: tuple[Countdown, Countdown, Countdown]
    counter_port: int
    post: Latch
    post_port: int


def port_in(vcpu: Vcpu, port: int, size: int) -> int:
    """IN that reaches the bus as it is. A platform with this and `port_out` in its exit table has the shortcuts."""
    return vcpu.machine.ports.read(port, size)


def port_out(vcpu: Vcpu, port: int, size: int, value: int) -> None:
    """OUT that reaches the bus as it is."""
    vcpu.machine.ports.write(port, size, value)
