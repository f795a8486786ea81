/* What the kernel does: every kind of call, with lines that say what came of it and when. */
#include <stdarg.h>
#include "kernel.h"

#define COM1 0x3f8
#define TEST_VA (PAGE_OFFSET + 31 * 0x200000)	/* by page_table */
#define RIGHTS 0x63
#define NO_SUCH_MSR 0x12345678

volatile u32 ticks;
int panic_timeout;
void build_all_zonelists(void);
void alternative_instructions(void);

struct frame { u32 edi, esi, ebp, esp, ebx, edx, ecx, eax, vector, error, eip, cs, eflags; };

static void put(char c)
{
	while (!(inb(COM1 + 5) & 0x20))
		;
	outb(COM1, c);
}

static void text(const char *s) { for (; *s; s++) put(*s); }

static void number(u32 value, u32 base)
{
	char digits[12], *p = digits + 11;

	*p = 0;
	do {
		*--p = "0123456789abcdef"[value % base];
	} while (value /= base);
	text(p);
}

static void format(const char *f, va_list list)
{
	for (; *f; f++)
		if (*f != '%')
			put(*f);
		else if (*++f == 's')
			text(va_arg(list, char *));
		else
			number(va_arg(list, u32), *f == 'x' ? 16 : 10);
	put('\n');
}

void printk(const char *f, ...)
{
	va_list list;

	put('[');
	number((u32)read_tsc(), 10);
	text("] ");
	va_start(list, f);
	format(f, list);
	va_end(list);
}

void panic(const char *f, ...)
{
	va_list list;

	text("Kernel panic - not syncing: ");
	va_start(list, f);
	format(f, list);
	va_end(list);
	for (;;)
		irq_enable();
}

void check(const char *what, u32 value, u32 expected)
{
	printk("%s %s %x", what, value == expected ? "ok" : "WRONG", value);
}

static int asked(const char *word)
{
	for (const char *line = command_line; *line; line++) {
		const char *w = word, *l = line;
		while (*w && *w == *l)
			w++, l++;
		if (!*w)
			return 1;
	}
	return 0;
}

void exception(struct frame *frame)
{
	u32 fixup;

	if (frame->vector == 32) {
		ticks++;
		outb(0x20, 0x20);
		return;
	}
	fixup = search_exception_tables(frame->eip);
	if (!fixup)
		panic("exception %d at %x%s", frame->vector, frame->eip, "!");
	frame->eip = fixup;
}

static void set_gate(int vector)
{
	u32 handler = (u32)vectors[vector];
	struct descriptor gate = { (KERNEL_CS << 16) | (handler & 0xffff), (handler & 0xffff0000) | 0x8e00 };

	CALL(pv_cpu_ops.write_idt_entry, void, void *, int, void *)(idt, vector, &gate);
}

static void descriptors(void)
{
	static struct tss tss;
	static struct thread thread = { { { 1, 2 }, { 3, 4 }, { 5, 6 } }, 0xc1fff000, 0xdeadbeef, 0x60 };
	struct pointer pointer = { 256 * 8 - 1, (u32)idt };
	struct descriptor entry = { ((u32)&tss & 0xffff) << 16 | 0x67, ((u32)&tss & 0xff000000) | 0x8900 | ((u32)&tss >> 16 & 0xff) };
	int err = 1;

	for (int vector = 0; vector < 33; vector++)
		set_gate(vector);
	CALL(pv_cpu_ops.load_idt, void, void *)(&pointer);
	CALL(pv_cpu_ops.write_gdt_entry, void, void *, int, void *, int)(gdt, 16, &entry, 9);
	CALL(pv_cpu_ops.load_tr_desc, void, void)();
	check("store_tr", CALL(pv_cpu_ops.store_tr, u32, void)(), 0x80);
	CALL(pv_cpu_ops.load_sp0, void, void *, void *)(&tss, &thread);
	check("sp0", tss.sp0, 0xc1fff000);
	check("sysenter_cs", CALL(pv_cpu_ops.read_msr, u64, u32, int *)(0x174, &err), 0x60);
	CALL(pv_cpu_ops.load_tls, void, void *, u32)(&thread, 0);
	check("tls", gdt[8].high, 6);
	CALL(pv_cpu_ops.set_ldt, void, void *, u32)(0, 0);
}

static void registers(void)
{
	u32 a = 0, b = 0, c = 0, d = 0, cr4 = CALL(pv_cpu_ops.read_cr4, u32, void)();
	int err = 1;

	check("cr0", CALL(pv_cpu_ops.read_cr0, u32, void)() & 0x80010001, 0x80010001);
	check("cr4", CALL(pv_cpu_ops.read_cr4_safe, u32, void)(), cr4);
	CALL(pv_cpu_ops.write_cr4, void, u32)(cr4 | 0x80);
	CALL(pv_cpu_ops.clts, void, void)();
	CALL(pv_cpu_ops.cpuid, void, u32 *, u32 *, u32 *, u32 *)(&a, &b, &c, &d);
	check("cpuid", b, 0x756e6547);
	CALL(pv_cpu_ops.set_debugreg, void, int, u32)(7, 0x400);
	check("dr7", CALL(pv_cpu_ops.get_debugreg, u32, int)(7), 0x400);
	if (!asked("nomsr")) {
		CALL(pv_cpu_ops.read_msr, u64, u32, int *)(NO_SUCH_MSR, &err);
		check("rdmsr error", err, -14);
		check("wrmsr error", CALL(pv_cpu_ops.write_msr, int, u32, u32, u32)(NO_SUCH_MSR, 1, 2), -14);
	}
	check("wrmsr", CALL(pv_cpu_ops.write_msr, int, u32, u32, u32)(0x175, 0x1234, 0), 0);
	check("rdmsr", CALL(pv_cpu_ops.read_msr, u64, u32, int *)(0x175, &err), 0x1234);
}

