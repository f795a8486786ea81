"""One exit type and one literal table a platform.

A platform answers what the CPU cannot do alone. It says how in one table, ``Exit -> handler``; an
entry with a number goes before the one without. `Dispatcher` flattens the table into lists once, so
an exit costs one index. Handlers get the vcpu and what the kind says:

===================  ==========================================  =============================
kind                 handler(vcpu, ...)                          number
===================  ==========================================  =============================
EXCEPTION            vector, error, software=False -> None       vector
SOFTWARE_INTERRUPT   vector, error, software=True -> None        vector; EIP is past ``int n``
INTERRUPT            vector -> None                              none: external interrupt
PORT_IN              port, size -> int                           none
PORT_OUT             port, size, value -> None                   none
CPUID                leaf, subleaf -> (eax, ebx, ecx, edx)       none
SYSENTER             -> None                                     none
PORT_CHECK           port, size -> bool: allowed                 none; where IOPL refuses; absent: the TSS
                                                                 decides
===================  ==========================================  =============================
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from paravirt.machine import idt, shortcuts, sysenter
from paravirt.machine.bus import MmioBus
from paravirt.machine.vcpu import Vcpu

PORT_NS = 1000
MMIO_NS = 1000
CPUID_NS = 100

Handler = Callable[..., Any]


class Kind(enum.Enum):
    """Why the CPU left the guest."""

    EXCEPTION = "exception"
    SOFTWARE_INTERRUPT = "int n"
    INTERRUPT = "external interrupt"
    PORT_IN = "in"
    PORT_OUT = "out"
    CPUID = "cpuid"
    SYSENTER = "sysenter"
    PORT_CHECK = "permission of a port"


class Exit(NamedTuple):
    """A row's key: a kind, and a vector where only that one is meant."""

    kind: Kind
    number: int | None = None


ExitTable = Mapping[Exit, Handler]


class IncompleteTable(Exception):
    """A platform's exit table lacks a kind; the message names all that are missing."""


class Dispatcher:
    """Calls the platform's handlers; counts what a record counts. Implements `engine.Handlers`."""

    def __init__(self, vcpu: Vcpu, table: ExitTable, mmio: MmioBus, acknowledge: Callable[[], int]) -> None:
        missing = [kind.value for kind in Kind if kind is not Kind.PORT_CHECK and Exit(kind) not in table]
        if missing:
            raise IncompleteTable(f"the platform answers no {', '.join(missing)}")
        self.vcpu = vcpu
        self.acknowledge = acknowledge
        self._mmio = mmio
        self._exceptions = [table.get(Exit(Kind.EXCEPTION, v), table[Exit(Kind.EXCEPTION)]) for v in range(256)]
        software = table[Exit(Kind.SOFTWARE_INTERRUPT)]
        self._software = [table.get(Exit(Kind.SOFTWARE_INTERRUPT, v), software) for v in range(256)]
        self._interrupt = table[Exit(Kind.INTERRUPT)]
        self._port_in, self._port_out = table[Exit(Kind.PORT_IN)], table[Exit(Kind.PORT_OUT)]
        self._cpuid, self._sysenter = table[Exit(Kind.CPUID)], table[Exit(Kind.SYSENTER)]
        self._port_check = table.get(Exit(Kind.PORT_CHECK), Vcpu.port_allowed)
        self._charge = vcpu.engine.charge
        self.port_io = self.traps = 0
        self.gates: Sequence[Callable[[], None]] = ()

    def native_vectors(self) -> list[int]:
        """Vectors that this platform leaves to the guest's IDT, in every form."""
        return [
            v for v in range(256)
            if self._exceptions[v] is idt.exception and self._software[v] is idt.exception
        ]

    @property
    def native_interrupts(self) -> bool:
        """Whether this platform leaves external interrupts to the guest's IDT."""
        return self._interrupt is idt.interrupt

    @property
    def native_sysenter(self) -> bool:
        """Whether this platform leaves SYSENTER to the CPU."""
        return self._sysenter is sysenter.sysenter

    @property
    def plain_ports(self) -> bool:
        """Whether IN and OUT reach the bus as they are."""
        return self._port_in is shortcuts.port_in and self._port_out is shortcuts.port_out

    def watch(self, vector: int, look: Callable[[int], None]) -> None:
        """Have `look` called with EIP of the instruction whenever an exception of `vector` has been answered."""
        answer = self._exceptions[vector]

        def watched(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
            at = vcpu.eip
            if answer is idt.exception:
                self.traps -= 1  # still no exit on the real thing
            answer(vcpu, vector, error, software)
            look(at)

        self._exceptions[vector] = watched

    @property
    def decides_ports(self) -> bool:
        """Whether this platform says which ports may be used, in place of the TSS."""
        return self._port_check is not Vcpu.port_allowed

    def exception(self, vector: int, error: int, software: bool) -> None:
        vcpu = self.vcpu
        handler = (self._software if software else self._exceptions)[vector]
        if handler is not idt.exception:  # what the guest's own IDT takes is no exit on the real thing
            self.traps += 1
        handler(vcpu, vector, 0 if software else error, software)

    def gate(self, stub: int) -> None:
        """A stub of the gate page was called."""
        self.traps += 1
        self.vcpu.machine.settle()  # what is called may look at the output, or add to it
        self.gates[stub]()

    def interrupt(self, vector: int) -> None:
        self._interrupt(self.vcpu, vector)

    def port_in(self, port: int, size: int) -> int:
        self.port_io += 1
        self.traps += 1
        self._charge(PORT_NS)
        return self._port_in(self.vcpu, port, size)  # type: ignore[no-any-return]

    def port_out(self, port: int, size: int, value: int) -> None:
        self.port_io += 1
        self.traps += 1
        self._charge(PORT_NS)
        self._port_out(self.vcpu, port, size, value)

    def port_allowed(self, port: int, size: int) -> bool:
        return self.vcpu.iopl_allows() or self._port_check(self.vcpu, port, size)

    def cpuid(self, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        self.traps += 1
        self._charge(CPUID_NS)
        return self._cpuid(self.vcpu, leaf, subleaf)  # type: ignore[no-any-return]

    def sysenter(self) -> None:
        if self._sysenter is not sysenter.sysenter:  # what the CPU does by itself is no exit
            self.traps += 1
        self._sysenter(self.vcpu)

    def mmio_read(self, address: int, size: int) -> int:
        self.traps += 1
        self._charge(MMIO_NS)
        return self._mmio.read(address, size)

    def mmio_write(self, address: int, size: int, value: int) -> None:
        self.traps += 1
        self._charge(MMIO_NS)
        self._mmio.write(address, size, value)
