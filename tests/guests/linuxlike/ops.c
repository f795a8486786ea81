/* The kernel's own ops, and its exception table. */
#include "kernel.h"

#define READ(name, code) static u32 name(void) { u32 v; asm volatile(code : "=a"(v)); return v; }
#define WRITE(name, code) static void name(u32 v) { asm volatile(code : : "a"(v) : "memory"); }
#define DO(name, code) static void name(void) { asm volatile(code : : : "memory"); }

static void paravirt_nop(void) { }
/* Callee-save: what they do not return they keep. */
asm(".globl native_save_fl, native_save_fl_direct, native_restore_fl, native_irq_disable, native_irq_enable, "
    "paravirt_ident_64\n"
    "native_save_fl: pushfl; popl %eax; ret\nnative_save_fl_direct: pushfl; popl %eax; ret\n"
    "native_restore_fl: pushl %eax; popfl; ret\nnative_irq_disable: cli; ret\nnative_irq_enable: sti; ret\n"
    "paravirt_ident_64: ret\n");
extern op native_save_fl, native_save_fl_direct, native_restore_fl, native_irq_disable, native_irq_enable;
extern op paravirt_ident_64;
void native_iret(void);

DO(native_clts, "clts") DO(native_safe_halt, "sti; hlt") DO(native_halt, "hlt") DO(native_wbinvd, "wbinvd")
DO(native_io_delay, "outb %%al, $0x80") DO(native_load_tr_desc, "movl $0x80, %%eax; ltr %%ax; xorl %%eax, %%eax")
READ(native_read_cr0, "movl %%cr0, %0") READ(native_read_cr2, "movl %%cr2, %0") READ(native_read_cr3, "movl %%cr3, %0")
READ(native_read_cr4, "movl %%cr4, %0") READ(native_store_tr, "xorl %0, %0; str %w0")
WRITE(native_write_cr0, "movl %0, %%cr0") WRITE(native_write_cr2, "movl %0, %%cr2")
WRITE(native_write_cr3, "movl %0, %%cr3") WRITE(native_write_cr4, "movl %0, %%cr4")
WRITE(native_load_gdt, "lgdt (%0)") WRITE(native_load_idt, "lidt (%0)") WRITE(native_store_gdt, "sgdt (%0)")
WRITE(native_store_idt, "sidt (%0)") WRITE(native_flush_tlb_single, "invlpg (%0)")
WRITE(native_set_iopl_mask, "pushfl; andl $~0x3000, (%%esp); orl %0, (%%esp); popfl")

static u32 native_read_cr4_safe(void)
{
	u32 v;

	asm volatile("1: movl %%cr4, %0\n2:\n.pushsection __ex_table, \"a\"\n.long 1b, 2b\n.popsection"
		     : "=r"(v) : "0"(0));
	return v;
}

static u64 native_read_msr_safe(u32 msr, int *err)
{
	u32 low, high;

	asm volatile("2: rdmsr; xorl %2, %2\n1:\n.pushsection .fixup, \"ax\"\n3: movl %4, %2; jmp 1b\n.popsection\n"
		     ".pushsection __ex_table, \"a\"\n.long 2b, 3b\n.popsection"
		     : "=a"(low), "=d"(high), "=r"(*err) : "c"(msr), "i"(-14));
	return (u64)high << 32 | low;
}

static int native_write_msr_safe(u32 msr, u32 low, u32 high)
{
	int err;

	asm volatile("2: wrmsr; xorl %0, %0\n1:\n.pushsection .fixup, \"ax\"\n3: movl %4, %0; jmp 1b\n.popsection\n"
		     ".pushsection __ex_table, \"a\"\n.long 2b, 3b\n.popsection"
		     : "=a"(err) : "c"(msr), "0"(low), "d"(high), "i"(-14) : "memory");
	return err;
}

static u64 native_read_tsc(void) { u32 a, d; asm volatile("rdtsc" : "=a"(a), "=d"(d)); return (u64)d << 32 | a; }
u64 native_sched_clock(void) { return native_read_tsc(); }
static void native_cpuid(u32 *a, u32 *b, u32 *c, u32 *d) { asm volatile("cpuid" : "+a"(*a), "=b"(*b), "+c"(*c), "=d"(*d)); }
static u32 native_get_debugreg(int n) { u32 v = 0; if (n == 7) asm volatile("movl %%dr7, %0" : "=r"(v)); return v; }
static void native_set_debugreg(int n, u32 v) { if (n == 7) asm volatile("movl %0, %%dr7" : : "r"(v)); }
static void native_set_ldt(void *base, u32 entries) { asm volatile("lldt %w0" : : "r"(0)); }
static void write_entry(struct descriptor *table, int n, const struct descriptor *entry) { table[n] = *entry; }
static void write_gdt_entry(struct descriptor *table, int n, const struct descriptor *entry, int type) { table[n] = *entry; }
static void native_load_tls(struct thread *t, u32 cpu) { for (int i = 0; i < 3; i++) gdt[6 + i] = t->tls[i]; }

