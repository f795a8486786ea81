"""The slots of a running kernel: at the platform's moments each is made to lead to what stands behind it.

A slot may hold what the kernel put there, a stub of ours, or an assigned op. At a moment the kernel may have put
something new into some slots, as Linux under Xen does twice: then a stub gets a new target, an assigned op takes the
slot again. Empty slots stay empty.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from paravirt.errors import PluginError
from paravirt.guest import Guest
from paravirt.image.linux_ops import LinuxSlot
from paravirt.linuxops.pages import StubPages
from paravirt.machine import paging
from paravirt.machine.outcome import crash
from paravirt.machine.stubs import call_at

JMP = b"\xe9"
NEAR_BYTES = 5


class KernelMemory:
    """The kernel's memory as the host changes it: through the page tables in use, whatever rights they give."""

    def __init__(self, guest: Guest) -> None:
        self._vcpu, self._ram = guest.machine.vcpu, guest.machine.ram

    def read(self, address: int, length: int) -> bytes:
        return b"".join(self._ram.read(physical, span) for physical, span in self._pieces(address, length))

    def write(self, address: int, data: bytes) -> None:
        at = 0
        for physical, span in self._pieces(address, len(data)):
            self._ram.write(physical, data[at : at + span])
            at += span

    def read_u32(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def write_u32(self, address: int, value: int) -> None:
        self.write(address, value.to_bytes(4, "little"))

    def _pieces(self, address: int, length: int) -> list[tuple[int, int]]:
        pieces = []
        while length > 0:
            leaf = paging.lookup(self._ram, self._vcpu.tables(), address)
            span = min(length, paging.PAGE_BYTES - address % paging.PAGE_BYTES)
            if leaf is None or not self._ram.contains(leaf.physical, span):
                raise crash(f"the kernel's op tables are not mapped at {address:#x}")
            pieces.append((leaf.physical, span))
            address, length = address + span, length - span
        return pieces


class StubKind(Protocol):
    """What a slot's stub does before it jumps on."""

    def code(self, target: int, stub: int) -> bytes:
        """The stub's bytes, at most 8, for virtual addresses `target` and `stub`."""

    def step_over(self, at: int) -> int:
        """Do by hand what the rest of a stub does, from `at` on, at no cost; where it leads to."""


def jump(address: int, target: int) -> bytes:
    """``jmp target`` at virtual `address`."""
    return JMP + ((target - address - NEAR_BYTES) & 0xFFFFFFFF).to_bytes(4, "little")


class LinuxSlots:
    """
    :param assigned: by slot number, what is to stand there instead of the kernel's own.
    :param stubs: None: no stubs.
    :param on_replaced: told the slots, each with what it held, that an assigned op has taken at this moment.
    """

    def __init__(self, guest: Guest, slots: Sequence[LinuxSlot], pages: StubPages, assigned: Mapping[int, int],
                 stubs: StubKind | None, on_replaced: Callable[[Sequence[tuple[LinuxSlot, int]]], None]) -> None:
        self._memory, self._ram = KernelMemory(guest), guest.machine.ram
        self._slots, self._pages, self._assigned, self._stubs = slots, pages, assigned, stubs
        self._on_replaced = on_replaced
        self._held: dict[int, int] = {}
        moments = [address for symbol in pages.moments
                   if (address := guest.kernel.symbols.address(symbol)) is not None]
        if not moments:
            raise PluginError(f"{guest.kernel.image.path}: the kernel has no function "
                              f"{' or '.join(pages.moments)}, at which its op tables are complete")
        for address in moments:
            call_at(guest.machine.engine, address, self.look)

    def look(self) -> None:
        """Put what belongs behind the slots there, where it does not stand yet."""
        replaced = []
        for slot in self._slots:
            value = self._memory.read_u32(slot.address)
            if value in (0, self._held.get(slot.type)):
                continue
            target = self._assigned.get(slot.type, value)
            if target != value:
                replaced.append((slot, value))
            held = target
            if self._stubs is not None:
                held = self._pages.slot_stub(slot.type)
                self._pages.write(self._ram, held, self._stubs.code(target, held))
            if held != value:
                self._memory.write_u32(slot.address, held)
            self._held[slot.type] = held
        if replaced:
            self._on_replaced(replaced)
