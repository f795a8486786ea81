"""A paravirtual Xen domain: the hypervisor under a guest, and the op table of a kernel that takes one."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from paravirt.api import (
    Answer,
    Backend,
    ElfImage,
    Guest,
    ImageError,
    KernelInfo,
    OpTable,
    StubPages,
    Verdict,
    hookimpl,
    xen_notes,
)

if TYPE_CHECKING:  # the hypervisor is imported where one is built: other backends' boots must not wait for it
    from paravirt_xen.platform.builder import Builder
    from paravirt_xen.platform.domain import Domain
    from paravirt_xen.table import XenOptions


MOMENTS = ("start_kernel", "build_all_zonelists", "alternative_instructions")
STUB_PAGES = 8


class Xen(Backend):
    """The hypervisor."""

    name = "xen"
    summary = "a paravirtual Xen domain"
    absent = MappingProxyType({"read_pmc": "the CPU has no performance counters"})
    defaults = MappingProxyType({"multicall": True, "vcpu_info": True, "steal": 0})
    builder: Builder

    @property
    def domain(self) -> Domain:
        """The domain, from `paravirt_devices` on."""
        return self.builder.domain

    @hookimpl
    def paravirt_options(self) -> type[XenOptions]:
        from paravirt_xen.table import XenOptions

        return XenOptions

    @hookimpl
    def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
        image = kernel.image
        if not isinstance(image, ElfImage):
            return Verdict(Answer.NO, "no ELF file: the domain builder wants an ELF kernel")
        if not xen_notes(image):
            return Verdict(Answer.NO, "it has neither Xen notes nor a section __xen_guest")
        from paravirt_xen.platform.notes import parse_notes

        try:
            notes = parse_notes(image)
        except ImageError as problem:
            return Verdict(Answer.NO, str(problem))
        if kernel.note is not None:
            return Verdict(Answer.YES, 'Xen notes, and the note "Paravirt"')
        if notes.entry == image.entry:
            return Verdict(Answer.ONLY, "Xen notes, and no other entry than the domain builder's")
        return Verdict(Answer.YES, f"Xen notes, with an entry of their own at {notes.entry:#x}")

    @hookimpl
    def paravirt_reserved_memory(self, memory: int) -> int:
        from paravirt_xen.platform.builder import reserved_memory

        return reserved_memory(memory)

    @hookimpl
    def paravirt_devices(self, guest: Guest) -> None:
        from paravirt_xen.platform.builder import Builder
        from paravirt_xen.platform.exits import Exits
        from paravirt_xen.platform.hypercalls import Dispatcher
        from paravirt_xen.platform.traps import Traps

        self.builder = Builder(guest)
        domain = self.domain
        domain.traps = Traps(domain)
        domain.dispatcher = Dispatcher(domain)
        guest.more_counts.append(domain.dispatcher.counts)
        if guest.trace is not None:
            from paravirt_xen.platform.tracing import HypercallTrace

            HypercallTrace(domain, guest.trace)
        guest.machine.connect(Exits(domain, domain.dispatcher).table())

    @hookimpl
    def paravirt_build_guest(self, guest: Guest) -> None:
        from paravirt_xen.platform.native import attach_native
        from paravirt_xen.platform.services import attach_services
        from paravirt_xen.platform.setup import take_memory, validation_counts
        from paravirt_xen.platform.start import start

        domain = self.builder.build()
        guest.machine_frame = domain.p2m.__getitem__
        take_memory(domain)
        guest.more_counts.append(lambda: validation_counts(domain))
        attach_services(domain, cast("XenOptions", guest.options).steal)
        start(self.builder)
        attach_native(self.domain)

    @hookimpl
    def paravirt_stub_pages(self, guest: Guest) -> StubPages:
        """Linux's xen_start_kernel fills the tables; two of the later functions change some of them."""
        virtual, frames = self.domain.hole.stub_pages(STUB_PAGES)
        return StubPages(virtual, frames, MOMENTS, writable=False)

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        from paravirt_xen.table import XenOps

        return XenOps(guest, lambda: self.domain, cast("XenOptions", guest.options))


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (Xen,)