static void flags(void)
{
	u32 eax = 0, edx = 0x99aabbcc;

	check("irq_disable keeps", keeps(pv_irq_ops.irq_disable, &eax, &edx), 7);
	check("save_fl keeps", keeps(pv_irq_ops.save_fl, &eax, &edx), 7);
	check("save_fl", eax & 0x200, 0);
	eax |= 0x200;
	check("restore_fl keeps", keeps(pv_irq_ops.restore_fl, &eax, &edx), 7);
	check("irq_enable keeps", keeps(pv_irq_ops.irq_enable, &eax, &edx), 7);
	eax = 0x12345067;
	edx = 0x80000000;
	check("pte_val keeps", keeps(pv_mmu_ops.pte_val, &eax, &edx), 7);
	check("pte_val", eax, 0x12345067);
}

static void page_tables(void)
{
	volatile u32 *word = (volatile u32 *)TEST_VA;
	static u64 entry;
	u32 frame = 0x2000000;

	CALL(pv_mmu_ops.alloc_pte, void, void *, u32)(0, 1);
	CALL(pv_mmu_ops.alloc_pmd, void, void *, u32)(0, 2);
	CALL(pv_mmu_ops.lazy_enter, void, void)();
	CALL(pv_mmu_ops.set_pte, void, u64 *, u64)(page_table, CALL(pv_mmu_ops.make_pte, u64, u64)(frame | RIGHTS));
	CALL(pv_mmu_ops.lazy_leave, void, void)();
	*word = 1;
	CALL(pv_mmu_ops.set_pte_at, void, void *, u32, u64 *, u64)(0, TEST_VA, page_table, (frame + 4096) | RIGHTS);
	CALL(pv_mmu_ops.flush_tlb_single, void, u32)(TEST_VA);
	*word = 2;
	check("first frame", *(u32 *)(frame + PAGE_OFFSET), 1);
	check("second frame", *(u32 *)(frame + 4096 + PAGE_OFFSET), 2);
	check("high word", page_table[0] >> 32, 0);
	CALL(pv_mmu_ops.set_pmd, void, u64 *, u64)(&entry, 0x8000000012345067ull);
	check("set_pmd", entry >> 32, 0x80000000);
	CALL(pv_mmu_ops.pmd_clear, void, u64 *)(&entry);
	check("pmd_clear", entry, 0);
	CALL(pv_mmu_ops.set_pte_atomic, void, u64 *, u64)(&entry, 0x40000001ull << 12);
	check("set_pte_atomic", entry >> 32, 0x400);
	CALL(pv_mmu_ops.pte_clear, void, void *, u32, u64 *)(0, 0, &entry);
	check("pte_clear", entry >> 32, 0);
	CALL(pv_mmu_ops.flush_tlb_user, void, void)();
	CALL(pv_mmu_ops.write_cr3, void, u32)(CALL(pv_mmu_ops.read_cr3, u32, void)());
	CALL(pv_mmu_ops.pgd_alloc, int, void *)(0);
}

static void clock(void)
{
	u32 divisor = 1193182 / 1000;

	outb(0x20, 0x11), outb(0x21, 0x20), outb(0x21, 4), outb(0x21, 1), outb(0x21, 0xfe);
	outb(0xa0, 0x11), outb(0xa1, 0x28), outb(0xa1, 2), outb(0xa1, 1), outb(0xa1, 0xff);
	outb(0x43, 0x34), outb(0x40, divisor & 0xff), outb(0x40, divisor >> 8);
	irq_enable();
	for (u32 start = ticks; ticks < start + 3; )
		CALL(pv_irq_ops.safe_halt, void, void)();
	for (u32 start = ticks; ticks < start + 3; )
		CALL(pv_time_ops.sched_clock, u64, void)();
	CALL(pv_cpu_ops.start_context_switch, void, void *)(0);
	CALL(pv_cpu_ops.end_context_switch, void, void *)(0);
	check("ticks", ticks >= 6, 1);
}

__attribute__((noinline)) void alternative_instructions(void)
{
	u32 eax = 0, edx = 0;

	keeps(pv_irq_ops.save_fl, &eax, &edx);
}

void i386_start_kernel(void)
{
	sort_main_extable();
	printk("linuxlike: %s", command_line);
	descriptors();
	registers();
	page_tables();
	clock();
	flags();
	build_all_zonelists();
	alternative_instructions();
	if (!asked("noiret"))
		check("bad iret", bad_iret(), 1);
	if (asked("panic"))
		panic("asked for %s, %d times", "it", 3);
	irq_disable();
	printk("done after %d ticks", ticks);
	asm volatile("outw %w0, %w1" : : "a"(0x2000), "d"(0x604));
}
