"""The kernel as start_kernel sees it: its functions, its symbols, its memory.

``kernel.trap_init()`` runs the guest's function of that name and comes back with its result, as a call in C
would. Arguments and results are 32-bit words.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from paravirt.calls import Calls
from paravirt.errors import GuestFault, ImageError, close_match
from paravirt.guest import Guest
from paravirt.image.elf import ElfImage
from paravirt.image.notes import CallSite, ParavirtNote
from paravirt.machine.outcome import crash
from paravirt.ops import Ops
from paravirt.steps import Steps

Result = TypeVar("Result")


class Kernel:
    """
    :param ops: told of each site that was patched.
    :param replace_paravirt: patch call sites; off for --noreplace-paravirt.
    """

    def __init__(self, guest: Guest, calls: Calls, steps: Steps, ops: Ops, *, replace_paravirt: bool = True) -> None:
        note, image = guest.kernel.note, guest.kernel.image
        assert note is not None and isinstance(image, ElfImage)
        self.note: ParavirtNote = note
        self.replace_paravirt = replace_paravirt
        self.call_sites = guest.kernel.call_sites
        self._symbols, self._image = guest.kernel.symbols, image
        self._vcpu, self._calls, self._steps, self._ops = guest.machine.vcpu, calls, steps, ops
        self.patched_sites = 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        """A function of the guest, by symbol."""
        if name.startswith("_"):
            raise AttributeError(name)
        address = self.symbol(name)

        def function(*arguments: int) -> int:
            with self._steps.step(name, "", f"{name} (kernel)", "kernel"):
                return self._calls.call(address, *arguments)

        return function

    def symbol(self, name: str) -> int:
        """Virtual address of a symbol. :raises ImageError: the kernel has none of that name."""
        address = self._symbols.address(name)
        if address is None:
            known = list(self._symbols.names)
            raise ImageError(f"{self._image.path}: no symbol {name!r}{close_match(name, known[:5000])}")
        return address

    def pa(self, va: int) -> int:
        """Physical (to the guest: pseudo-physical) address of an address in the kernel's image."""
        physical = self._image.physical(va)
        if physical is None:
            raise ImageError(f"{self._image.path}: {va:#x} is not in the image")
        return physical

    def read(self, va: int, length: int) -> bytes:
        """`length` bytes of guest memory, through the page tables in use."""
        return self._reach(lambda: self._vcpu.read(va, length))

    def write(self, va: int, data: bytes) -> None:
        """Store bytes in guest memory, as the kernel would."""
        self._reach(lambda: self._vcpu.write(va, data))

    def patch_text(self, site: CallSite, code: bytes) -> None:
        """Replace the bytes of a call site, whether its page may be written or not."""
        start, rest = site.address, code
        while rest:
            span = min(len(rest), 4096 - (start & 4095))
            physical = self._reach(partial(self._vcpu.translate, start))
            self._vcpu.ram.write(physical, rest[:span])
            start, rest = start + span, rest[span:]
        self.patched_sites += 1
        self._ops.counters.watch_site(site, code)

    @staticmethod
    def _reach(access: Callable[[], Result]) -> Result:
        try:
            return access()
        except GuestFault as fault:
            raise crash(f"the kernel's own memory is not mapped: {fault}") from None
