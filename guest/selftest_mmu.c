/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the ops that change translations. Each is looked at twice: what stands in the table, and what the CPU
 * makes of it after the flush.
 */
#include "selftest.h"

#define TEST_ADDRESS 0x10000000u
#define KERNEL_FLAGS (_PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY)

static u32 *page_a, *page_b;

static u64 flags_of(u64 more)
{
	return KERNEL_FLAGS | more | (nx_enabled ? _PAGE_NX : 0);	/* a bit in the high word, too */
}

static u32 read_test(void)
{
	return *(volatile u32 *)fix_to_va(FIX_TEST);
}

/* Both halves of an entry, in the kernel's view. */
static void expect_entry(const char *what, u64 got, u64 expected)
{
	expect(what, (u32)got, (u32)expected);
	expect(what, (u32)(got >> 32), (u32)(expected >> 32));
}

static void test_conversions(void)
{
	static const u64 values[] = { 0, 0x1000, 0x100063, 0x200163, 0x300067 };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		u64 high = nx_enabled && values[i] & 1 ? _PAGE_NX : 0;

		expect_entry("make_pte, pte_val", pte_val(make_pte(values[i] | high)), values[i] | high);
		expect_entry("make_pmd, pmd_val", pmd_val(make_pmd(values[i])), values[i]);
		expect_entry("make_pgd, pgd_val", pgd_val(make_pgd(values[i] & ~0x66ULL)), values[i] & ~0x66ULL);
	}
	passed("entry conversions");
}

/* One address, two pages in turn: after each kind of flush the CPU must see the second. */
static void test_flushes(void)
{
	u64 *ptep = fixmap_pte(FIX_TEST);
	u32 kind;

	for (kind = 0; kind < 4; kind++) {
		u64 global = kind == 2 && cpu_features & FEATURE_PGE ? _PAGE_GLOBAL : 0;

		set_fixmap(FIX_TEST, pa(page_a), flags_of(global));
		expect("set_fixmap", read_test(), *page_a);
		set_pte(ptep, pte_of(page_b, flags_of(global)));
		switch (kind) {
		case 0:
			flush_tlb_single(fix_to_va(FIX_TEST));
			expect("flush_tlb_single", read_test(), *page_b);
			break;
		case 1:
			flush_tlb_user();
			expect("flush_tlb_user", read_test(), *page_b);
			break;
		case 2:
			flush_tlb_kernel();
			expect("flush_tlb_kernel", read_test(), *page_b);
			break;
		default:
			write_cr3(read_cr3());
			expect("write_cr3 flushes", read_test(), *page_b);
		}
	}
	*(volatile u32 *)fix_to_va(FIX_TEST) = 0xbbbb0001;
	expect("write through an alias", *(volatile u32 *)page_b, 0xbbbb0001);
	passed("tlb flushes");
}

/* Whether the test address leads to `page`, which makes sense only after a flush. */
static void expect_page(const char *what, u64 *ptep, const u32 *page)
{
	expect_entry(what, pte_val(*ptep) & ~0x60ULL, (pa(page) | flags_of(0)) & ~0x60ULL);
	flush_tlb_single(fix_to_va(FIX_TEST));
	expect(what, read_test(), *page);
}

static void test_entries(void)
{
	u64 *ptep = fixmap_pte(FIX_TEST);
	u32 value, address = fix_to_va(FIX_TEST);

	pte_clear(&init_mm, address, ptep);
	flush_tlb_single(address);
	expect_entry("pte_clear", *ptep, 0);
	expect("pte_clear: access", probe_read(address, &value), false);
	set_pte(ptep, pte_of(page_a, flags_of(0)));
	expect_page("set_pte", ptep, page_a);
	set_pte_atomic(ptep, pte_of(page_b, flags_of(0)));
	expect_page("set_pte_atomic", ptep, page_b);
	set_pte_present(&init_mm, address, ptep, pte_of(page_a, flags_of(0)));
	expect_page("set_pte_present", ptep, page_a);
	set_pte_at(&init_mm, address, ptep, pte_of(page_b, flags_of(0)));
	expect_page("set_pte_at", ptep, page_b);
	set_pte(ptep, pte_of(page_b, flags_of(0) & ~(u64)_PAGE_RW));
	flush_tlb_single(address);
	expect("read-only: write", probe_write(address, 1), false);
	expect("read-only: read", probe_read(address, &value), true);
	expect("kernel text: write", probe_write((u32)test_mmu, 0), false);
	clear_fixmap(FIX_TEST);
	expect("clear_fixmap", probe_read(address, &value), false);
	passed("page-table entries");
}

