"""A backend whose mmu ops are Python functions of a few lines each. All else is the native table's.

(kmap_atomic_pte too: only the kernel knows where it has mapped a page table of high memory.)

It boots the reference kernel, and it serves a real Linux that knows nothing of it::

    paravirt boot --plugins examples/python_mmu.toml --backend python-mmu
    paravirt boot vmlinux --plugins examples/python_mmu.toml --backend native -o assign=python-mmu \\
        --initrd initrd.gz --append "console=ttyS0 noreplace-paravirt"

An entry is what the CPU sees, so *_val and make_* change nothing. A platform with frames of its own would translate
there, and would look at what set_* are given.
"""

from __future__ import annotations

from collections.abc import Iterable

from paravirt.api import Backend, Guest, OpTable, hookimpl
from paravirt_native.plugin import Native
from paravirt_native.table import NativeOps


class PythonMmu(NativeOps):
    """Page tables, written and watched by the host.

    :ivar tables: frames of the page tables that the kernel has announced and not yet released.
    """

    name = "bare hardware, its mmu ops in Python"

    def __init__(self, guest: Guest) -> None:
        super().__init__(guest)
        self.vcpu = guest.machine.vcpu
        self.tables: set[int] = set()

    # an address space begins and ends
    @hookimpl
    def activate_mm(self, prev: int, next: int) -> None:
        """Nothing is kept for an address space."""

    @hookimpl
    def dup_mmap(self, oldmm: int, mm: int) -> None:
        """Nothing is kept for an address space."""

    @hookimpl
    def exit_mmap(self, mm: int) -> None:
        """Nothing is kept for an address space."""

    # the TLB
    @hookimpl
    def flush_tlb_user(self) -> None:
        self.vcpu.set_cr(3, self.vcpu.cr(3))

    @hookimpl
    def flush_tlb_kernel(self) -> None:
        self.vcpu.flush_tlb()

    @hookimpl
    def flush_tlb_single(self, addr: int) -> None:
        self.vcpu.flush_page(addr)

    @hookimpl
    def flush_tlb_others(self, cpus: int, mm: int, va: int) -> None:
        """There is no other CPU."""

    # a page becomes a page table, or stops being one
    @hookimpl
    def alloc_pt(self, mm: int, pfn: int) -> None:
        self.tables.add(pfn)

    @hookimpl
    def alloc_pd(self, pfn: int) -> None:
        self.tables.add(pfn)

    @hookimpl
    def alloc_pd_clone(self, pfn: int, clonepfn: int, start: int, count: int) -> None:
        self.tables.add(pfn)

    @hookimpl
    def release_pt(self, pfn: int) -> None:
        self.tables.discard(pfn)

    @hookimpl
    def release_pd(self, pfn: int) -> None:
        self.tables.discard(pfn)

    # entries
    @hookimpl
    def set_pte(self, ptep: int, pte: int) -> None:
        self.vcpu.write_u64(ptep, pte)

    @hookimpl
    def set_pte_at(self, mm: int, addr: int, ptep: int, pte: int) -> None:
        self.vcpu.write_u64(ptep, pte)

    @hookimpl
    def set_pte_present(self, mm: int, addr: int, ptep: int, pte: int) -> None:
        self.vcpu.write_u64(ptep, pte)

    @hookimpl
    def set_pte_atomic(self, ptep: int, pte: int) -> None:
        self.vcpu.write_u64(ptep, pte)

    @hookimpl
    def set_pmd(self, pmdp: int, pmd: int) -> None:
        self.vcpu.write_u64(pmdp, pmd)

    @hookimpl
    def set_pud(self, pudp: int, pud: int) -> None:
        self.vcpu.write_u64(pudp, pud)

    @hookimpl
    def pte_clear(self, mm: int, addr: int, ptep: int) -> None:
        self.vcpu.write_u64(ptep, 0)

    @hookimpl
    def pmd_clear(self, pmdp: int) -> None:
        self.vcpu.write_u64(pmdp, 0)

    @hookimpl
    def pte_update(self, mm: int, addr: int, ptep: int) -> None:
        """There is no shadow to keep."""

    @hookimpl
    def pte_update_defer(self, mm: int, addr: int, ptep: int) -> None:
        """There is no shadow to keep."""

    # the kernel's view of an entry, and the CPU's
    @hookimpl
    def pte_val(self, pte: int) -> int:
        return pte

    @hookimpl
    def pmd_val(self, pmd: int) -> int:
        return pmd

    @hookimpl
    def pgd_val(self, pgd: int) -> int:
        return pgd

    @hookimpl
    def make_pte(self, pte: int) -> int:
        return pte

    @hookimpl
    def make_pmd(self, pmd: int) -> int:
        return pmd

    @hookimpl
    def make_pgd(self, pgd: int) -> int:
        return pgd


class PythonMmuBackend(Native):
    """The native platform, and the table above."""

    name = "python-mmu"
    summary = "bare hardware, its mmu ops in Python"

    @hookimpl
    def paravirt_install_ops(self, guest: Guest) -> OpTable:
        return PythonMmu(guest)


@hookimpl
def paravirt_backends() -> Iterable[type[Backend]]:
    return (PythonMmuBackend,)
