"""Bare hardware: an i386 PC, and the op table of a kernel that has it for itself."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from paravirt.api import (
    PC_EXITS,
    Answer,
    Backend,
    BzImage,
    ElfImage,
    Guest,
    KernelInfo,
    OpTable,
    StubPages,
    Verdict,
    attach_pc,
    enter_protected_mode,
    hookimpl,
    pc_stub_pages,
    plan_boot,
)
from paravirt_native.table import NativeOps


class Native(Backend):
    """The PC itself."""

    name = "native"
    summary = "bare hardware: an i386 PC"
    absent = MappingProxyType({
        "apic_write": "CPUID shows no local APIC",
        "apic_write_atomic": "CPUID shows no local APIC",
        "apic_read": "CPUID shows no local APIC",
        "read_pmc": "the CPU has no performance counters",
    })

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        image = kernel.image
        if isinstance(image, BzImage):
            return Verdict(Answer.YES, f"a bzImage, {image.kernel_version or 'of unknown version'}")
        if kernel.note is not None:
            return Verdict(Answer.YES, 'the note "Paravirt": the kernel takes its op table from the backend')
        if kernel.multiboot is not None or not isinstance(image, ElfImage):
            return Verdict(Answer.YES, "a multiboot kernel")
        if image.segments[0].paddr < 1 << 20:
            return Verdict(Answer.NO, f"its first segment lies at {image.segments[0].paddr:#x}, below 1 MiB: "
                                      "it is not made for a bare PC")
        return Verdict(Answer.YES, "an ELF kernel, started by the 32-bit boot protocol")

    @hookimpl
    def paravirt_devices(self, guest: Guest) -> None:
        attach_pc(guest, local_apic=True)
        guest.machine.connect(PC_EXITS)

    @hookimpl
    def paravirt_build_guest(self, guest: Guest) -> None:
        enter_protected_mode(guest.machine.vcpu, plan_boot(guest))

    @hookimpl
    def paravirt_stub_pages(self, guest: Guest) -> StubPages:
        return pc_stub_pages(guest)

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return NativeOps(guest)


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Native,)
