# mypy: disable-error-code=empty-body
"""Ops of the address space: its life, the TLB, the life of a page table, page-table entries.

Entries are PAE's, 64 bits wide. `pte` values that reach set_* and leave *_val differ where the platform's
frames are not the guest's: make_* turns a pseudo-physical entry into the machine's, *_val turns it back, and
what set_* stores has been through make_*. A non-present entry is left alone by both.

In lazy MMU mode what set_*, *_clear and flush_tlb_* do may wait for the end of the batch.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h, pgtable-3level.h; callers in mm/memory.c, kernel/fork.c,
fs/exec.c, arch/i386/mm/init.c, arch/i386/mm/pgtable.c. Intel SDM vol. 3, 4.4 (PAE), 4.10 (TLB).
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import U32, U64, GuestAddr


@op(prototype="void (*activate_mm)(struct mm_struct *prev, struct mm_struct *next)")
def activate_mm(prev: GuestAddr, next: GuestAddr) -> None:
    """Announce an address space that is about to be used for the first time.

    Afterwards CR3 may load its tables; a hypervisor may now hold them read-only. Called by exec before the switch.

    :param prev: the mm_struct in use.
    :param next: the mm_struct to be used.
    """


@op(prototype="void (*dup_mmap)(struct mm_struct *oldmm, struct mm_struct *mm)")
def dup_mmap(oldmm: GuestAddr, mm: GuestAddr) -> None:
    """Announce an address space that fork has copied.

    Afterwards CR3 may load its tables; a hypervisor may now hold them read-only. Called by fork at its end.

    :param oldmm: the parent's mm_struct.
    :param mm: the child's mm_struct.
    """


@op(prototype="void (*exit_mmap)(struct mm_struct *mm)")
def exit_mmap(mm: GuestAddr) -> None:
    """Announce that an address space goes away.

    Afterwards a platform that held its tables has let go of them: no CPU has them in CR3, and they are plain
    memory. Called by the last user's exit or exec, before the mappings are taken down.

    :param mm: the mm_struct.
    """


@op(prototype="void (*flush_tlb_user)(void)")
def flush_tlb_user() -> None:
    """Drop this CPU's translations, global pages aside.

    Afterwards all else is translated by the tables in memory. Called by flush_tlb and pgd updates.
    """


@op(prototype="void (*flush_tlb_kernel)(void)")
def flush_tlb_kernel() -> None:
    """Drop all translations of this CPU, global pages too.

    Afterwards every address is translated by the tables in memory. Called by flush_tlb_all and paging_init.
    """


@op(prototype="void (*flush_tlb_single)(unsigned long addr)")
def flush_tlb_single(addr: GuestAddr) -> None:
    """Drop this CPU's translation of one page.

    Afterwards the tables in memory translate it. Called by set_fixmap, kmap_atomic and flush_tlb_page.

    :param addr: any address in the page.
    """


@op(prototype="void (*flush_tlb_others)(const cpumask_t *cpus, struct mm_struct *mm, unsigned long va)")
def flush_tlb_others(cpus: GuestAddr, mm: GuestAddr, va: GuestAddr) -> None:
    """Drop translations on other CPUs.

    Afterwards none of them uses a stale entry of that address space. Called by flush_tlb_mm, flush_tlb_page and
    their like on SMP kernels, with preemption off.

    :param cpus: bit mask of the CPUs, without this one.
    :param mm: the address space.
    :param va: the page, or 0xffffffff for all.
    """


@op(prototype="void (*alloc_pt)(struct mm_struct *mm, u32 pfn)")
def alloc_pt(mm: GuestAddr, pfn: U32) -> None:
    """Announce that a page becomes a page table.

    Afterwards a PMD entry may point to it; a hypervisor may now hold it read-only. Called by pte_alloc and by
    the construction of init_mm's tables, before the entry is set.

    :param mm: the address space it will belong to.
    :param pfn: the page's pseudo-physical frame number.
    """


@op(prototype="void (*alloc_pd)(u32 pfn)")
def alloc_pd(pfn: U32) -> None:
    """Announce that a page becomes a page directory (PAE: a PMD page).

    Afterwards an entry of the level above may point to it. Called by pgd_alloc and by the construction of
    init_mm's tables, before the entry is set.

    :param pfn: the page's pseudo-physical frame number.
    """


@op(prototype="void (*alloc_pd_clone)(u32 pfn, u32 clonepfn, u32 start, u32 count)")
def alloc_pd_clone(pfn: U32, clonepfn: U32, start: U32, count: U32) -> None:
    """Announce a page directory of which a part is a copy.

    It leaves what alloc_pd leaves, and the platform may take over what it knows of the copied entries. Called
    by pgd_ctor of two-level kernels; a PAE kernel of 2.6.23 never comes here.

    :param pfn: frame number of the new directory.
    :param clonepfn: frame number of the directory copied from.
    :param start: first copied entry.
    :param count: number of copied entries.
    """


@op(prototype="void (*release_pt)(u32 pfn)")
def release_pt(pfn: U32) -> None:
    """Announce that a page is no page table any more.

    Afterwards it is plain memory, writable to the kernel. Called before it is freed, when no table in use has it.

    :param pfn: the page's pseudo-physical frame number.
    """


@op(prototype="void (*release_pd)(u32 pfn)")
def release_pd(pfn: U32) -> None:
    """Announce that a page is no page directory any more.

    Afterwards it is plain memory, writable to the kernel. Called before it is freed, when no table in use has it.

    :param pfn: the page's pseudo-physical frame number.
    """


@op(prototype="void (*set_pte)(pte_t *ptep, pte_t pte)", null="pagetable_setup_start fills it before the first call")
def set_pte(ptep: GuestAddr, pte: U64) -> None:
    """Store a page-table entry.

    Afterwards `*ptep` is `pte`. The high word is stored first: an entry that was not present never is with half
    an address. The TLB is not flushed. Called where the mm is not known: init_mm's tables, fixmaps, kmaps, vmalloc.

    :param ptep: the entry.
    :param pte: its new value.
    """


@op(prototype="void (*set_pte_at)(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pte)")
def set_pte_at(mm: GuestAddr, addr: GuestAddr, ptep: GuestAddr, pte: U64) -> None:
    """Store the page-table entry of a known address.

    It leaves what set_pte leaves; the platform may use `addr` to update the mapping if `mm` is in use. Called
    by the page-fault handler, fork and mprotect; the slot is read each time.

    :param mm: the address space.
    :param addr: the address that the entry maps.
    :param ptep: the entry.
    :param pte: its new value.
    """


@op(prototype="void (*set_pmd)(pmd_t *pmdp, pmd_t pmd)")
def set_pmd(pmdp: GuestAddr, pmd: U64) -> None:
    """Store an entry of the middle level.

    Afterwards `*pmdp` is `pmd`, stored in one access. The TLB is not flushed. Called by pmd_populate and the
    construction of init_mm's tables.

    :param pmdp: the entry.
    :param pmd: its new value.
    """


@op(prototype="void (*pte_update)(struct mm_struct *mm, unsigned long addr, pte_t *ptep)")
def pte_update(mm: GuestAddr, addr: GuestAddr, ptep: GuestAddr) -> None:
    """Announce that the kernel changed an entry by itself.

    Afterwards the platform has seen the entry, if it keeps a shadow; memory does not change. Called after
    write-protecting an entry or clearing its accessed bit in place.

    :param mm: the address space.
    :param addr: the address that the entry maps.
    :param ptep: the entry.
    """


@op(prototype="void (*pte_update_defer)(struct mm_struct *mm, unsigned long addr, pte_t *ptep)")
def pte_update_defer(mm: GuestAddr, addr: GuestAddr, ptep: GuestAddr) -> None:
    """Announce a change of an entry that a TLB flush will follow.

    It leaves what pte_update leaves, at the latest when that flush returns. Called when permissions are raised
    or the accessed bit is set.

    :param mm: the address space.
    :param addr: the address that the entry maps.
    :param ptep: the entry.
    """


@op(prototype="void *(*kmap_atomic_pte)(struct page *page, enum km_type type)")
def kmap_atomic_pte(page: GuestAddr, type: U32) -> GuestAddr:
    """Map a page table that lies in high memory.

    Afterwards the page is mapped in this CPU's slot of that type, read-only where the platform holds the table
    so. Called by pte_offset_map; kunmap_atomic undoes it.

    :param page: the page's struct page.
    :param type: the kind of slot (enum km_type: KM_PTE0, KM_PTE1).
    :returns: where it is mapped; for a page of low memory, its usual address.
    """


@op(prototype="void (*set_pte_atomic)(pte_t *ptep, pte_t pte)")
def set_pte_atomic(ptep: GuestAddr, pte: U64) -> None:
    """Store a page-table entry in one access.

    Afterwards `*ptep` is `pte`; no CPU ever saw one half without the other. Called for mappings in use.

    :param ptep: the entry.
    :param pte: its new value.
    """


@op(prototype="void (*set_pte_present)(struct mm_struct *mm, unsigned long addr, pte_t *ptep, pte_t pte)")
def set_pte_present(mm: GuestAddr, addr: GuestAddr, ptep: GuestAddr, pte: U64) -> None:
    """Replace a present entry by another present one.

    Afterwards `*ptep` is `pte`; in between it was not present, and never half old and half new. Called by the
    write-fault path when it raises permissions; the slot is read each time.

    :param mm: the address space.
    :param addr: the address that the entry maps.
    :param ptep: the entry.
    :param pte: its new value.
    """


@op(prototype="void (*set_pud)(pud_t *pudp, pud_t pud)")
def set_pud(pudp: GuestAddr, pud: U64) -> None:
    """Store one of the four entries of the top level.

    Afterwards `*pudp` is `pud`, stored in one access. The CPU keeps the four it read with CR3, so a change takes
    effect with the next load of CR3 or flush of the whole TLB. Called by the construction of page tables, and by
    mem_init, which drops the low mappings.

    :param pudp: the entry.
    :param pud: its new value.
    """


@op(prototype="void (*pte_clear)(struct mm_struct *mm, unsigned long addr, pte_t *ptep)")
def pte_clear(mm: GuestAddr, addr: GuestAddr, ptep: GuestAddr) -> None:
    """Clear a page-table entry.

    Afterwards `*ptep` is 0, low word stored first, so it is not present before its address goes. The TLB is not
    flushed. Called by vunmap, unmapping of kmaps and fixmaps, and munmap.

    :param mm: the address space.
    :param addr: the address that the entry maps.
    :param ptep: the entry.
    """


@op(prototype="void (*pmd_clear)(pmd_t *pmdp)")
def pmd_clear(pmdp: GuestAddr) -> None:
    """Clear an entry of the middle level.

    Afterwards `*pmdp` is 0, low word stored first. The TLB is not flushed. Called when a page table is freed.

    :param pmdp: the entry.
    """


@op(prototype="u64 (*pte_val)(pte_t pte)")
def pte_val(pte: U64) -> U64:
    """Turn a page-table entry as stored into the kernel's view.

    No state changes. Called by everything that looks at an entry's frame or flags.

    :param pte: an entry as it stands in the table.
    :returns: the same entry with a pseudo-physical address.
    """


@op(prototype="u64 (*pmd_val)(pmd_t pmd)")
def pmd_val(pmd: U64) -> U64:
    """Turn an entry of the middle level as stored into the kernel's view.

    No state changes. Called by the walk of the page tables.

    :param pmd: an entry as it stands in the table.
    :returns: the same entry with a pseudo-physical address.
    """


@op(prototype="u64 (*pgd_val)(pgd_t pgd)")
def pgd_val(pgd: U64) -> U64:
    """Turn an entry of the top level as stored into the kernel's view.

    No state changes. Called by the walk of the page tables.

    :param pgd: an entry as it stands in the table.
    :returns: the same entry with a pseudo-physical address.
    """


@op(prototype="pte_t (*make_pte)(u64 pte)")
def make_pte(pte: U64) -> U64:
    """Turn the kernel's view of a page-table entry into what is stored.

    No state changes; pte_val undoes it. Called by pfn_pte, mk_pte and pte_modify.

    :param pte: an entry with a pseudo-physical address.
    :returns: the entry for the table.
    """


@op(prototype="pmd_t (*make_pmd)(u64 pmd)")
def make_pmd(pmd: U64) -> U64:
    """Turn the kernel's view of an entry of the middle level into what is stored.

    No state changes; pmd_val undoes it. Called by pmd_populate.

    :param pmd: an entry with a pseudo-physical address.
    :returns: the entry for the table.
    """


@op(prototype="pgd_t (*make_pgd)(u64 pgd)")
def make_pgd(pgd: U64) -> U64:
    """Turn the kernel's view of an entry of the top level into what is stored.

    No state changes; pgd_val undoes it. Called by pgd_alloc and pud_populate.

    :param pgd: an entry with a pseudo-physical address.
    :returns: the entry for the table.
    """
