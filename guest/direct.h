/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ops as instructions of bare hardware, without a table and without call sites: what a kernel costs that is
 * built for nothing else. Only builds with PARAVIRT_DIRECT have it, to be measured against (docs/cost.md); the
 * steps that start_kernel takes go through the table in these as well.
 * Ref: Intel SDM vol. 2 (each instruction); paravirt/native.S, which these must do the same as.
 */
#ifndef DIRECT_H
#define DIRECT_H

#include "segment.h"

extern u64 cpu_gdt_table[GDT_ENTRIES];
u64 native_sched_clock(void);
u32 native_get_wallclock(void);
s32 native_set_wallclock(u32 seconds);

/* The interrupt flag. */
static inline u32 save_fl(void)
{
	u32 flags;

	__asm__ volatile("pushfl\n\tpopl %0" : "=r"(flags) : : "memory");
	return flags;
}
static inline void restore_fl(u32 flags) { __asm__ volatile("pushl %0\n\tpopfl" : : "r"(flags) : "memory", "cc"); }
static inline void irq_disable(void) { __asm__ volatile("cli" : : : "memory"); }
static inline void irq_enable(void) { __asm__ volatile("sti" : : : "memory"); }
static inline void safe_halt(void) { __asm__ volatile("sti\n\thlt" : : : "memory"); }
static inline void halt(void) { __asm__ volatile("hlt" : : : "memory"); }

