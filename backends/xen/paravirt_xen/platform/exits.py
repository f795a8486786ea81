"""The exit table: what leaves the guest, and who answers.

Ring 1 is the guest's kernel, ring 3 its programs. The CPU has neither IDT nor TSS: every vector comes here.
"""

from __future__ import annotations

from paravirt.api import Exit, ExitTable, Kind, Vcpu, cpuid
from paravirt_xen.platform.abi import HYPERCALL_VECTOR
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.hypercalls import Dispatcher

RING1 = 1
GP = 13


def exit_table(domain: Domain, dispatcher: Dispatcher) -> ExitTable:
    """The platform's table for one domain."""
    traps, engine = domain.traps, domain.machine.engine

    def hypercall(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        if vcpu.cpl == RING1:
            dispatcher.interrupt()
            traps.deliver_upcall()
        else:
            traps.software_interrupt(vector)

    def exception(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        traps.exception(vector, error)

    def software_interrupt(vcpu: Vcpu, vector: int, error: int, software: bool) -> None:
        traps.software_interrupt(vector)

    def interrupt(vcpu: Vcpu, vector: int) -> None:
        raise AssertionError("nothing drives the interrupt line of a domain")

    def port_in(vcpu: Vcpu, port: int, size: int) -> int:
        return (1 << 8 * size) - 1  # never reached: IOPL is 0 and there is no TSS, so it is #GP, and emulated

    def port_out(vcpu: Vcpu, port: int, size: int, value: int) -> None:
        """Never reached, as `port_in`."""

    def cpuid_leaf(vcpu: Vcpu, leaf: int, subleaf: int) -> tuple[int, int, int, int]:
        return cpuid.cpuid(leaf, subleaf)

    def sysenter(vcpu: Vcpu) -> None:
        engine.count_exception(GP)
        traps.exception(GP, 0)

    return {
        Exit(Kind.EXCEPTION): exception,
        Exit(Kind.SOFTWARE_INTERRUPT): software_interrupt,
        Exit(Kind.SOFTWARE_INTERRUPT, HYPERCALL_VECTOR): hypercall,
        Exit(Kind.INTERRUPT): interrupt,
        Exit(Kind.PORT_IN): port_in,
        Exit(Kind.PORT_OUT): port_out,
        Exit(Kind.CPUID): cpuid_leaf,
        Exit(Kind.SYSENTER): sysenter,
    }
