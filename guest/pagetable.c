/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page tables of one address space. Four directories exist from the start, as PAE wants; page tables come on
 * demand and are reached through kmap_atomic_pte, as if they could lie in high memory.
 * Ref: Linux 2.6.23 for the order of ops: alloc_pt before set_pmd, pmd_clear before release_pt.
 */
#include "alternative.h"
#include "mm.h"

#define KM_PTE0 11

/* Never NULL: all four directories are there. */
u64 *lookup_pmd(struct mm *mm, u32 address)
{
	return (u64 *)va(pgd_val(mm->pgd[address >> 30]) & PTE_ADDRESS) + (address >> 21) % PTRS_PER_PMD;
}

/* A page of low memory needs no mapping of its own. */
void *native_kmap_atomic_pte(struct page *page, u32 type)
{
	(void)type;
	return page_address(page);
}

/*
 * The entry of a user address, or NULL without a table (with `create`: without memory for it). Never inside a batch:
 * what is set here is read back at once.
 */
u64 *map_pte(struct mm *mm, u32 address, bool create)
{
	u64 *pmdp = lookup_pmd(mm, address);
	u64 *table;

	if (!(pmd_val(*pmdp) & _PAGE_PRESENT)) {
		void *page = create ? get_page() : NULL;

		if (!page)
			return NULL;
		alloc_pt(mm, pfn(page));
		set_pmd(pmdp, make_pmd(pa(page) | _PAGE_TABLE));
	}
	table = kmap_atomic_pte(&mem_map[(u32)((pmd_val(*pmdp) & PTE_ADDRESS) >> PAGE_SHIFT)], KM_PTE0);
	return table + (address >> PAGE_SHIFT) % PTRS_PER_PTE;
}

void unmap_pte(u64 *ptep)
{
	(void)ptep;	/* nothing was mapped */
}

u64 page_protection(u32 prot, bool writable)
{
	u64 flags = _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED;

	if (!prot)
		return _PAGE_PROTNONE;
	if (writable && prot & PROT_WRITE)
		flags |= _PAGE_RW | _PAGE_DIRTY;
	if (nx_enabled && !(prot & PROT_EXEC))
		flags |= _PAGE_NX;
	return flags;
}

s32 pgd_alloc(struct mm *mm)
{
	u32 i;

	mm->pgd = get_page();
	if (!mm->pgd)
		return -ENOMEM;
	for (i = 0; i < PTRS_PER_PGD; i++) {
		u64 *pmd;

		if (i == KERNEL_PGD && shared_kernel_pmd) {
			set_pud(&mm->pgd[i], swapper_pg_dir[i]);
			continue;
		}
		pmd = get_page();
		if (!pmd) {
			pgd_free(mm);
			return -ENOMEM;
		}
		if (i == KERNEL_PGD)
			memcpy(pmd, va(pgd_val(swapper_pg_dir[i]) & PTE_ADDRESS), PAGE_SIZE);
		alloc_pd(pfn(pmd));
		set_pud(&mm->pgd[i], make_pgd(pa(pmd) | _PAGE_PRESENT));
	}
	return 0;
}

/* The tables hold no user page any more and are not in CR3. */
void pgd_free(struct mm *mm)
{
	u32 i, j;

	for (i = 0; i < PTRS_PER_PGD; i++) {
		u64 *pmd = va(pgd_val(mm->pgd[i]) & PTE_ADDRESS);

		if (!(pgd_val(mm->pgd[i]) & _PAGE_PRESENT))
			continue;
		if (i == KERNEL_PGD && shared_kernel_pmd)
			continue;
		for (j = 0; i != KERNEL_PGD && j < PTRS_PER_PMD; j++) {
			void *table;

			if (!pmd[j])	/* an empty entry is 0 on any platform */
				continue;
			table = va(pmd_val(pmd[j]) & PTE_ADDRESS);
			pmd_clear(&pmd[j]);
			release_pt(pfn(table));
			put_page(table);
		}
		set_pud(&mm->pgd[i], 0);
		release_pd(pfn(pmd));
		put_page(pmd);
	}
	put_page(mm->pgd);
	mm->pgd = NULL;
}

/* Behind the last address that has its entry in the same table as `address`; `end` if that comes first. */
static u32 table_end(u32 address, u32 end)
{
	return min((address & ~(PMD_SIZE - 1u)) + PMD_SIZE, end);
}

