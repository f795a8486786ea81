"""A dozen of Xen's ops as Python functions, in the place of a Linux kernel's own xen_*.

The flags, CR2, the conversions of page-table entries and set_pte_at are what a Linux domain calls most. Here they look
straight at what the hypervisor has: the event mask, the tables of frames, the page tables with their types. So fewer
hypercalls are left::

    paravirt boot vmlinux --plugins examples/python_xen.toml --backend xen-python -o assign=xen-python \\
        --initrd initrd.gz --append "console=hvc0 noreplace-paravirt"

What is not here stays the kernel's. Ref: Linux 2.6.32 arch/x86/xen/irq.c, mmu.c.
"""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.api import Backend, Guest, OpTable, crash, hookimpl
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.entries import modify_l1
from paravirt_xen.platform.frames import L1
from paravirt_xen.plugin import Xen

PRESENT, FRAME, FLAGS = 1, 0x7FFF_FFFF_FFFF_F000, 0x8000_0000_0000_0FFF
NO_FRAME = 0xFFFFF
EFLAGS_IF = 0x200


class PythonXenOps(OpTable):
    """Every one is a leaf of a few lines."""

    name = "Xen, a dozen ops in Python"

    def __init__(self, guest: Guest, domain: Domain) -> None:
        super().__init__(guest)
        self.domain = domain

    # ------------------------------------------------------------------ the event mask is the interrupt flag

    def _mask(self, masked: int) -> None:
        domain = self.domain
        domain.ram.bytes[domain.vcpu_info + abi.UPCALL_MASK] = masked
        if not masked and domain.events.pending_unmasked():
            domain.machine.engine.stop()  # the upcall is made before the CPU runs on

    @hookimpl
    def save_fl(self) -> int:
        return 0 if self.domain.ram.bytes[self.domain.vcpu_info + abi.UPCALL_MASK] else EFLAGS_IF

    @hookimpl
    def restore_fl(self, flags: int) -> None:
        self._mask(0 if flags & EFLAGS_IF else 1)

    @hookimpl
    def irq_disable(self) -> None:
        self._mask(1)

    @hookimpl
    def irq_enable(self) -> None:
        self._mask(0)

    @hookimpl
    def read_cr2(self) -> int:
        return int(self.domain.ram.words[(self.domain.vcpu_info + abi.ARCH_CR2) >> 2])

    # ------------------------------------------------------------------ frames of the domain, frames of the machine

    def _to_machine(self, entry: int) -> int:
        if not entry & PRESENT:
            return entry
        pfn = (entry & FRAME) >> 12
        mfn = self.domain.p2m[pfn] if pfn < len(self.domain.p2m) else NO_FRAME
        return entry & FLAGS | mfn << 12

    def _to_domain(self, entry: int) -> int:
        if not entry & PRESENT:
            return entry
        mfn = (entry & FRAME) >> 12
        pfn = self.domain.m2p[mfn] if mfn < len(self.domain.m2p) else NO_FRAME
        return entry & FLAGS | (pfn & NO_FRAME) << 12

    @hookimpl
    def pte_val(self, pte: int) -> int:
        return self._to_domain(pte)

    @hookimpl
    def pmd_val(self, pmd: int) -> int:
        return self._to_domain(pmd)

    @hookimpl
    def pgd_val(self, pgd: int) -> int:
        return self._to_domain(pgd)

    @hookimpl
    def make_pte(self, pte: int) -> int:
        return self._to_machine(pte)

    @hookimpl
    def make_pmd(self, pmd: int) -> int:
        return self._to_machine(pmd)

    @hookimpl
    def make_pgd(self, pgd: int) -> int:
        return self._to_machine(pgd)

    @hookimpl
    def set_pte_at(self, mm: int, addr: int, ptep: int, pte: int) -> None:
        """As update_va_mapping does it: the entry is validated and its references are counted."""
        domain = self.domain
        at = domain.vcpu.translate(ptep)
        old = domain.ram.quads[at >> 3]
        if not domain.frames.is_table(at >> 12, L1):  # not pinned yet: memory like any other
            domain.ram.write_u64(at, pte)
        elif error := modify_l1(domain.frames, at >> 3, pte):
            raise crash(f"set_pte_at({addr:#x}, {pte:#x}): the hypervisor refuses it (error {error})")
        if old & PRESENT:
            domain.vcpu.flush_page(addr)


class PythonXen(Xen):
    """The Xen platform, and the table above for kernels whose tables are assigned."""

    name = "xen-python"
    summary = "a Xen domain with a dozen ops in Python"

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return PythonXenOps(guest, self.domain)


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (PythonXen,)
