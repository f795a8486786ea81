"""The two-level ABI of event channels: bits in shared_info, words of them in the vcpu_info.

A port has a pending and a mask bit in shared_info. A selector word and two flags in the vcpu_info tell the guest where
to look. Events are edges: what is pending already changes nothing.

Ref: Xen public/xen.h (struct shared_info, vcpu_info); common/event_2l.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paravirt_xen.platform.abi import EVTCHN_PENDING, PENDING_SEL
from paravirt_xen.platform.channels import ANY_PORT
from paravirt_xen.platform.errors import ENOSYS, HypercallError

if TYPE_CHECKING:
    from paravirt_xen.platform.events import Events

PAGE_WORDS = 1024


class TwoLevel:
    """The bits of one domain's ports."""

    def __init__(self, events: Events) -> None:
        self._events, self._domain = events, events.domain
        self._ram, self._words = self._domain.ram, self._domain.ram.words
        self._pending_word = (self._domain.shared + EVTCHN_PENDING) >> 2

    def opened(self, port: int) -> None:
        """A port is somebody's now."""

    def busy(self, port: int) -> bool:
        """Whether a free port cannot be given out yet."""
        return False

    def is_pending(self, port: int) -> bool:
        return bool(self._words[self._pending_word + (port >> 5)] >> (port & 31) & 1)

    def is_masked(self, port: int) -> bool:
        return bool(self._words[self._pending_word + 32 + (port >> 5)] >> (port & 31) & 1)

    def set_pending(self, port: int) -> None:
        """An event has come: no more than a bit, so nothing if the guest has not taken the last one."""
        words, bit, events = self._words, 1 << (port & 31), self._events
        index = self._pending_word + (port >> 5)
        word = words[index]
        if word & bit:
            return
        words[index] = word | bit
        info, wakes = self._domain.vcpu_info >> 2, False
        if not words[index + 32] & bit:
            selected, bit = words[info + 1], 1 << (port >> 5)  # evtchn_pending_sel
            if not selected & bit:
                words[info + 1] = selected | bit
                flags = words[info]
                if not flags & 0xFF:
                    words[info] = flags | 1
                    wakes = True
        code = self._ram.code_pages
        if code is None or code[index // PAGE_WORDS] or code[info // PAGE_WORDS]:
            self._ram.on_write(4 * index, 4 * index + 4)
            self._ram.on_write(4 * info, 4 * info + 8)
        if wakes or (events.polled and events.polled in (port, ANY_PORT)):
            events.kick()

    def clear_pending(self, port: int) -> None:
        index = self._pending_word + (port >> 5)
        self._ram.write_u32(4 * index, self._words[index] & ~(1 << (port & 31)))

    def unmask(self, port: int) -> None:
        """Clear a port's mask, and show the event that it has hidden."""
        index, bit = self._pending_word + 32 + (port >> 5), 1 << (port & 31)
        word = self._words[index]
        if word & bit:
            self._ram.write_u32(4 * index, word & ~bit)
            if self.is_pending(port):
                self._select(port)

    def _select(self, port: int) -> None:
        at = self._domain.vcpu_info
        selected, bit = self._words[(at + PENDING_SEL) >> 2], 1 << (port >> 5)
        if not selected & bit:
            self._ram.write_u32(at + PENDING_SEL, selected | bit)
            self._events.mark_pending()

    def set_priority(self, port: int, priority: int) -> None:
        """:raises HypercallError: ENOSYS."""
        raise HypercallError(ENOSYS, "only the FIFO ABI has priorities")

    def state(self) -> list[tuple[int, ...]]:
        """What is not in the guest's memory."""
        return []

    def frames(self) -> list[int]:
        """The guest's frames that the bits are in."""
        return []

    def destroy(self) -> None:
        """Another ABI takes its place."""
