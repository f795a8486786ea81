"""A Linux kernel that has panicked spins for ever, unless it was told to reboot: the run ends there and says why.

Ref: Linux 2.6.32 kernel/panic.c (panic: prints, then loops; panic_timeout), lib/vsprintf.c.
"""

from __future__ import annotations

import re

from paravirt.errors import GuestFault, printable
from paravirt.guest import Guest
from paravirt.machine.outcome import End
from paravirt.machine.stubs import call_at

LOOK_NS = 10_000_000
QUIET_NS = 20_000_000  # without output: a line of a slow serial port takes less
MAX_TEXT = 300
ESCAPE = re.compile(rb"%[-+ #0]*(\d*)(?:\.\d+)?(?:hh|h|ll|l|z)?([sdiuxXpc%])")


def watch_panic(guest: Guest) -> None:
    """End the run when the kernel has panicked, has printed what it has to say, and does not reboot.

    Nothing is done for a kernel without the symbols.
    """
    symbols = guest.kernel.symbols
    panic, timeout = symbols.address("panic"), symbols.address("panic_timeout")
    if guest.kernel.note is None and panic is not None and timeout is not None:
        call_at(guest.machine.engine, panic, _Panic(guest, timeout).entered)


class _Panic:
    def __init__(self, guest: Guest, timeout: int) -> None:
        self._guest, self._machine, self._timeout = guest, guest.machine, timeout
        self._message: str | None = None

    def entered(self) -> None:
        vcpu = self._machine.vcpu
        if self._message is not None:
            return
        try:
            if vcpu.read_u32(self._timeout):
                return  # it will reboot
            self._message = self._text()
        except GuestFault:
            self._message = "no message"
        self._later()

    def _later(self) -> None:
        self._machine.timeline.call_at(self._machine.engine.now() + LOOK_NS, self._look)

    def _look(self) -> None:
        if self._machine.engine.now() - self._machine.last_activity < QUIET_NS:
            self._later()
        else:
            self._machine.end(End.CRASH, f"kernel panic: {self._message}; the kernel spins and will not go on")

    def _text(self) -> str:
        """The message: a format in the first stack argument, its values behind it."""
        vcpu = self._machine.vcpu
        at = vcpu.esp + 4
        form = vcpu.read_cstring(vcpu.read_u32(at), MAX_TEXT)

        def value(found: re.Match[bytes]) -> bytes:
            nonlocal at
            kind = found[2]
            if kind == b"%":
                return b"%"
            at += 4
            word = vcpu.read_u32(at)
            if kind == b"s":
                return vcpu.read_cstring(word, MAX_TEXT)
            if kind in b"di":
                word -= (word & 0x80000000) << 1
            return f"{word:x}".encode() if kind in b"xXp" else str(word).encode()

        return printable(ESCAPE.sub(value, form).strip(), MAX_TEXT)
