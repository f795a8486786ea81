"""Stubs as the machine knows them: counted ones, those of host functions, and moments to be told of.

Ref: Unicorn 2.1.4 include/unicorn/unicorn.h (uc_cb_hookcode_t, UC_HOOK_CODE with bounds).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from paravirt.machine import accel
from paravirt.machine.library import CODE, LEAF, Pointer

if TYPE_CHECKING:
    from paravirt.machine.engine import Engine

STUB_BYTES = 8


class StubCounter:
    """Counts how often each of `number` stubs is run: 8 bytes each from virtual address `base`, one jump in each.

    The jump's instruction is given back, so that neither instructions nor time tell that it was there.
    """

    def __init__(self, engine: Engine, base: int, number: int) -> None:
        class Stubs(ctypes.Structure):
            """``struct stubs`` of accel/stubs.c."""

            _fields_ = (("machine", Pointer), ("base", ctypes.c_uint64), ("counts", ctypes.c_uint64 * number))

        self._stubs = stubs = Stubs(ctypes.addressof(engine.record), base)
        accelerator = engine.seams.accelerator
        if accelerator is not None:
            engine.code.hook(accelerator.function("pv_stub"), base, base + STUB_BYTES * number - 1,
                             ctypes.addressof(stubs))
            return

        def count(_uc: int, address: int, _size: int, _user: int) -> None:
            stubs.counts[(address - base) // STUB_BYTES] += 1
            engine.refund(1)

        engine.code.hook(CODE(count), base, base + STUB_BYTES * number - 1)

    def step_over(self, address: int) -> None:
        """Count the stub at `address`, which is not run."""
        self._stubs.counts[(address - self._stubs.base) // STUB_BYTES] += 1

    def counts(self) -> list[int]:
        """So far, by stub."""
        return list(self._stubs.counts)


def call_at(engine: Engine, address: int, function: Callable[[], None]) -> None:
    """Have `function` called each time the instruction at virtual `address` is about to run.

    It may look at registers and memory and write memory. What it raises ends the run.
    """

    def reached(_uc: int, _address: int, _size: int, _user: int) -> None:
        try:
            engine.state.load()
            function()
        except BaseException as error:
            engine.fail(error)

    engine.code.hook(CODE(reached), address, address)


Leaf = Callable[[int, int, int, int], int]


def host_leaves(engine: Engine, leaves: Mapping[int, tuple[Leaf, int]]) -> None:
    """Let stubs of the gate page call a function at once, with EAX, EDX, ECX and ESP.

    So many words of what it returns go to EDX:EAX. It must not raise; one that has changed the registers itself says
    so by `leaf_changed`. Without the C side this does nothing, and `Handlers.gate` is asked as for all other stubs.
    """
    if engine.seams.accelerator is None:
        return
    table = (accel.NativeLeaf * (accel.STUBS + 1))()
    for stub, (function, words) in leaves.items():
        table[stub] = accel.NativeLeaf(ctypes.cast(engine.keep(LEAF(function)), Pointer), words)
    engine.record.leaves = ctypes.addressof(engine.keep(table))


def leaf_changed(engine: Engine) -> None:
    """The registers are as they should be: nothing of what the leaf returns is to be stored."""
    engine.record.leaf_failed = 1
