/*
 * A small kernel that looks to the framework as Linux 2.6.32 does: pv_*_ops tables of that layout that it fills by
 * itself and calls through, an exception table, recorded call sites. It has nothing else of Linux.
 */
#ifndef KERNEL_H
#define KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define PAGE_OFFSET 0xc0000000u
#define KERNEL_CS 0x60
#define KERNEL_DS 0x68

struct pointer { u16 limit; u32 base; } __attribute__((packed));
struct descriptor { u32 low, high; };
/* As 2.6.32 has them, with what the ops use; the rest is filled with what must not be read. */
struct thread { struct descriptor tls[3]; u32 sp0, sp, sysenter_cs; };
struct tss { u32 link, sp0; u32 ss0, sp1; u16 ss1, pad; u32 rest[21]; };

typedef void (*op)(void);

/* One pointer a slot; what it takes is at the call. */
struct pv_init_ops { op patch; };
struct pv_time_ops { op sched_clock, get_tsc_khz; };
struct pv_cpu_ops {
	op get_debugreg, set_debugreg, clts, read_cr0, write_cr0, read_cr4_safe, read_cr4, write_cr4;
	op load_tr_desc, load_gdt, load_idt, store_gdt, store_idt, set_ldt, store_tr, load_tls;
	op write_ldt_entry, write_gdt_entry, write_idt_entry, alloc_ldt, free_ldt, load_sp0, set_iopl_mask;
	op wbinvd, io_delay, cpuid, read_msr, rdmsr_regs, write_msr, wrmsr_regs, read_tsc, read_pmc, read_tscp;
	op irq_enable_sysexit, usergs_sysret64, usergs_sysret32, iret, swapgs, start_context_switch, end_context_switch;
};
struct pv_irq_ops { op save_fl, restore_fl, irq_disable, irq_enable, safe_halt, halt; };
struct pv_mmu_ops {
	op read_cr2, write_cr2, read_cr3, write_cr3, activate_mm, dup_mmap, exit_mmap;
	op flush_tlb_user, flush_tlb_kernel, flush_tlb_single, flush_tlb_others, pgd_alloc, pgd_free;
	op alloc_pte, alloc_pmd, alloc_pmd_clone, alloc_pud, release_pte, release_pmd, release_pud;
	op set_pte, set_pte_at, set_pmd, pte_update, pte_update_defer, ptep_modify_prot_start, ptep_modify_prot_commit;
	op pte_val, make_pte, pgd_val, make_pgd, set_pte_atomic, pte_clear, pmd_clear, set_pud, pmd_val, make_pmd;
	op lazy_enter, lazy_leave, set_fixmap;
};
extern struct pv_time_ops pv_time_ops;
extern struct pv_cpu_ops pv_cpu_ops;
extern struct pv_irq_ops pv_irq_ops;
extern struct pv_mmu_ops pv_mmu_ops;

#define CALL(slot, result, ...) ((result (*)(__VA_ARGS__))(slot))

/* A call site that is recorded, with what it gives up. */
#define SITE(slot, type, clobbers) \
	"771: call *" #slot "\n772:\n.pushsection .parainstructions, \"a\"\n.long 771b\n.byte " #type ", 772b - 771b\n" \
	".short " #clobbers "\n.popsection\n"

static inline void irq_disable(void) { asm volatile(SITE(pv_irq_ops+8, 45, 5) : : : "eax", "edx", "memory"); }
static inline void irq_enable(void) { asm volatile(SITE(pv_irq_ops+12, 46, 5) : : : "eax", "edx", "memory"); }
static inline u64 read_tsc(void) { return CALL(pv_cpu_ops.read_tsc, u64, void)(); }

static inline void outb(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port) { u8 v; asm volatile("inb %1, %0" : "=a"(v) : "Nd"(port)); return v; }

/* head.S */
extern struct descriptor gdt[32], idt[256];
extern u64 swapper_pg_dir[4], pmd0[512], page_table[512];
extern const char *command_line;
extern void (*const vectors[])(void);
u32 keeps(op slot, u32 *eax, u32 *edx);	/* call a callee-save op; whether ECX (1), EDX (2), EBX (4) survived */
u32 bad_iret(void);			/* IRET with a bad CS: 1 if its fix-up ran */
/* main.c */
extern volatile u32 ticks;
void printk(const char *format, ...);
__attribute__((noreturn)) void panic(const char *format, ...);
void check(const char *what, u32 value, u32 expected);
/* ops.c */
void sort_main_extable(void);
u32 search_exception_tables(u32 eip);

#endif
