"""The backend: a PC below, the host between, the kernel's own op table replaced by lguest's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import ClassVar

from paravirt.api import (
    Answer,
    Backend,
    Guest,
    KernelInfo,
    OpTable,
    Verdict,
    attach_pc,
    enter_protected_mode,
    hookimpl,
    plan_boot,
)
from paravirt_lguest.host import Host, exits
from paravirt_lguest.table import LguestOps


class Lguest(Backend):
    """One object a machine."""

    name = "lguest"
    summary = "lguest's design: ring 1, hypercalls by INT 1Fh, shared words"
    absent: ClassVar[Mapping[str, str]] = MappingProxyType({
        "apic": "the machine has no local APIC",
        "smp": "the machine has one CPU",
        "flush_tlb_others": "the machine has one CPU",
        "alloc_pd_clone": "for kernels without PAE",
        "read_pmc": "the CPU has no performance counters",
    })

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        if kernel.note is None:
            return Verdict(Answer.NO, "it takes no op table from a backend")
        return Verdict(Answer.YES, "a paravirt kernel")

    @hookimpl
    def paravirt_devices(self, guest: Guest) -> None:
        self.host = Host(guest)
        attach_pc(guest, self.host.line)
        guest.console.connect(self.host.input.extend)
        guest.machine.connect(exits(self.host))

    @hookimpl
    def paravirt_build_guest(self, guest: Guest) -> None:
        enter_protected_mode(guest.machine.vcpu, plan_boot(guest))

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return LguestOps(guest)


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Lguest,)
