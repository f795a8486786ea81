/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Calls of paravirt_ops. Each call site is recorded in .parainstructions, so that a backend can write its code
 * over the call. From C a site is `call *slot` (6 bytes); the four flag ops keep ECX and EDX themselves, so
 * that short code fits in without a register being lost (10 bytes). Where interrupts go on there is room for code that
 * looks whether one has been waiting (19 and 26 bytes).
 * Ref: Linux 2.6.23, include/asm-i386/paravirt.h; regparm(3): EAX, EDX, ECX, then the stack.
 */
#ifndef PARAVIRT_H
#define PARAVIRT_H

#include "ops.h"
#include "types.h"

extern u32 paravirt_ops[PV_WORDS];
extern u32 machine_ops[6], console_ops[2], smp_ops[7];

#define PV_STRING2(x) #x
#define PV_STRING(x) PV_STRING2(x)

#define PV_RECORD(clobbers)                                                                                            \
	"772:\n\t.pushsection .parainstructions,\"a\"\n\t.long 771b\n\t.byte %c[op]\n\t.byte 772b-771b\n\t"            \
	".short " PV_STRING(clobbers) "\n\t.popsection\n\t"
#define PV_CALL "771:\n\tcall *paravirt_ops+4*%c[op]\n\t" PV_RECORD(CLBR_ANY)
#define PV_CALL_SAVED(room)                                                                                            \
	"771:\n\tpushl %%ecx\n\tpushl %%edx\n\tcall *paravirt_ops+4*%c[op]\n\tpopl %%edx\n\tpopl %%ecx\n\t"            \
	room PV_RECORD(CLBR_EAX)

/* 0 to 4 argument words; the result is EDX:EAX, of which the caller takes what the op returns. */
#define pv0(number) ({ u32 a_, d_, c_; \
	__asm__ volatile(PV_CALL : "=a"(a_), "=d"(d_), "=c"(c_) : [op] "i"(number) : "memory", "cc"); \
	(u64)d_ << 32 | a_; })
#define pv1(number, a) ({ u32 a_ = (u32)(a), d_, c_; \
	__asm__ volatile(PV_CALL : "+a"(a_), "=d"(d_), "=c"(c_) : [op] "i"(number) : "memory", "cc"); \
	(u64)d_ << 32 | a_; })
#define pv2(number, a, d) ({ u32 a_ = (u32)(a), d_ = (u32)(d), c_; \
	__asm__ volatile(PV_CALL : "+a"(a_), "+d"(d_), "=c"(c_) : [op] "i"(number) : "memory", "cc"); \
	(u64)d_ << 32 | a_; })
#define pv3(number, a, d, c) ({ u32 a_ = (u32)(a), d_ = (u32)(d), c_ = (u32)(c); \
	__asm__ volatile(PV_CALL : "+a"(a_), "+d"(d_), "+c"(c_) : [op] "i"(number) : "memory", "cc"); \
	(u64)d_ << 32 | a_; })
#define pv4(number, a, d, c, s) ({ u32 a_ = (u32)(a), d_ = (u32)(d), c_ = (u32)(c), s_ = (u32)(s); \
	__asm__ volatile("pushl %[fourth]\n\t" PV_CALL "addl $4, %%esp" : "+a"(a_), "+d"(d_), "+c"(c_) \
			 : [op] "i"(number), [fourth] "r"(s_) : "memory", "cc"); \
	(u64)d_ << 32 | a_; })
#define pv3_64(number, pointer, value) ({ u64 v_ = (value); (void)pv3(number, pointer, (u32)v_, (u32)(v_ >> 32)); })

#define kernel_rpl (paravirt_ops[PV_KERNEL_RPL])
#define paravirt_enabled (paravirt_ops[PV_PARAVIRT_ENABLED])
#define shared_kernel_pmd (paravirt_ops[PV_SHARED_KERNEL_PMD])

struct mm;
struct page;
struct thread;
struct tss;
struct descriptor_table {
	u16 limit;
	u32 base;
} packed;

