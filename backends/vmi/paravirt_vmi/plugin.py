"""VMI: a PC with an option ROM, a monitor behind it, and the op table of a kernel that finds it.

A kernel starts as on bare hardware. What makes it a VMI guest is its own doing: it finds the ROM, calls its entry and
asks it call by call how to go on (docs/vmi.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from paravirt.api import (
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
from paravirt_vmi.platform.layout import DEFAULT_BASE

if TYPE_CHECKING:  # the monitor is imported where one is started: other backends' boots must not wait for it
    import typer

    from paravirt_vmi.options import VmiOptions
    from paravirt_vmi.platform.monitor import Monitor

MOMENTS = ("i386_start_kernel", "finish_e820_parsing")


class Vmi(Backend):
    """The PC, seen through VMware's Virtual Machine Interface."""

    name = "vmi"
    summary = "VMware's Virtual Machine Interface: a PC, an option ROM, and the kernel in ring 1"
    absent = MappingProxyType({
        "apic_write": "the machine has no local APIC",
        "apic_write_atomic": "the machine has no local APIC",
        "apic_read": "the machine has no local APIC",
        "read_pmc": "the CPU has no performance counters",
    })

    defaults = MappingProxyType({"trap": "few", "deferral": True, "none": (), "base": DEFAULT_BASE, "virtual_top": 0,
                                 "apic": False, "rom": None})

    @hookimpl
    def paravirt_options(self) -> type[VmiOptions]:
        from paravirt_vmi.options import VmiOptions

        return VmiOptions

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        image = kernel.image
        if isinstance(image, BzImage):
            return Verdict(Answer.YES, "a bzImage: what is packed in it cannot be told")
        if not isinstance(image, ElfImage):
            return Verdict(Answer.NO, "a multiboot kernel that is no ELF file: it knows no VMI ROM")
        if kernel.note is not None:
            return Verdict(Answer.YES, 'the note "Paravirt": the kernel takes its op table from the backend')
        if image.segments[0].paddr < 1 << 20:
            return Verdict(Answer.NO, f"its first segment lies at {image.segments[0].paddr:#x}, below 1 MiB: "
                                      "it is not made for a PC")
        from paravirt_vmi.rom import SIGNATURE

        if any(SIGNATURE in segment.data for segment in image.segments):
            return Verdict(Answer.YES, f"it looks for the signature {SIGNATURE.decode()!r} of a VMI ROM")
        return Verdict(Answer.NO, f"the signature {SIGNATURE.decode()!r} is nowhere in it: it knows no VMI ROM")

    @hookimpl
    def paravirt_devices(self, guest: Guest) -> None:
        from paravirt_vmi.platform import apic
        from paravirt_vmi.platform.start import rom_for, start_monitor

        options = cast("VmiOptions", guest.options)
        self.monitor: Monitor = start_monitor(guest, rom_for(options), options.base)
        self.monitor.board = attach_pc(guest, self.monitor.interrupt_line)
        if options.apic:
            apic.attach(self.monitor)

    @hookimpl
    def paravirt_build_guest(self, guest: Guest) -> None:
        enter_protected_mode(guest.machine.vcpu, plan_boot(guest))
        guest.machine.ram.write(self.monitor.rom_at, self.monitor.rom.image)

    @hookimpl
    def paravirt_stub_pages(self, guest: Guest) -> StubPages:
        """The kernel's tables are complete at its start, and changed by activate_vmi, behind which `MOMENTS` has the
        next function. Its patching there makes six flag and return ops direct calls of the ROM, which counts them
        itself, and leaves the rest indirect."""
        return replace(pc_stub_pages(guest, MOMENTS), patched=True)

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        from paravirt_vmi.table import VmiOps

        return VmiOps(guest)


@hookimpl
def paravirt_commands(app: typer.Typer) -> None:
    from paravirt_vmi.commands import add

    add(app)


@hookimpl
def paravirt_inspect(data: bytes, path: Path) -> Iterable[tuple[str, object]] | None:
    from paravirt_vmi.inspection import inspect

    return inspect(data, path)


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Vmi,)