/* The entry, which is empty afterwards. The CPU may set its dirty bit until the low half is gone. */
static u64 take_pte(struct mm *mm, u32 address, u64 *ptep)
{
	u32 *half = (u32 *)ptep;
	u32 low = 0, high;

	__asm__ volatile("xchgl %0, %1" : "+r"(low), "+m"(half[0]) : : "memory");
	high = half[1];
	half[1] = 0;
	pte_update(mm, address, ptep);
	return pte_val((u64)high << 32 | low);
}

/* Pages that lose a mapping. They may have a new owner only when no translation leads to them any more. */
#define GATHER_PAGES 64
struct gather {
	bool flush;
	u32 count;
	void *pages[GATHER_PAGES];
};

static void finish_gather(struct gather *gather)
{
	if (gather->flush && gather->count)
		flush_tlb_user();
	while (gather->count)
		put_page(gather->pages[--gather->count]);
}

/* Unmap user pages. Without `flush` the address space is dying and in no TLB. */
void clear_range(struct mm *mm, u32 start, u32 end, bool flush)
{
	struct gather gather = { .flush = flush };
	u32 address = start;

	while (address < end) {
		u64 *ptep = map_pte(mm, address, false);
		u32 next = table_end(address, end);

		if (!ptep) {
			address = next;
			continue;
		}
		set_lazy_mode(LAZY_MMU);
		for (; address < next && gather.count < GATHER_PAGES; address += PAGE_SIZE, ptep++) {
			u64 pte = pte_val(*ptep);

			if (!has_page(pte))
				continue;
			gather.pages[gather.count++] = va(pte & PTE_ADDRESS);
			if (flush)
				take_pte(mm, address, ptep);
			else
				pte_clear(mm, address, ptep);
		}
		set_lazy_mode(LAZY_NONE);
		unmap_pte(ptep - 1);
		if (gather.count == GATHER_PAGES)
			finish_gather(&gather);
	}
	finish_gather(&gather);
}

/*
 * Give the pages of an area its rights. A page that a fork shares stays read-only. The caller flushes the TLB. Entries
 * are replaced as they stand: what the CPU may set in one meanwhile, accessed and dirty, is in the new one anyway.
 */
void protect_range(struct mm *mm, const struct vma *vma)
{
	u32 address = vma->start;

	while (address < vma->end) {
		u64 *ptep = map_pte(mm, address, false);
		u32 next = table_end(address, vma->end);

		if (!ptep) {
			address = next;
			continue;
		}
		set_lazy_mode(LAZY_MMU);
		for (; address < next; address += PAGE_SIZE, ptep++) {
			u64 pte = pte_val(*ptep);
			void *page = va(pte & PTE_ADDRESS);

			if (!has_page(pte))
				continue;
			set_pte_at(mm, address, ptep,
				   pte_of(page, page_protection(vma->prot, va_to_page(page)->count == 1)));
		}
		set_lazy_mode(LAZY_NONE);
		unmap_pte(ptep - 1);
	}
}

/* One page for two address spaces, read-only in both. */
static void share_page(struct mm *to, struct mm *from, u32 address, u64 *target, u64 *source)
{
	u64 pte = pte_val(*source);

	if (!has_page(pte))
		return;
	if (pte & _PAGE_RW) {
		__asm__ volatile(LOCK_PREFIX "btrl %[bit], %[entry]"
				 : [entry] "+m"(*(u32 *)source) : [bit] "Ir"(PAGE_RW_BIT) : "cc");
		pte_update(from, address, source);
		pte &= ~(u64)_PAGE_RW;
	}
	mem_map[(u32)((pte & PTE_ADDRESS) >> PAGE_SHIFT)].count++;
	set_pte_at(to, address, target, make_pte(pte));
}

/* Share the pages of one area, read-only on both sides: whoever writes first gets a copy. */
s32 copy_range(struct mm *to, struct mm *from, const struct vma *vma)
{
	u32 address = vma->start;

	while (address < vma->end) {
		u64 *source = map_pte(from, address, false), *target;
		u32 next = table_end(address, vma->end);

		if (!source) {
			address = next;
			continue;
		}
		target = map_pte(to, address, true);
		if (!target)
			return -ENOMEM;
		set_lazy_mode(LAZY_MMU);
		for (; address < next; address += PAGE_SIZE, source++, target++)
			share_page(to, from, address, target, source);
		set_lazy_mode(LAZY_NONE);
		unmap_pte(target - 1);
		unmap_pte(source - 1);
	}
	return 0;
}
