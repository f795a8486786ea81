"""The domain's console: the ring that xenconsoled would serve, and console_io.

What the guest sends through the ring is taken out as soon as it says so, and whenever it yields, since a guest may
spin until the ring is empty. Input waits outside while the ring is full. console_io is the hypervisor's own log,
which a debug build of Xen lets a domU write to; it goes to the same place, as the only console that small kernels use.
Test kernels write the same to both: it is shown once.

Ref: Xen public/io/console.h, public/xen.h (CONSOLEIO_*); drivers/char/console.c (do_console_io), xsm/dummy.h.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from paravirt_xen.platform.errors import ENOSYS, EPERM, HypercallError, Preempted
from paravirt_xen.platform.layout import PAGE
from paravirt_xen.platform.rings import Ring, RingFault

if TYPE_CHECKING:
    from paravirt_xen.platform.domain import Domain

CONSOLEIO_WRITE, CONSOLEIO_READ = 0, 1
IN, IN_BYTES, OUT, OUT_BYTES = 0, 1024, 1024, 2048
IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = 3072, 3076, 3080, 3084
KEPT = 1 << 14  # bytes of output that the other way may still bring
WRITE_AT_ONCE = 16 * PAGE  # of one console_io; the rest when the guest has had a chance to be stopped


class Mirror:
    """What came through two ways, told apart from what came through one: the same text, right behind each other.

    Carriage returns do not count: a console that is a terminal wants them, a log does not.
    """

    def __init__(self) -> None:
        self._only = {True: b"", False: b""}  # by way, what only it has brought since the other one's last

    def new(self, ring: bool, data: bytes) -> bytes:
        """What of `data` has not just come the other way.

        :param ring: it came through the ring, not by console_io.
        """
        text, other = data.replace(b"\r", b""), self._only[not ring]
        same = len(text) if other.startswith(text) else len(other) if text.startswith(other) else 0
        if not text:
            return data
        self._only[not ring] = other[same:] if same else b""
        if same == len(text):
            return b""
        self._only[ring] = (text[same:] if same else self._only[ring] + text)[-KEPT:]
        at = 0
        while same:  # the place in the data that is so far in the text
            same -= data[at : at + 1] != b"\r"
            at += 1
        return data[at:]


class ConsoleRing:
    """The backend of a domain's console.

    :param mfn: frame of the ring's page, None: the domain has none.
    """

    def __init__(self, domain: Domain, mfn: int | None) -> None:
        self.domain = domain
        self._waiting = bytearray()
        self._mirror = Mirror()
        self._rings: tuple[Ring, Ring] | None = None
        if mfn is not None:
            base, ram = mfn * PAGE, domain.ram
            self._rings = (
                Ring(ram, "the console's input ring", base + IN, IN_BYTES, base + IN_CONS, base + IN_PROD),
                Ring(ram, "the console's output ring", base + OUT, OUT_BYTES, base + OUT_CONS, base + OUT_PROD))
            self.backend = domain.events.add_backend(self._notified)
        domain.guest.console.connect(self.receive)

    def state(self) -> bytes:
        """Input that the guest has not got."""
        return bytes(self._waiting)

    def _notified(self) -> None:
        """The guest sent an event: it has written output, or taken input out.

        :raises GuestExit: the indices are out of range.
        """
        try:
            self._serve()
        except RingFault as fault:
            self.domain.crash(str(fault))

    def drain(self) -> None:
        """Take output that the guest has not announced. A page that holds no ring any more is left alone."""
        with contextlib.suppress(RingFault):
            self._serve()

    def receive(self, data: bytes) -> None:
        """Input from the host, as much as it likes."""
        self._waiting += data
        self.drain()

    def show(self, data: bytes, *, ring: bool) -> None:
        """Print what the guest has written, unless it has just come the other way."""
        data = self._mirror.new(ring, data)
        if data:
            self.domain.guest.console.write(data)

    def _serve(self) -> None:
        if self._rings is None:
            return
        to_guest, from_guest = self._rings
        output = from_guest.read(OUT_BYTES)
        if output:
            self.show(output, ring=True)
        given = to_guest.write(bytes(self._waiting[:IN_BYTES])) if self._waiting else 0
        if given:
            del self._waiting[:given]
        if output or given:
            self.domain.events.notify(self.backend)


def console_io(domain: Domain, command: int, count: int, buffer: int) -> int:
    if command == CONSOLEIO_READ:
        raise HypercallError(EPERM, "for the hardware domain")
    if command != CONSOLEIO_WRITE:
        raise HypercallError(ENOSYS, f"console_io {command}")
    part = min(count, WRITE_AT_ONCE)
    while part:  # page by page: what lies before a hole is written, as Xen does
        span = min(part, PAGE - (buffer & PAGE - 1))
        domain.console.show(domain.read(buffer, span), ring=False)
        buffer, count, part = buffer + span & 0xFFFFFFFF, count - span, part - span
    if count:
        raise Preempted(command, count, buffer)
    return 0
