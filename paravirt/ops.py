"""The bound op table as Python calls it: ``ops.irq_disable()`` is a plain call, whatever form the op has.

Guest code runs on the vcpu, in the guest's address space and on its stack; a host function is called
directly. Both leave the machine as the kernel's own call would.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from paravirt.binding import NULL_SLOT, Slot, where_form
from paravirt.calls import Calls
from paravirt.counters import OpCounters
from paravirt.errors import BackendError, GuestFault, close_match
from paravirt.forms import GuestAddress, GuestCode
from paravirt.link import LinkedCode
from paravirt.machine.outcome import GuestExit, crash
from paravirt.steps import Steps


class Ops:
    """:param slots: by op name, placed in the guest."""

    def __init__(self, slots: Mapping[str, Slot], calls: Calls, steps: Steps, counters: OpCounters) -> None:
        self.slots = slots
        self.linked = LinkedCode()
        self.write_slot: Callable[[str, int], None] = lambda name, address: None
        self.patched = False
        self._calls, self._steps, self.counters = calls, steps, counters
        self._wrapped: dict[object, list[tuple[int, ...]]] = {}

    def __getattr__(self, name: str) -> Callable[..., int]:
        slot = self.slots.get(name)
        if slot is None or name.startswith("_"):
            raise AttributeError(f"no op {name!r}{close_match(name, self.slots)}")

        def op(*arguments: int) -> int:
            with self._steps.step(name, name, slot.where, slot.kind):
                return self.run(slot, arguments)

        return op

    def step(self, name: str, where: str) -> AbstractContextManager[None]:
        """Several ops as one step of the boot."""
        return self._steps.step(name, name, where, self.slots[name].kind)

    def run(self, slot: Slot, arguments: tuple[int, ...]) -> int:
        """Run one op from Python.

        :raises RuntimeError: the op is jumped to; it never comes back.
        :raises BackendError: the op raised.
        """
        info = slot.info
        if len(arguments) != len(info.params):
            raise TypeError(f"{info.name} takes {len(info.params)} arguments, not {len(arguments)}")
        if info.jumped:
            raise RuntimeError(f"{info.name} is jumped to: Python cannot call it")
        if slot.kind == NULL_SLOT:
            return 0
        if slot.function is None or not slot.through_gate:
            return self._calls.call_op(info, slot.address, arguments)
        self._calls.host_calls[slot.number] += 1
        try:
            result = self.call_function(slot, arguments)
        except (BackendError, GuestExit):
            raise
        except GuestFault as fault:
            raise crash(f"op {info.name} ({slot.where}) called from start_kernel: {fault}") from None
        except Exception as error:
            raise BackendError(f"op {info.name} ({slot.where}) called from start_kernel: "
                               f"{type(error).__name__}: {error}", op=info.name, where=slot.where) from error
        return result if isinstance(result, int) else 0

    def call_function(self, slot: Slot, arguments: tuple[int, ...]) -> Any:
        """Call a host function, or the wrappers around guest code, which come back in `run_wrapped`."""
        assert slot.function is not None
        if not slot.wrapped:
            return slot.function(*arguments)
        frame = self._calls.current()
        self._wrapped.setdefault(frame, []).append(arguments)
        try:
            return slot.function(*arguments)
        finally:
            self._wrapped[frame].pop()
            if not self._wrapped[frame]:
                del self._wrapped[frame]

    def run_wrapped(self, name: str) -> int:
        """Under its wrappers, run the guest code of an op with the arguments of the call."""
        slot = self.slots[name]
        return self._calls.call_op(slot.info, slot.address, self._wrapped[self._calls.current()][-1])

    def assign(self, name: str, form: GuestCode | GuestAddress) -> None:
        """Put other guest code into a slot while the guest runs, as platforms do until call sites are patched.

        :param form: code of an object that the table's slots name already, or code that the guest has.
        :raises BackendError: there is no such code, or call sites have been patched.
        """
        slot = self.slots[name]
        if self.patched:
            raise BackendError(f"op {name}: its slot changes after call sites have been patched", op=name)
        if isinstance(form, GuestAddress):
            address, inline = form.address, None
        else:
            key = form.object, form.symbol
            if key not in self.linked.symbols:
                raise BackendError(f"op {name}: {form.object.name} has no symbol {form.symbol} that was linked",
                                   op=name)
            address, inline = self.linked.symbols[key], self.linked.inline.get(key)
        slot.form, slot.where, slot.clobbers = form, where_form(form), form.clobbers
        slot.address, slot.inline = address, inline
        if not slot.wrapped:
            slot.function = None
            self.write_slot(name, address)
        self.counters.watch({name: slot})

    def counts(self) -> Counter[str]:
        """Calls by op: all that was counted, or those of host functions."""
        counted = self.counters.counts()
        for name, slot in self.slots.items():
            calls = self._calls.host_calls[slot.number]
            if calls:
                counted[name] = calls
        return counted