/* After the end of a batch, and after a flush inside it, everything has happened. */
static void test_batches(void)
{
	u64 *ptep = fixmap_pte(FIX_TEST);

	set_fixmap(FIX_TEST, pa(page_a), flags_of(0));
	expect("batch: before", read_test(), *page_a);
	set_lazy_mode(LAZY_MMU);
	set_pte(ptep, pte_of(page_b, flags_of(0)));
	set_lazy_mode(LAZY_FLUSH);
	expect_entry("batch: flush", pte_val(*ptep) & PTE_ADDRESS, pa(page_b));
	set_pte(ptep, pte_of(page_a, flags_of(0)));
	set_pte(ptep, pte_of(page_b, flags_of(0)));
	flush_tlb_single(fix_to_va(FIX_TEST));
	set_lazy_mode(LAZY_NONE);
	expect("batch: order", read_test(), *page_b);
	clear_fixmap(FIX_TEST);
	passed("lazy mmu mode");
}

/* An address space of its own, made, loaded and freed. */
static void test_address_space(void)
{
	u32 free = free_pages, value, flags;
	struct mm *mm = mm_alloc();
	u64 *pmdp, *ptep, *table, *unused;
	void *page = get_page();

	if (!mm || !page || add_vma(mm, TEST_ADDRESS, TEST_ADDRESS + PAGE_SIZE, PROT_READ | PROT_WRITE, 0)) {
		expect("no memory for a test", 1, 0);
		return;
	}
	*(u32 *)page = 0xcafe;
	pmdp = lookup_pmd(mm, TEST_ADDRESS);
	expect_entry("empty pmd", pmd_val(*pmdp), 0);
	ptep = map_pte(mm, TEST_ADDRESS, true);
	expect("set_pmd", (u32)pmd_val(*pmdp) & 0x87, 0x07);
	table = va(pmd_val(*pmdp) & PTE_ADDRESS);
	set_pte_at(mm, TEST_ADDRESS, ptep, pte_of(page, page_protection(PROT_READ | PROT_WRITE, true)));
	expect_entry("kmap_atomic_pte", *ptep, table[(TEST_ADDRESS >> PAGE_SHIFT) % PTRS_PER_PTE]);
	expect("no mapping here", probe_read(TEST_ADDRESS, &value), false);

	flags = irq_save();
	activate_mm(active_mm, mm);
	switch_mm(mm);
	expect("cr3 of the new space", read_cr3(), pa(mm->pgd));
	expect("new space: read", probe_read(TEST_ADDRESS, &value), true);
	expect("new space: value", value, 0xcafe);
	expect("new space: write", probe_write(TEST_ADDRESS, 0xbabe), true);
	expect("new space: next page", probe_read(TEST_ADDRESS + PAGE_SIZE, &value), false);
	switch_mm(&init_mm);
	expect("cr3 of the old space", read_cr3(), pa(swapper_pg_dir));
	expect("old space", probe_read(TEST_ADDRESS, &value), false);
	restore_fl(flags);
	expect("page of the new space", *(u32 *)page, 0xbabe);

	arch_exit_mmap(mm);
	clear_range(mm, TEST_ADDRESS, TEST_ADDRESS + PAGE_SIZE, false);
	expect_entry("cleared pte", table[(TEST_ADDRESS >> PAGE_SHIFT) % PTRS_PER_PTE], 0);
	pmd_clear(pmdp);
	expect_entry("pmd_clear", *pmdp, 0);
	release_pt(pfn(table));
	put_page(table);
	unused = va(pgd_val(mm->pgd[1]) & PTE_ADDRESS);
	set_pud(&mm->pgd[1], 0);
	expect_entry("set_pud", mm->pgd[1], 0);
	release_pd(pfn(unused));
	put_page(unused);
	pgd_free(mm);
	expect("free pages", free_pages, free);
	passed("address space");
}

void test_mmu(void)
{
	page_a = get_page();
	page_b = get_page();
	if (!page_a || !page_b)
		panic("no memory for the tests");
	*page_a = 0xaaaa0000;
	*page_b = 0xbbbb0000;
	test_conversions();
	test_flushes();
	test_entries();
	test_batches();
	test_address_space();
	put_page(page_a);
	put_page(page_b);
}