#ifdef PARAVIRT_DIRECT
#include "direct.h"
#else
/* The interrupt flag. */
static inline u32 save_fl(void)
{
	u32 flags;

	__asm__ volatile(PV_CALL_SAVED("") : "=a"(flags) : [op] "i"(PV_SAVE_FL) : "memory", "cc");
	return flags;
}
static inline void restore_fl(u32 flags)
{
	__asm__ volatile(PV_CALL_SAVED(".nops 16\n\t") : "+a"(flags) : [op] "i"(PV_RESTORE_FL) : "memory", "cc");
}
static inline void irq_disable(void)
{
	u32 lost;

	__asm__ volatile(PV_CALL_SAVED("") : "=a"(lost) : [op] "i"(PV_IRQ_DISABLE) : "memory", "cc");
}
static inline void irq_enable(void)
{
	u32 lost;

	__asm__ volatile(PV_CALL_SAVED(".nops 9\n\t") : "=a"(lost) : [op] "i"(PV_IRQ_ENABLE) : "memory", "cc");
}
static inline void safe_halt(void) { pv0(PV_SAFE_HALT); }
static inline void halt(void) { pv0(PV_HALT); }

/* The CPU. */
static inline void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
	*a = leaf;
	*c = 0;
	pv4(PV_CPUID, a, b, c, d);
}
static inline u32 get_debugreg(u32 reg) { return (u32)pv1(PV_GET_DEBUGREG, reg); }
static inline void set_debugreg(u32 reg, u32 value) { pv2(PV_SET_DEBUGREG, reg, value); }
static inline void clts(void) { pv0(PV_CLTS); }
static inline u32 read_cr0(void) { return (u32)pv0(PV_READ_CR0); }
static inline void write_cr0(u32 value) { pv1(PV_WRITE_CR0, value); }
static inline u32 read_cr2(void) { return (u32)pv0(PV_READ_CR2); }
static inline void write_cr2(u32 value) { pv1(PV_WRITE_CR2, value); }
static inline u32 read_cr3(void) { return (u32)pv0(PV_READ_CR3); }
static inline void write_cr3(u32 value) { pv1(PV_WRITE_CR3, value); }
static inline u32 read_cr4(void) { return (u32)pv0(PV_READ_CR4); }
static inline u32 read_cr4_safe(void) { return (u32)pv0(PV_READ_CR4_SAFE); }
static inline void write_cr4(u32 value) { pv1(PV_WRITE_CR4, value); }
static inline void wbinvd(void) { pv0(PV_WBINVD); }
static inline u64 read_msr(u32 msr, s32 *error) { return pv2(PV_READ_MSR, msr, error); }
static inline s32 write_msr(u32 msr, u64 value) { return (s32)pv3(PV_WRITE_MSR, msr, (u32)value, (u32)(value >> 32)); }
static inline u64 read_tsc(void) { return pv0(PV_READ_TSC); }
static inline u64 sched_clock(void) { return pv0(PV_SCHED_CLOCK); }
static inline s32 set_wallclock(u32 seconds) { return (s32)pv1(PV_SET_WALLCLOCK, seconds); }
static inline u32 get_wallclock(void) { return (u32)pv0(PV_GET_WALLCLOCK); }

/* Descriptor tables. */
static inline void load_tr_desc(void) { pv0(PV_LOAD_TR_DESC); }
static inline void load_gdt(const struct descriptor_table *table) { pv1(PV_LOAD_GDT, table); }
static inline void load_idt(const struct descriptor_table *table) { pv1(PV_LOAD_IDT, table); }
static inline void store_gdt(struct descriptor_table *table) { pv1(PV_STORE_GDT, table); }
static inline void store_idt(struct descriptor_table *table) { pv1(PV_STORE_IDT, table); }
static inline void set_ldt(const void *table, u32 entries) { pv2(PV_SET_LDT, table, entries); }
static inline u32 store_tr(void) { return (u32)pv0(PV_STORE_TR); }
static inline void load_tls(struct thread *thread, u32 cpu) { pv2(PV_LOAD_TLS, thread, cpu); }
static inline void write_ldt_entry(void *t, u32 i, u32 low, u32 high) { pv4(PV_WRITE_LDT_ENTRY, t, i, low, high); }
static inline void write_gdt_entry(void *t, u32 i, u32 low, u32 high) { pv4(PV_WRITE_GDT_ENTRY, t, i, low, high); }
static inline void write_idt_entry(void *t, u32 i, u32 low, u32 high) { pv4(PV_WRITE_IDT_ENTRY, t, i, low, high); }
static inline void load_esp0(struct tss *tss, struct thread *thread) { pv2(PV_LOAD_ESP0, tss, thread); }
static inline void set_iopl_mask(u32 mask) { pv1(PV_SET_IOPL_MASK, mask); }

