"""The FIFO ABI of event channels, which came with Xen 4.4: queues of events, sixteen of them by priority.

The guest gives pages for an array with a word a port, and a control block: which queues have something, and the first
port of each. A word has the flags PENDING, MASKED and LINKED, and the next port of its queue. The guest takes a port
out of the queue by clearing LINKED; the hypervisor hooks one in behind the last, or makes it the head if the guest has
taken the last one.

There are no more ports than with the other ABI, for a toolstack gives a domain 1023.

Ref: Xen public/event_channel.h (EVTCHN_FIFO_*); common/event_fifo.c. One vcpu, so nobody writes at the same time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt_xen.platform.channels import ANY_PORT, State
from paravirt_xen.platform.errors import EINVAL, ENOSPC, HypercallError
from paravirt_xen.platform.layout import PAGE
from paravirt_xen.platform.vcpuop import hold_writable

if TYPE_CHECKING:
    from paravirt_xen.platform.events import Events

PENDING, MASKED, LINKED, BUSY = 1 << 31, 1 << 30, 1 << 29, 1 << 28
LINK_BITS = 17
LINK = (1 << LINK_BITS) - 1
QUEUES, DEFAULT_PRIORITY = 16, 7
CONTROL_BLOCK = 72  # bytes: ready, reserved, head[QUEUES]
HEADS = 8
PAGE_WORDS = PAGE // 4
MAX_PAGES = (1 << LINK_BITS) // PAGE_WORDS


class Fifo:
    """The queues of one domain.

    :param mfn: frame of the control block. :param offset: where it is in there.
    :raises HypercallError: EINVAL: the frame is none that the guest may write.
    """

    def __init__(self, events: Events, mfn: int, offset: int) -> None:
        self._events, self._domain = events, events.domain
        self._ram, self._words = self._domain.ram, self._domain.ram.words
        hold_writable(self._domain, mfn)
        self._control, self._control_mfn = mfn * PAGE + offset, mfn
        self._pages: list[int] = []
        self._tails = [0] * QUEUES
        self._priorities: dict[int, int] = {}
        self._last: dict[int, int] = {}  # the queue that a port was in last
        # What came before its page was there, or still stands in the bits of the other ABI.
        self._waiting = {port for port, channel in enumerate(events.channels)
                         if channel.state is not State.RESERVED and events.bits.is_pending(port)}

    def expand(self, mfn: int) -> None:
        """Another page of words. :raises HypercallError: EINVAL, ENOSPC."""
        if len(self._pages) == MAX_PAGES:
            raise HypercallError(ENOSPC, "there are words for all ports")
        hold_writable(self._domain, mfn)
        self._pages.append(mfn)
        for port in sorted(self._waiting):
            if port < len(self._events.channels) and self._word(port) is not None:
                self._waiting.discard(port)
                self.set_pending(port)

    def _word(self, port: int) -> int | None:
        """Index, in words of RAM, of a port's word; None: the guest has given no page for it."""
        page, index = divmod(port, PAGE_WORDS)
        return self._pages[page] * PAGE_WORDS + index if page < len(self._pages) else None

    def _flag(self, port: int, flag: int) -> bool:
        at = self._word(port)
        return at is not None and bool(self._words[at] & flag)

    def _store(self, at: int, value: int) -> None:
        self._ram.write_u32(4 * at, value)

    # ------------------------------------------------------------------ as twolevel.py

    def opened(self, port: int) -> None:
        """A port is somebody's now."""
        self._priorities.pop(port, None)

    def busy(self, port: int) -> bool:
        """Whether a free port cannot be given out yet: it is in a queue."""
        return self._flag(port, LINKED)

    def is_pending(self, port: int) -> bool:
        return self._flag(port, PENDING)

    def is_masked(self, port: int) -> bool:
        return self._word(port) is None or self._flag(port, MASKED)

    def set_pending(self, port: int) -> None:
        """An event has come: into the port's queue, unless it is masked or there already."""
        at = self._word(port)
        if at is None:
            self._waiting.add(port)
            return
        word, events = self._words[at], self._events
        links = not word & (MASKED | LINKED)
        self._store(at, word | PENDING | (LINKED if links else 0))
        if links:
            self._link(port)
        if not word & PENDING and events.polled and events.polled in (port, ANY_PORT):
            events.kick()

    def _link(self, port: int) -> None:
        queue = self._priorities.get(port, DEFAULT_PRIORITY)
        last = self._last.get(port, 0)
        if self._tails[last] == port:
            self._tails[last] = 0  # the guest has taken it out, and that queue is empty
        self._last[port] = queue
        tail, self._tails[queue] = self._tails[queue], port
        at = self._word(tail) if tail else None
        if at is not None and self._words[at] & LINKED:
            self._store(at, self._words[at] & ~(BUSY | LINK) | port)
            return
        self._store((self._control + HEADS >> 2) + queue, port)
        ready = self._words[self._control >> 2]
        if not ready >> queue & 1:
            self._store(self._control >> 2, ready | 1 << queue)
            self._events.mark_pending()

    def clear_pending(self, port: int) -> None:
        """It stays in its queue: the guest takes out what is not pending, and goes on."""
        self._waiting.discard(port)
        at = self._word(port)
        if at is not None:
            self._store(at, self._words[at] & ~PENDING)

    def unmask(self, port: int) -> None:
        """Clear a port's mask, and show the event that it has hidden."""
        at = self._word(port)
        if at is not None:
            self._store(at, self._words[at] & ~MASKED)
            if self._words[at] & PENDING:
                self.set_pending(port)

    def set_priority(self, port: int, priority: int) -> None:
        """Which queue later events of a port go into, 0 first. :raises HypercallError: EINVAL."""
        if priority >= QUEUES:
            raise HypercallError(EINVAL, f"priority {priority}")
        self._priorities[port] = priority

    def state(self) -> list[tuple[int, ...]]:
        """What is not in the guest's memory."""
        return [(self._control, *self._pages), tuple(self._tails), tuple(sorted(self._waiting)),
                *sorted(self._priorities.items()), *sorted(self._last.items())]

    def frames(self) -> list[int]:
        """The guest's frames that the queues are in."""
        return [self._control_mfn, *self._pages]

    def destroy(self) -> None:
        """Give the guest's frames back."""
        for mfn in self.frames():
            self._domain.frames.put_type(mfn)