/* The CPU. */
static inline void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
	*a = leaf;
	*c = 0;
	__asm__ volatile("cpuid" : "+a"(*a), "=b"(*b), "+c"(*c), "=d"(*d));
}
#define DIRECT_CONTROL(name) \
	static inline u32 read_##name(void) \
	{ u32 value; __asm__ volatile("movl %%" #name ", %0" : "=r"(value) : : "memory"); return value; } \
	static inline void write_##name(u32 value) { __asm__ volatile("movl %0, %%" #name : : "r"(value) : "memory"); }
DIRECT_CONTROL(cr0)
DIRECT_CONTROL(cr2)
DIRECT_CONTROL(cr3)
DIRECT_CONTROL(cr4)
static inline u32 read_cr4_safe(void) { return read_cr4(); }
static inline void clts(void) { __asm__ volatile("clts"); }
static inline void wbinvd(void) { __asm__ volatile("wbinvd" : : : "memory"); }
static inline u32 get_debugreg(u32 reg)
{
	u32 value;

	switch (reg) {
	case 0: __asm__ volatile("movl %%dr0, %0" : "=r"(value)); break;
	case 1: __asm__ volatile("movl %%dr1, %0" : "=r"(value)); break;
	case 2: __asm__ volatile("movl %%dr2, %0" : "=r"(value)); break;
	case 3: __asm__ volatile("movl %%dr3, %0" : "=r"(value)); break;
	case 6: __asm__ volatile("movl %%dr6, %0" : "=r"(value)); break;
	default: __asm__ volatile("movl %%dr7, %0" : "=r"(value));
	}
	return value;
}
static inline void set_debugreg(u32 reg, u32 value)
{
	switch (reg) {
	case 0: __asm__ volatile("movl %0, %%dr0" : : "r"(value)); break;
	case 1: __asm__ volatile("movl %0, %%dr1" : : "r"(value)); break;
	case 2: __asm__ volatile("movl %0, %%dr2" : : "r"(value)); break;
	case 3: __asm__ volatile("movl %0, %%dr3" : : "r"(value)); break;
	case 6: __asm__ volatile("movl %0, %%dr6" : : "r"(value)); break;
	default: __asm__ volatile("movl %0, %%dr7" : : "r"(value));
	}
}
/* A register that the CPU has not: -EFAULT. */
static inline u64 read_msr(u32 msr, s32 *error)
{
	u32 low = 0, high = 0;

	*error = -14;
	__asm__ volatile("1:\trdmsr\n\tmovl $0, %[error]\n2:\n\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : "+a"(low), "+d"(high), [error] "+m"(*error) : "c"(msr) : "memory");
	return (u64)high << 32 | low;
}
static inline s32 write_msr(u32 msr, u64 value)
{
	s32 error = -14;

	__asm__ volatile("1:\twrmsr\n\txorl %[error], %[error]\n2:\n"
			 "\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : [error] "+&r"(error) : "a"((u32)value), "d"((u32)(value >> 32)), "c"(msr) : "memory", "cc");
	return error;
}
static inline u64 read_tsc(void)
{
	u32 low, high;

	__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
	return (u64)high << 32 | low;
}
static inline u64 sched_clock(void) { return native_sched_clock(); }
static inline s32 set_wallclock(u32 seconds) { return native_set_wallclock(seconds); }
static inline u32 get_wallclock(void) { return native_get_wallclock(); }
static inline void io_delay(void) { __asm__ volatile("outb %%al, $0x80\n\toutb %%al, $0x80" : : : "memory"); }

/* Descriptor tables. */
static inline void load_tr_desc(void) { __asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR) : "memory"); }
static inline void load_gdt(const struct descriptor_table *t) { __asm__ volatile("lgdt (%0)" : : "r"(t) : "memory"); }
static inline void load_idt(const struct descriptor_table *t) { __asm__ volatile("lidt (%0)" : : "r"(t) : "memory"); }
static inline void store_gdt(struct descriptor_table *t) { __asm__ volatile("sgdt (%0)" : : "r"(t) : "memory"); }
static inline void write_ldt_entry(void *t, u32 i, u32 low, u32 high) { ((u64 *)t)[i] = (u64)high << 32 | low; }
static inline void write_gdt_entry(void *t, u32 i, u32 low, u32 high) { ((u64 *)t)[i] = (u64)high << 32 | low; }
static inline void write_idt_entry(void *t, u32 i, u32 low, u32 high) { ((u64 *)t)[i] = (u64)high << 32 | low; }
static inline void set_ldt(const void *table, u32 entries)
{
	u32 base = (u32)table, selector = 0;

	if (entries) {
		write_gdt_entry(cpu_gdt_table, GDT_ENTRY_LDT, base << 16 | (entries * 8 - 1),
				(base & 0xff000000) | 0x8200 | (base >> 16 & 0xff));
		selector = LDT_SELECTOR;
	}
	__asm__ volatile("lldt %w0" : : "r"(selector) : "memory");
}
/* struct thread begins with the three descriptors; esp0 and sysenter_cs stand behind them. */
static inline void load_tls(struct thread *thread, u32 cpu)
{
	const u64 *tls = (const void *)thread;

	(void)cpu;
	cpu_gdt_table[GDT_ENTRY_TLS_MIN] = tls[0];
	cpu_gdt_table[GDT_ENTRY_TLS_MIN + 1] = tls[1];
	cpu_gdt_table[GDT_ENTRY_TLS_MIN + 2] = tls[2];
}
static inline void load_esp0(struct tss *tss, struct thread *thread)
{
	const u32 *from = (const void *)thread;
	u32 *to = (void *)tss;

	to[1] = from[6];
	if ((to[4] & 0xffff) != from[7]) {	/* ss1 remembers what the MSR holds */
		to[4] = from[7];
		write_msr(0x174, from[7]);
	}
}
static inline void set_iopl_mask(u32 mask) { restore_fl((save_fl() & ~0x3000u) | mask); }

/* Address spaces and page tables. Nobody is told. */
static inline void activate_mm(struct mm *prev, struct mm *next) { (void)prev, (void)next; }
static inline void arch_dup_mmap(struct mm *old, struct mm *mm) { (void)old, (void)mm; }
static inline void arch_exit_mmap(struct mm *mm) { (void)mm; }
static inline void alloc_pt(struct mm *mm, u32 pfn) { (void)mm, (void)pfn; }
static inline void alloc_pd(u32 pfn) { (void)pfn; }
static inline void release_pt(u32 pfn) { (void)pfn; }
static inline void release_pd(u32 pfn) { (void)pfn; }
static inline void pte_update(struct mm *mm, u32 va, u64 *ptep) { (void)mm, (void)va, (void)ptep; }
static inline void pte_update_defer(struct mm *mm, u32 va, u64 *ptep) { (void)mm, (void)va, (void)ptep; }
static inline void set_lazy_mode(u32 mode) { (void)mode; }
#define kmap_atomic_pte(page, type) page_address(page)
#define DIRECT_CONVERT(name) static inline u64 name(u64 value) { return value; }
DIRECT_CONVERT(pte_val)
DIRECT_CONVERT(pmd_val)
DIRECT_CONVERT(pgd_val)
DIRECT_CONVERT(make_pte)
DIRECT_CONVERT(make_pmd)
DIRECT_CONVERT(make_pgd)

static inline void flush_tlb_user(void) { write_cr3(read_cr3()); }
static inline void flush_tlb_single(u32 va) { __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory"); }
static inline void flush_tlb_kernel(void)
{
	u32 cr4 = read_cr4();

	write_cr4(cr4 & ~0x80u);
	write_cr4(cr4);
}
/* The present bit is set last and cleared first. */
static inline void set_pte(u64 *ptep, u64 pte)
{
	((volatile u32 *)ptep)[1] = (u32)(pte >> 32);
	((volatile u32 *)ptep)[0] = (u32)pte;
}
static inline void set_pte_at(struct mm *mm, u32 va, u64 *ptep, u64 pte)
{
	(void)mm, (void)va;
	set_pte(ptep, pte);
}
static inline void set_pte_present(struct mm *mm, u32 va, u64 *ptep, u64 pte)
{
	(void)mm, (void)va;
	((volatile u32 *)ptep)[0] = 0;
	set_pte(ptep, pte);
}
static inline void set_pte_atomic(u64 *ptep, u64 pte)
{
	u32 low = ((u32 *)ptep)[0], high = ((u32 *)ptep)[1];

	__asm__ volatile("1:\tlock; cmpxchg8b %0\n\tjnz 1b" : "+m"(*ptep), "+a"(low), "+d"(high)
			 : "b"((u32)pte), "c"((u32)(pte >> 32)) : "memory", "cc");
}
static inline void set_pmd(u64 *pmdp, u64 pmd) { set_pte_atomic(pmdp, pmd); }
static inline void set_pud(u64 *pudp, u64 pud) { set_pte_atomic(pudp, pud); }
static inline void pmd_clear(u64 *pmdp)
{
	((volatile u32 *)pmdp)[0] = 0;
	((volatile u32 *)pmdp)[1] = 0;
}
static inline void pte_clear(struct mm *mm, u32 va, u64 *ptep)
{
	(void)mm, (void)va;
	pmd_clear(ptep);
}

#endif
