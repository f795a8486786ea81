/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * init_mm: the kernel's own mappings, in 4 KiB pages. Low memory at 3 GiB, the fixed addresses at the top, and
 * until mem_init low memory once more at 0, where head.S ran.
 * A hypervisor's domain builder has put mappings into swapper_pg_dir before us: tables that exist are kept.
 * Ref: Intel SDM vol. 3A, 4.4 (PAE), 4.6 (access rights, NX), 4.10 (TLB).
 */
#include "mm.h"

#define CR4_PGE 0x80
#define MSR_EFER 0xc0000080
#define EFER_NXE 0x800
#define FEATURE_NX (1 << 20)	/* CPUID 80000001h, EDX */
#define OPTION_ROMS 0xc0000

extern char _text[], _etext[], _rodata_end[], _end[];

/* Four entries; a page of its own, which a hypervisor can make read-only. */
u64 swapper_pg_dir[PAGE_SIZE / 8] aligned(PAGE_SIZE) section(".data.page_aligned");
struct mm init_mm = { .pgd = swapper_pg_dir };
u32 __FIXADDR_TOP = 0xfffff000;
bool nx_enabled;
static u64 kernel_global;

void set_nx(void)
{
	u32 a, b, c, d;
	s32 error;
	u64 efer;

	cpuid(0x80000000, &a, &b, &c, &d);
	if (a < 0x80000001)
		return;
	cpuid(0x80000001, &a, &b, &c, &d);
	if (!(d & FEATURE_NX))
		return;
	efer = read_msr(MSR_EFER, &error);
	if (error || write_msr(MSR_EFER, efer | EFER_NXE))
		return;
	nx_enabled = true;
	printk("NX (Execute Disable) protection: active\n");
}

static u64 *kernel_pmd(u32 address)
{
	u64 *pudp = &swapper_pg_dir[address >> 30];

	if (!(pgd_val(*pudp) & _PAGE_PRESENT)) {
		void *page = early_page();

		alloc_pd(pfn(page));
		set_pud(pudp, make_pgd(pa(page) | _PAGE_PRESENT));
	}
	return (u64 *)va(pgd_val(*pudp) & PTE_ADDRESS) + (address >> 21) % PTRS_PER_PMD;
}

/* The entry of an address of the kernel's; its table is made if there is none. */
u64 *kernel_pte(u32 address)
{
	u64 *pmdp = kernel_pmd(address);

	if (!(pmd_val(*pmdp) & _PAGE_PRESENT)) {
		void *page = early_page();

		alloc_pt(&init_mm, pfn(page));
		set_pmd(pmdp, make_pmd(pa(page) | _PAGE_TABLE));
	}
	return (u64 *)va(pmd_val(*pmdp) & PTE_ADDRESS) + (address >> PAGE_SHIFT) % PTRS_PER_PTE;
}

static u64 kernel_flags(u32 address)
{
	u64 flags = _PAGE_PRESENT | _PAGE_RW | _PAGE_ACCESSED | _PAGE_DIRTY | kernel_global;
	/* A paravirtual ROM's code runs where it lies. */
	bool code = (address >= (u32)_text && address < (u32)_etext) ||
		    (pa(address) >= OPTION_ROMS && pa(address) < 0x100000);

	return code || !nx_enabled ? flags : flags | _PAGE_NX;
}

/* Keep the last `reserve` bytes of the address space free for whatever the platform has there. Before paging_init. */
void reserve_top_address(u32 reserve)
{
	__FIXADDR_TOP = 0u - reserve - PAGE_SIZE;
}

/* Between the ops pagetable_setup_start and pagetable_setup_done. */
void pagetable_init(void)
{
	u32 address, end = PAGE_OFFSET + (max_low_pfn << PAGE_SHIFT);
	u64 *ptep = NULL;

	if (cpu_features & FEATURE_PGE) {
		write_cr4(read_cr4() | CR4_PGE);
		kernel_global = _PAGE_GLOBAL;
	}
	for (address = PAGE_OFFSET; address < end; address += PAGE_SIZE) {
		if (address % PMD_SIZE == 0)
			ptep = kernel_pte(address);
		set_pte(ptep++, make_pte(pa(address) | kernel_flags(address)));
	}
	for (address = fix_to_va(FIX_COUNT) & ~(PMD_SIZE - 1u); address && address < __FIXADDR_TOP; address += PMD_SIZE)
		kernel_pte(address);
	if (boot_identity)
		set_pud(&swapper_pg_dir[0], swapper_pg_dir[KERNEL_PGD]);
}

u64 *fixmap_pte(u32 index)
{
	return kernel_pte(fix_to_va(index));
}

void set_fixmap(u32 index, u32 physical, u64 flags)
{
	u32 address = fix_to_va(index);

	set_pte(kernel_pte(address), make_pte(physical | flags));
	flush_tlb_single(address);
}

void clear_fixmap(u32 index)
{
	u32 address = fix_to_va(index);

	pte_clear(&init_mm, address, kernel_pte(address));
	flush_tlb_single(address);
}

/* Whether a store by the kernel to a read-only page faults (CR0.WP); fork relies on it. */
static bool write_protect_works(void)
{
	u32 faulted = 1;

	set_fixmap(FIX_WP_TEST, pa(swapper_pg_dir), _PAGE_PRESENT | _PAGE_ACCESSED);
	__asm__ volatile("movb (%[p]), %%al\n1:\tmovb %%al, (%[p])\n\txorl %[f], %[f]\n2:\n"
			 "\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : [f] "+&r"(faulted) : [p] "r"(fix_to_va(FIX_WP_TEST)) : "eax", "memory", "cc");
	clear_fixmap(FIX_WP_TEST);
	return faulted;
}

void mem_init(void)
{
	u32 i;

	if (!(save_fl() & X86_EFLAGS_IF))
		panic("interrupts are still off");
	if (!write_protect_works())
		panic("this CPU does not honour the WP bit in supervisor mode");
	printk("Checking if this processor honours the WP bit even in supervisor mode... Ok.\n");
	for (i = 0; i < USER_PGDS; i++)
		set_pud(&swapper_pg_dir[i], 0);
	flush_tlb_kernel();
	boot_identity = 0;
	printk("Memory: %uk/%uk available (%uk kernel code, %uk data)\n", free_pages * 4, max_low_pfn * 4,
	       (u32)(_etext - _text) >> 10, (u32)(_end - _etext) >> 10);
}

/* Last, since call sites are patched and op code is installed before. */
void mark_text_read_only(void)
{
	u32 address;

	set_lazy_mode(LAZY_MMU);
	for (address = (u32)_text; address < (u32)_rodata_end; address += PAGE_SIZE) {
		u64 *ptep = kernel_pte(address);

		set_pte_atomic(ptep, make_pte(pte_val(*ptep) & ~(u64)_PAGE_RW));
	}
	set_lazy_mode(LAZY_NONE);
	wbinvd();	/* as after each change of attributes: of what is cached, some may be no longer */
	flush_tlb_kernel();
	printk("Write protecting the kernel text: %uk\n", (u32)(_rodata_end - _text) >> 10);
}
