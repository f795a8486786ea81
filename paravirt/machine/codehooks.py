"""Callbacks at instructions: counting them, and looking at the guest there.

Ref: Unicorn 2.1.4 include/unicorn/unicorn.h (UC_HOOK_CODE). A hook costs a call at each instruction of its range, and
nothing elsewhere.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from paravirt.machine.callbacks import Callbacks
from paravirt.machine.library import CODE, Library, const
from paravirt.machine.seams import Seams


class CodeHooks:
    """Those of one engine."""

    def __init__(self, library: Library, handle: int, callbacks: Callbacks, seams: Seams) -> None:
        self._library, self._handle, self._callbacks, self._seams = library, handle, callbacks, seams
        self._counters: dict[int, ctypes.c_uint64] = {}

    def hook(self, callback: Any, begin: int, end: int, user: int | None = None) -> None:
        """Have `callback` (a C function's address, or a `library.CODE`) called before each instruction that begins
        at a virtual address from `begin` to `end`."""
        kept = self._callbacks.keep(callback)
        self._library.hook(self._handle, const.UC_HOOK_CODE, kept, user, begin=begin, end=end)

    def count_at(self, address: int) -> None:
        """Count how often the instruction at virtual `address` begins; see `counted`."""
        if address in self._counters:
            return
        counter = self._counters[address] = ctypes.c_uint64()
        accelerator = self._seams.accelerator
        if accelerator is not None:
            callback: Any = accelerator.function("pv_count")
        else:
            def count(_uc: int, _address: int, _size: int, _user: int) -> None:
                counter.value += 1

            callback = CODE(count)
        self.hook(callback, address, address, ctypes.addressof(counter))

    def counted(self, address: int) -> int:
        """How often since `count_at`."""
        return self._counters[address].value

    def on(self, address: int, seen: Callable[[], None]) -> None:
        """Call `seen` each time the instruction at virtual `address` is about to run. It may look, not change."""
        callbacks, state = self._callbacks, self._seams.state

        def look(_uc: int, _address: int, _size: int, _user: int) -> None:
            state.load()
            try:
                seen()
            except BaseException as error:
                callbacks.fail(error)

        self.hook(CODE(look), address, address)
