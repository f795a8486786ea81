"""The exit table: what leaves the guest, and who answers.

Ring 1 is the guest's kernel, ring 3 its programs. The CPU has neither IDT nor TSS: every vector comes here. Behind
each exit, and before the CPU runs on after a pause, events that are pending and not masked are delivered.
"""

from __future__ import annotations

from paravirt.api import Exit, ExitTable, GuestFault, Kind, Vcpu, cpuid
from paravirt_xen.platform.abi import HYPERCALL_VECTOR
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.emulate import emulate, forced_cpuid
from paravirt_xen.platform.gates import far_transfer
from paravirt_xen.platform.hypercalls import Dispatcher
from paravirt_xen.platform.ptwrite import settle_page_fault
from paravirt_xen.platform.traps import GENERAL_PROTECTION, PAGE_FAULT, RING1

INVALID_OPCODE = 6
NO_SELECTOR = 3  # EXT, IDT: of an error code that names no descriptor


class Exits:
    """The handlers of one domain."""

    def __init__(self, domain: Domain, dispatcher: Dispatcher) -> None:
        self.domain, self.traps, self.dispatcher = domain, domain.traps, dispatcher

    def table(self) -> ExitTable:
        return {
            Exit(Kind.EXCEPTION): self._exception,
            Exit(Kind.EXCEPTION, INVALID_OPCODE): self._invalid_opcode,
            Exit(Kind.EXCEPTION, GENERAL_PROTECTION): self._general_protection,
            Exit(Kind.EXCEPTION, PAGE_FAULT): self._page_fault,
            Exit(Kind.SOFTWARE_INTERRUPT): self._software_interrupt,
            Exit(Kind.SOFTWARE_INTERRUPT, HYPERCALL_VECTOR): self._hypercall,
            Exit(Kind.INTERRUPT): self._interrupt,
            Exit(Kind.PORT_IN): self._port_in,
            Exit(Kind.PORT_OUT): self._port_out,
            Exit(Kind.CPUID): self._cpuid,
            Exit(Kind.SYSENTER): self._sysenter,
        }

    def _hypercall(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if vcpu.cpl == RING1:
            self.dispatcher.interrupt()
        else:
            self.traps.software_interrupt(vector)
        self.traps.deliver_upcall()

    def _exception(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        self.traps.bounce(vector, error)
        self.traps.deliver_upcall()

    def _invalid_opcode(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if not forced_cpuid(self.domain):
            self.traps.bounce(vector)
        self.traps.deliver_upcall()

    def _general_protection(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        try:
            done = far_transfer(self.domain, error) if error and not error & NO_SELECTOR else (
                not error and emulate(self.domain))
            if not done:
                self.traps.bounce(vector, error)
        except GuestFault as fault:
            self.traps.inject(fault)
        self.traps.deliver_upcall()

    def _page_fault(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if not settle_page_fault(self.domain, error):
            self.traps.bounce(vector, error)
        self.traps.deliver_upcall()

    def _software_interrupt(self, vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        self.traps.software_interrupt(vector)
        self.traps.deliver_upcall()

    def _sysenter(self, vcpu: Vcpu) -> None:
        vcpu.engine.count_exception(GENERAL_PROTECTION)
        self.traps.bounce(GENERAL_PROTECTION)
        self.traps.deliver_upcall()

    def _cpuid(self, vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        """A plain CPUID is not intercepted."""
        return cpuid.cpuid(leaf, subleaf)

    # What cannot happen: nothing drives the interrupt line, and IOPL is 0 without a TSS, so IN and OUT are #GP.

    def _interrupt(self, vcpu: Vcpu, vector: int) -> None:
        raise AssertionError("nothing drives the interrupt line of a domain")

    def _port_in(self, vcpu: Vcpu, port: int, size: int) -> int:
        return (1 << 8 * size) - 1

    def _port_out(self, vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """The bus floats."""
