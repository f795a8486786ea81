"""Frames that nobody has: what the domain has given back, and a little spare room.

Ref: Xen common/page_alloc.c (alloc_domheap_pages, free_domheap_pages). The lowest frames that fit are given out, so
that it is the same in every run.
"""

from __future__ import annotations

from paravirt_xen.platform.errors import ENOMEM
from paravirt_xen.platform.frames import Frames

NOT = bytes((1,)) + bytes(255)


class Pool:
    """
    :param first: from here on, frames that nobody has at the start are free.
    :ivar pages: what the domain has now; it may have `limit`.
    """

    def __init__(self, frames: Frames, first: int, limit: int) -> None:
        self._frames, self.limit, self.pages = frames, limit, limit
        self._free = bytearray(first) + frames.owners[first:].translate(NOT)
        frames.on_free = self._freed

    def _freed(self, mfn: int) -> None:
        self._free[mfn] = 1
        self.pages -= 1

    def find(self, order: int, below: int) -> int | None:
        """2 ** order free frames, aligned, none of them `below` or above; they are no longer free."""
        count, at = 1 << order, 0
        run = b"\1" * count
        while True:
            at = self._free.find(run, at, below)
            if at < 0:
                return None
            if not at & count - 1:
                self._free[at : at + count] = bytes(count)
                return at
            at = (at | count - 1) + 1

    def put_back(self, mfn: int, order: int) -> None:
        """What `find` has found is not needed."""
        self._free[mfn : mfn + (1 << order)] = b"\1" * (1 << order)

    def give(self, mfn: int, order: int) -> None:
        """The domain gets what `find` has found."""
        self._frames.adopt(range(mfn, mfn + (1 << order)))
        self.pages += 1 << order

    def allocate(self, order: int, below: int) -> int:
        """Frames for the domain, within its limit; returns the first one, or -ENOMEM."""
        if self.pages + (1 << order) > self.limit:
            return -ENOMEM
        mfn = self.find(order, below)
        if mfn is None:
            return -ENOMEM
        self.give(mfn, order)
        return mfn