static void native_load_sp0(struct tss *tss, struct thread *thread)
{
	int err;

	tss->sp0 = thread->sp0;
	if (tss->ss1 != thread->sysenter_cs) {
		tss->ss1 = thread->sysenter_cs;
		err = native_write_msr_safe(0x174, thread->sysenter_cs, 0);
		(void)err;
	}
}

static void native_flush_tlb(void) { native_write_cr3(native_read_cr3()); }
static void native_flush_tlb_global(void) { u32 v = native_read_cr4(); native_write_cr4(v ^ 0x80); native_write_cr4(v); }
static void native_set_pte(volatile u64 *p, u64 v) { ((volatile u32 *)p)[1] = v >> 32; *(volatile u32 *)p = v; }
static void native_set_pte_at(void *mm, u32 va, volatile u64 *p, u64 v) { native_set_pte(p, v); }
static void native_pte_clear(void *mm, u32 va, volatile u64 *p) { *(volatile u32 *)p = 0; ((volatile u32 *)p)[1] = 0; }
static void native_pmd_clear(volatile u64 *p) { native_pte_clear(0, 0, p); }
static int pgd_alloc(void *mm) { return 0; }
static u64 prot_start(void *mm, u32 va, volatile u64 *p) { u64 v = *p; native_pte_clear(mm, va, p); return v; }
static void prot_commit(void *mm, u32 va, u64 *p, u64 v) { CALL(pv_mmu_ops.set_pte_at, void, void *, u32, u64 *, u64)(mm, va, p, v); }
static void native_set_fixmap(u32 index, u64 physical, u64 flags) { page_table[index] = physical | flags; }

#define F(function) (op)(function)
#define NOP F(paravirt_nop)
#define IDENT F(&paravirt_ident_64)
struct pv_init_ops pv_init_ops = { NOP };
struct pv_time_ops pv_time_ops = { F(native_sched_clock), 0 };
struct pv_cpu_ops pv_cpu_ops = {
	F(native_get_debugreg), F(native_set_debugreg), F(native_clts), F(native_read_cr0), F(native_write_cr0),
	F(native_read_cr4_safe), F(native_read_cr4), F(native_write_cr4), F(native_load_tr_desc), F(native_load_gdt),
	F(native_load_idt), F(native_store_gdt), F(native_store_idt), F(native_set_ldt), F(native_store_tr),
	F(native_load_tls), F(write_entry), F(write_gdt_entry), F(write_entry), NOP, NOP, F(native_load_sp0),
	F(native_set_iopl_mask), F(native_wbinvd), F(native_io_delay), F(native_cpuid), F(native_read_msr_safe), NOP,
	F(native_write_msr_safe), NOP, F(native_read_tsc), NOP, NOP, NOP, 0, 0, F(native_iret), NOP, NOP, NOP,
};
struct pv_irq_ops pv_irq_ops = {
	F(&native_save_fl), F(&native_restore_fl), F(&native_irq_disable), F(&native_irq_enable), F(native_safe_halt),
	F(native_halt),
};
char pv_apic_ops[0];
struct pv_mmu_ops pv_mmu_ops = {
	F(native_read_cr2), F(native_write_cr2), F(native_read_cr3), F(native_write_cr3), NOP, NOP, NOP,
	F(native_flush_tlb), F(native_flush_tlb_global), F(native_flush_tlb_single), NOP, F(pgd_alloc), NOP,
	NOP, NOP, NOP, NOP, NOP, NOP, NOP, F(native_set_pte), F(native_set_pte_at), F(native_set_pte), NOP, NOP,
	F(prot_start), F(prot_commit), IDENT, IDENT, IDENT, IDENT, F(native_set_pte), F(native_pte_clear),
	F(native_pmd_clear), F(native_set_pte), IDENT, IDENT, NOP, NOP, F(native_set_fixmap),
};

/* As in Linux: sorted at boot, searched by halves. */
struct row { u32 instruction, fixup; };
extern struct row __start___ex_table[], __stop___ex_table[];

void sort_main_extable(void)
{
	for (struct row *i = __start___ex_table + 1; i < __stop___ex_table; i++)
		for (struct row *j = i; j > __start___ex_table && j[-1].instruction > j->instruction; j--) {
			struct row row = *j;
			*j = j[-1];
			j[-1] = row;
		}
}

u32 search_exception_tables(u32 eip)
{
	struct row *low = __start___ex_table, *high = __stop___ex_table - 1;

	while (low <= high) {
		struct row *middle = low + (high - low) / 2;
		if (middle->instruction == eip)
			return middle->fixup;
		if (middle->instruction < eip)
			low = middle + 1;
		else
			high = middle - 1;
	}
	return 0;
}

/* Linux changes some slots after it has begun to use them. */
void build_all_zonelists(void) { pv_irq_ops.save_fl = F(&native_save_fl_direct); }
