/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's tests of the ops, run by process 1 before it starts the first program. An op that does nothing, or
 * the wrong thing, shows here. Lines never hold times, flags or addresses, so that all platforms print the same.
 */
#include "selftest.h"

#define CR0_TS 8
#define CR4_DE 8
#define CR4_PAE 0x20
#define MSR_SYSENTER_ESP 0x175
#define MSR_EFER 0xc0000080
#define EFER_NXE 0x800
#define TEST_VECTOR 0x90
#define YEAR_2000 946684800u
#define YEAR_2100 4102444800u

u32 selftest_failures;
static u32 failures_before, gate_calls;

void selftest(const char *name, u32 got, u32 expected)
{
	bool ok = got == expected;

	if (ok)
		printk("selftest: %s ok\n", name);
	else
		printk("selftest: %s FAILED (got %x, expected %x)\n", name, got, expected);
	selftest_failures += !ok;
	end_block_result(name, ok);
}

void expect(const char *what, u32 got, u32 expected)
{
	if (got != expected)
		selftest(what, got, expected);
}

void passed(const char *test)
{
	if (selftest_failures == failures_before)
		selftest(test, 0, 0);
	failures_before = selftest_failures;
}

bool probe_read(u32 address, u32 *value)
{
	u32 ok = 0, result = 0;

	__asm__ volatile("1:\tmovl (%[address]), %[result]\n\tmovl $1, %[ok]\n2:\n"
			 "\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : [ok] "+&r"(ok), [result] "+&r"(result) : [address] "r"(address) : "memory");
	*value = result;
	return ok;
}

bool probe_write(u32 address, u32 value)
{
	u32 ok = 0;

	__asm__ volatile("1:\tmovl %[value], (%[address])\n\tmovl $1, %[ok]\n2:\n"
			 "\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : [ok] "+&r"(ok) : [value] "r"(value), [address] "r"(address) : "memory");
	return ok;
}

static bool interrupts_on(void) { return save_fl() & X86_EFLAGS_IF; }

/* The flag as the ops show it, and whether the tick really comes or stays away. */
static void test_interrupt_flag(void)
{
	u32 flags, before;

	irq_enable();
	expect("irq_enable", interrupts_on(), true);
	flags = irq_save();
	expect("irq_disable", interrupts_on(), false);
	restore_fl(flags);
	expect("restore_fl on", interrupts_on(), true);
	restore_fl(0);
	expect("restore_fl off", interrupts_on(), false);
	before = jiffies;
	udelay(3000);
	expect("ticks while off", jiffies - before, 0);
	irq_enable();
	udelay(100);
	expect("ticks after irq_enable", jiffies != before, true);
	irq_disable();
	udelay(2000);
	before = jiffies;
	restore_fl(X86_EFLAGS_IF);
	udelay(100);
	expect("ticks after restore_fl", jiffies != before, true);
	passed("interrupt flag");

	irq_disable();
	before = jiffies;
	safe_halt();
	expect("safe_halt: flag", interrupts_on(), true);
	expect("safe_halt: tick", jiffies != before, true);
	before = jiffies;
	halt();
	expect("halt: tick", jiffies != before, true);
	passed("halt");
}

static void test_control_registers(void)
{
	u32 flags = irq_save();
	u32 cr0 = read_cr0(), cr4 = read_cr4();

	expect("cr0: TS is set", !!(cr0 & CR0_TS), true);
	clts();
	expect("clts", read_cr0(), cr0 & ~(u32)CR0_TS);
	write_cr0(cr0);
	expect("write_cr0", read_cr0(), cr0);
	write_cr2(0x12345678);
	expect("cr2", read_cr2(), 0x12345678);
	write_cr2(0xfedcba98);
	expect("cr2 again", read_cr2(), 0xfedcba98);
	expect("cr3", read_cr3(), pa(active_mm->pgd));
	expect("cr4: PAE", !!(cr4 & CR4_PAE), true);
	expect("read_cr4_safe", read_cr4_safe(), cr4);
	write_cr4(cr4 ^ CR4_DE);
	expect("write_cr4", read_cr4(), cr4 ^ CR4_DE);
	write_cr4(cr4);
	expect("write_cr4 back", read_cr4(), cr4);
	restore_fl(flags);
	passed("control registers");
}

static void test_cpuid(void)
{
	u32 a, b, c, d, a1, b1, c1, d1;

	cpuid(0, &a, &b, &c, &d);
	expect("cpuid: highest leaf", a >= 1, true);
	expect("cpuid: vendor", b && c && d, true);
	cpuid(1, &a1, &b1, &c1, &d1);
	expect("cpuid: features", d1, cpu_features);
	expect("cpuid: PAE, CMPXCHG8B", d1 >> 6 & 5, 5);
	expect("cpuid: family", (a1 >> 8 & 15) >= 6, true);
	cpuid(0x80000000, &a, &b, &c, &d);
	expect("cpuid: extended", a >= 0x80000000, true);
	passed("cpuid");
}

static void test_msr(void)
{
	u32 flags = irq_save();	/* no sysenter with a wrong stack */
	u64 value;
	s32 error;

	if (nx_enabled) {
		error = 77;
		value = read_msr(MSR_EFER, &error);
		expect("msr: error", (u32)error, 0);
		expect("msr: EFER.NXE", !!(value & EFER_NXE), true);
		expect("msr: write EFER", (u32)write_msr(MSR_EFER, value), 0);
	}
	if (sysenter_cs) {	/* the platform lets the kernel have these registers */
		value = read_msr(MSR_SYSENTER_ESP, &error);
		expect("msr: write", (u32)write_msr(MSR_SYSENTER_ESP, 0xc0001234), 0);
		expect("msr: read back", (u32)read_msr(MSR_SYSENTER_ESP, &error), 0xc0001234);
		write_msr(MSR_SYSENTER_ESP, value);
		expect("msr: restored", (u32)read_msr(MSR_SYSENTER_ESP, &error), (u32)value);
	}
	restore_fl(flags);
	passed("msr");
}

static void test_clocks(void)
{
	u64 clock = sched_clock(), tsc = read_tsc(), now;
	u32 i, us, ticks, seconds;
	s32 error;

	for (i = 0; i < 100; i++) {
		now = sched_clock();
		expect("sched_clock goes back", now < clock, false);
		clock = now;
		now = read_tsc();
		expect("tsc goes back", now <= tsc, false);
		tsc = now;
	}
	ticks = jiffies;
	udelay(20000);
	us = (u32)div64_32(sched_clock() - clock, 1000, NULL);
	expect("udelay by sched_clock", us >= 19000 && us < 30000, true);
	ticks = jiffies - ticks;
	expect("udelay by ticks", ticks >= 18 * HZ / 1000 && ticks <= 30 * HZ / 1000, true);
	expect("tsc rate", tsc_khz >= 10000 && tsc_khz < 20000000, true);
	passed("clocks");

	seconds = get_wallclock();
	expect("wallclock: century", seconds >= YEAR_2000 && seconds < YEAR_2100, true);
	expect("wallclock: kernel's time", current_seconds() - seconds + 2 <= 4, true);
	error = set_wallclock(seconds + 86400 * 400);
	expect("set_wallclock: result", error == 0 || error == -1, true);	/* some platforms refuse */
	if (!error) {
		expect("set_wallclock", get_wallclock() - (seconds + 86400 * 400) <= 2, true);
		set_wallclock(seconds);
		expect("set_wallclock back", get_wallclock() - seconds <= 2, true);
	}
	passed("wallclock");
}

static void test_debug_registers(void)
{
	u32 i;

	for (i = 0; i < 4; i++)
		set_debugreg(i, 0xc0100000 + 0x11110 * i);
	for (i = 0; i < 4; i++)
		expect("dr0-3", get_debugreg(i), 0xc0100000 + 0x11110 * i);
	for (i = 0; i < 4; i++)
		set_debugreg(i, 0);
	expect("dr0 cleared", get_debugreg(0), 0);
	expect("dr6", get_debugreg(6) & 0xf, 0);
	expect("dr7", get_debugreg(7) & 0xff, 0);
	passed("debug registers");
}

void do_test_gate(struct pt_regs *regs, u32 error);

void do_test_gate(struct pt_regs *regs, u32 error)
{
	(void)regs, (void)error;
	gate_calls++;
}

static void test_descriptors(void)
{
	extern void test_gate(void);
	u32 word = 0x5eed5eed, base = (u32)&word, value, flags;

	flags = irq_save();	/* FS is not saved by interrupts */
	write_gdt_entry(cpu_gdt_table, GDT_ENTRY_TEST, base << 16 | 3, (base & 0xff000000) | 0x40f200 | (base >> 16 & 0xff));
	__asm__ volatile("movl %1, %%fs\n\tmovl %%fs:0, %0\n\tmovl %2, %%fs"
			 : "=&r"(value) : "r"(GDT_ENTRY_TEST * 8 + 3), "r"(0) : "memory");
	write_gdt_entry(cpu_gdt_table, GDT_ENTRY_TEST, 0, 0);
	restore_fl(flags);
	expect("gdt: new segment", value, word);
	set_gate(TEST_VECTOR, test_gate, GATE_TRAP, 3);
	__asm__ volatile("int %0" : : "i"(TEST_VECTOR) : "memory");
	write_idt_entry(idt_table, TEST_VECTOR, 0, 0);
	expect("idt: new gate", gate_calls, 1);
	expect("idt: entry", (u32)idt_table[TEST_VECTOR], 0);
	passed("descriptor tables");
}

/* Ops without an effect that a program could see must at least have no other. */
static void test_harmless(void)
{
	u32 value = 0x600d;
	char nothing[4] = "abc";

	wbinvd();
	io_delay();
	expect("wbinvd, io_delay", value, 0x600d);
	expect("console_read", console_read(nothing, 0), 0);
	expect("copy_from_user: fault", copy_from_user(nothing, (void *)0x1000, 4), 4);
	expect("copy_from_user: kernel", copy_from_user(nothing, (void *)PAGE_OFFSET, 4), 4);
	if (smp_ops[SMP_CPU_UP])
		expect("cpu_up: no such CPU", !!call_slot(smp_ops[SMP_CPU_UP], 31, 0), true);
	passed("other ops");
}

void kernel_selftests(void)
{
	failures_before = selftest_failures;
	test_interrupt_flag();
	test_control_registers();
	test_cpuid();
	test_msr();
	test_clocks();
	test_debug_registers();
	test_descriptors();
	test_harmless();
	test_mmu();
}