/* Address spaces and page tables. */
static inline void activate_mm(struct mm *prev, struct mm *next) { pv2(PV_ACTIVATE_MM, prev, next); }
static inline void arch_dup_mmap(struct mm *old, struct mm *mm) { pv2(PV_DUP_MMAP, old, mm); }
static inline void arch_exit_mmap(struct mm *mm) { pv1(PV_EXIT_MMAP, mm); }
static inline void flush_tlb_user(void) { pv0(PV_FLUSH_TLB_USER); }
static inline void flush_tlb_kernel(void) { pv0(PV_FLUSH_TLB_KERNEL); }
static inline void flush_tlb_single(u32 va) { pv1(PV_FLUSH_TLB_SINGLE, va); }
static inline void alloc_pt(struct mm *mm, u32 pfn) { pv2(PV_ALLOC_PT, mm, pfn); }
static inline void alloc_pd(u32 pfn) { pv1(PV_ALLOC_PD, pfn); }
static inline void release_pt(u32 pfn) { pv1(PV_RELEASE_PT, pfn); }
static inline void release_pd(u32 pfn) { pv1(PV_RELEASE_PD, pfn); }
static inline void set_pte(u64 *ptep, u64 pte) { pv3_64(PV_SET_PTE, ptep, pte); }
static inline void set_pte_atomic(u64 *ptep, u64 pte) { pv3_64(PV_SET_PTE_ATOMIC, ptep, pte); }
static inline void set_pmd(u64 *pmdp, u64 pmd) { pv3_64(PV_SET_PMD, pmdp, pmd); }
static inline void set_pud(u64 *pudp, u64 pud) { pv3_64(PV_SET_PUD, pudp, pud); }
static inline void pte_clear(struct mm *mm, u32 va, u64 *ptep) { pv3(PV_PTE_CLEAR, mm, va, ptep); }
static inline void pmd_clear(u64 *pmdp) { pv1(PV_PMD_CLEAR, pmdp); }
static inline void pte_update(struct mm *mm, u32 va, u64 *ptep) { pv3(PV_PTE_UPDATE, mm, va, ptep); }
static inline void pte_update_defer(struct mm *mm, u32 va, u64 *ptep) { pv3(PV_PTE_UPDATE_DEFER, mm, va, ptep); }
static inline void *kmap_atomic_pte(struct page *page, u32 type) { return (void *)(u32)pv2(PV_KMAP_ATOMIC_PTE, page, type); }
#define PV_CONVERT(name, number) \
	static inline u64 name(u64 value) { return pv2(number, (u32)value, (u32)(value >> 32)); }
PV_CONVERT(pte_val, PV_PTE_VAL)
PV_CONVERT(pmd_val, PV_PMD_VAL)
PV_CONVERT(pgd_val, PV_PGD_VAL)
PV_CONVERT(make_pte, PV_MAKE_PTE)
PV_CONVERT(make_pmd, PV_MAKE_PMD)
PV_CONVERT(make_pgd, PV_MAKE_PGD)

/* Five words do not fit the sites above; these two slots are read at each call, as Linux does under PAE. */
typedef void (*set_pte_at_op)(struct mm *mm, u32 va, u64 *ptep, u64 pte);
static inline void set_pte_at(struct mm *mm, u32 va, u64 *ptep, u64 pte)
{
	((set_pte_at_op)paravirt_ops[PV_SET_PTE_AT])(mm, va, ptep, pte);
}
static inline void set_pte_present(struct mm *mm, u32 va, u64 *ptep, u64 pte)
{
	((set_pte_at_op)paravirt_ops[PV_SET_PTE_PRESENT])(mm, va, ptep, pte);
}
static inline void io_delay(void) { ((void (*)(void))paravirt_ops[PV_IO_DELAY])(); }

/* Batches. */
static inline void set_lazy_mode(u32 mode) { pv1(PV_SET_LAZY_MODE, mode); }
#endif

static inline u32 irq_save(void)
{
	u32 flags = save_fl();

	irq_disable();
	return flags;
}
enum { LAZY_NONE, LAZY_MMU, LAZY_CPU, LAZY_FLUSH };

/* The other tables. Their slots may be empty, so there are no call sites. */
enum { MACHINE_RESTART, MACHINE_HALT, MACHINE_POWER_OFF, MACHINE_SHUTDOWN, MACHINE_CRASH_SHUTDOWN,
       MACHINE_EMERGENCY_RESTART };
enum { CONSOLE_WRITE, CONSOLE_READ };
enum { SMP_PREPARE_BOOT_CPU, SMP_PREPARE_CPUS, SMP_CPU_UP, SMP_CPUS_DONE, SMP_SEND_STOP };
static inline u32 call_slot(u32 slot, u32 a, u32 d)
{
	return slot ? ((u32 (*)(u32, u32))slot)(a, d) : 0;
}

#endif
