"""Hypercalls of host functions: by name, through the dispatcher that answers the guest's own.

A host function stands for code of the guest's kernel, so it may ask for no more than that code could: arguments are
encoded into register words by the table's signatures, structures are passed in guest memory.

Ref: Xen public/xen.h.
"""

from __future__ import annotations

from collections.abc import Callable

from paravirt.api import Guest, GuestCode, ParavirtNote, Vcpu, crash
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.errors import Preempted
from paravirt_xen.platform.hypercalls import HYPERCALLS, MAX_ARGUMENTS

NUMBERS = {call.name: number for number, call in HYPERCALLS.items()}


class Hypervisor:
    """What the host functions of one guest have to do with its domain and its kernel.

    :param domain: gives the domain; there is none yet where tables are only listed.
    """

    def __init__(self, guest: Guest, domain: Callable[[], Domain]) -> None:
        self.guest, self._domain = guest, domain

    @property
    def domain(self) -> Domain:
        return self._domain()

    @property
    def vcpu(self) -> Vcpu:
        return self.guest.machine.vcpu

    @property
    def note(self) -> ParavirtNote:
        assert self.guest.kernel.note is not None  # else there is no op table
        return self.guest.kernel.note

    def call(self, name: str, *arguments: int) -> int:
        """Make a hypercall. :param arguments: as its signature has them; a u64 is one. :returns: its result."""
        number = NUMBERS[name]
        words: list[int] = []
        for value, argument in zip(arguments, HYPERCALLS[number].arguments, strict=True):
            words += (value & 0xFFFFFFFF, value >> 32) if argument.kind == "u64" else (value & 0xFFFFFFFF,)
        while True:
            try:
                return self.domain.dispatcher.call(number, words + [0] * (MAX_ARGUMENTS - len(words)))
            except Preempted as rest:
                words = list(rest.arguments)

    def must(self, name: str, *arguments: int) -> int:
        """`call`, where failure is the end of the kernel. :raises GuestExit: naming call and result."""
        result = self.call(name, *arguments)
        if result < 0:
            said = ", ".join(f"{each:#x}" for each in arguments)
            raise crash(f"xen: {name}({said}) = {result}")
        return result

    def scratch(self, data: bytes) -> int:
        """Put a structure where the guest has room for it; gives its address."""
        self.vcpu.write(self.note.scratch, data)
        return self.note.scratch

    def symbol(self, name: str) -> int:
        """Address of a symbol of the kernel. :raises GuestExit: it has none of that name."""
        address = self.guest.kernel.symbols.address(name)
        if address is None:
            raise crash(f"xen: the kernel has no symbol {name}")
        return address

    def address_of(self, code: GuestCode) -> int:
        """Address of a symbol of the ops' own code or data."""
        return self.guest.ops.linked.symbols[code.object, code.symbol]

    def variable(self, code: GuestCode) -> int:
        """A word of the ops' own data."""
        return self.vcpu.read_u32(self.address_of(code))

    def set_variable(self, code: GuestCode, value: int) -> None:
        """Store a word of the ops' own data."""
        self.vcpu.write_u32(self.address_of(code), value & 0xFFFFFFFF)
