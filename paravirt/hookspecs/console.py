# mypy: disable-error-code=empty-body
"""Ops of console_ops: the characters of the reference kernel's console.

Linux has no such table; it registers a console driver. The reference kernel prints through these slots, so
that one image speaks to a serial port on one platform and to a shared ring on another.

Ref: Linux 2.6.23, include/linux/console.h (struct console, write) for the meaning of the arguments.
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import S32, U32, GuestAddr


@op(table="console_ops", prototype="void (*console_write)(const char *s, u32 length)")
def console_write(s: GuestAddr, length: U32) -> None:
    """Write to the console.

    Afterwards the platform has all bytes, in order; the op waits while the platform is busy and does not change
    the interrupt flag. It may be called with interrupts off, before init_IRQ and while the kernel panics. Called
    by printk and by the write system call.

    :param s: the bytes; no zero byte ends them.
    :param length: how many.
    """


@op(table="console_ops", prototype="int (*console_read)(char *buf, u32 length)")
def console_read(buf: GuestAddr, length: U32) -> S32:
    """Read what has been typed, without waiting.

    Afterwards the bytes are in the buffer and taken from the platform. Called by the read system call and by
    the console's interrupt.

    :param buf: where to put the bytes.
    :param length: room in the buffer.
    :returns: bytes read, 0 when there are none.
    """
