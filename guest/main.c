/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The steps that start_kernel calls and that belong to no other file, and rest_init, where it ends: from there on
 * tasks run by themselves.
 * Options on the command line: noselftest, init=PROGRAM, noreplace-smp, panic, panic=1 (start again), oops,
 * doublefault, hang, reboot, halt.
 */
#include "alternative.h"
#include "sched.h"

void early_cpu_init(void);
void check_bugs(void);
void alternatives_done(u32 patched);
void native_banner(void);
void rest_init(void) noreturn;

u32 cpu_features;	/* CPUID 1, EDX */

bool command_line_has(const char *word)
{
	u32 length = strlen(word);
	const char *at = command_line;

	while (*at) {
		const char *end = at;

		while (*end && *end != ' ')
			end++;
		if ((u32)(end - at) == length && !memcmp(at, word, length))
			return true;
		at = *end ? end + 1 : end;
	}
	return false;
}

/* The program that process 1 becomes. */
static const char *init_program(void)
{
	static char name[32] = "/init";
	const char *at = command_line;

	for (; *at; at++)
		if ((at == command_line || at[-1] == ' ') && !memcmp(at, "init=", 5)) {
			u32 length = 0;

			for (at += 5; at[length] && at[length] != ' '; length++)
				;
			strncpy_end(name, at, min(length + 1, (u32)sizeof(name)));
			break;
		}
	return name;
}

void early_cpu_init(void)
{
	u32 a, b, c, d, vendor[4] = { 0 };

	printk("paravirt reference kernel, i386 PAE\n");
	printk("Command line: %s\n", command_line);
	cpuid(0, &a, &vendor[0], &vendor[2], &vendor[1]);
	cpuid(1, &a, &b, &c, &d);
	cpu_features = d;
	printk("CPU: vendor %s, family %u, model %u, stepping %u\n", (char *)vendor, a >> 8 & 15,
	       (a >> 4 & 15) | (a >> 12 & 0xf0), a & 15);
}

/* HLT must come back, on bare hardware as well as where it is an op. */
static void check_hlt(void)
{
	u32 i;

	if (paravirt_enabled)
		return;
	for (i = 0; i < 4; i++)
		safe_halt();
	printk("Checking 'hlt' instruction... OK.\n");
}

/* Call sites are patched right after this: from then on the op tables do not change. */
void check_bugs(void)
{
	u32 a, b, c, d;

	cpuid(0x80000000, &a, &b, &c, &d);
	if (a >= 0x80000004) {
		u32 brand[13] = { 0 }, i;

		for (i = 0; i < 3; i++)
			cpuid(0x80000002 + i, &brand[4 * i], &brand[4 * i + 1], &brand[4 * i + 2], &brand[4 * i + 3]);
		printk("CPU: %s\n", (char *)brand);
	}
	sysenter_init();
	check_hlt();
	alternative_instructions();
}

void alternatives_done(u32 patched)
{
	if (!(save_fl() & X86_EFLAGS_IF))
		panic("interrupts are off behind the patching of call sites");
	printk("paravirt: %u sites patched\n", patched);
}

void native_banner(void)
{
	printk("Booting paravirtualized kernel on %s\n", (const char *)paravirt_ops[PV_NAME]);
}

/* Two kernel threads pass a number to and fro. */
#define ROUNDS 50
static struct wait_queue turns;
static u32 turn, workers_done, failed_turns;

static void worker(u32 self)
{
	u32 round;

	for (round = 0; round < ROUNDS; round++) {
		u32 flags = irq_save();

		while (turn % 2 != self)
			sleep_on(&turns, 0);
		if (turn / 2 != round)
			failed_turns++;
		turn++;
		wake_up(&turns);
		restore_fl(flags);
	}
	workers_done++;
	wake_up(&turns);
}

static void test_kernel_threads(void)
{
	u32 flags, before = context_switches;

	kernel_thread(worker, 0, "worker/0");
	kernel_thread(worker, 1, "worker/1");
	flags = irq_save();
	while (workers_done < 2)
		sleep_on(&turns, 0);
	restore_fl(flags);
	selftest("kernel threads", turn - failed_turns, 2 * ROUNDS);
	selftest("context switches", context_switches - before >= 2 * ROUNDS, 1);
}

static void oops_thread(u32 argument)
{
	(void)argument;
	*(volatile u32 *)4 = 0;
}

/* Without a stack the page fault of the push cannot be delivered either. */
static void double_fault_thread(u32 argument)
{
	(void)argument;
	__asm__ volatile("movl %0, %%esp\n\tpushl $0" : : "r"(fix_to_va(FIX_HOLE)) : "memory");
}

/* Process 1: the kernel's own tests, then the first user program, on this very stack. */
static void kernel_init(u32 argument)
{
	s32 error;

	(void)argument;
	call_slot(smp_ops[SMP_PREPARE_CPUS], 1, 0);
	call_slot(smp_ops[SMP_CPUS_DONE], 1, 0);
	if (command_line_has("oops"))
		kernel_thread(oops_thread, 0, "oops");
	if (command_line_has("doublefault"))
		kernel_thread(double_fault_thread, 0, "doublefault");
	if (!command_line_has("noselftest")) {
		test_kernel_threads();
		kernel_selftests();
	}
	if (command_line_has("reboot"))
		machine_restart();
	if (command_line_has("halt"))
		machine_halt();
	printk("Running %s\n", init_program());
	error = do_execve(task_regs(current), init_program(), command_line_has("noselftest") ? "noselftest" : "");
	if (error)
		panic("No init found (error %d).", error);
	return_to_user(task_regs(current));
}

void rest_init(void)
{
	mark_text_read_only();
	kernel_thread(kernel_init, 0, "init");
	if (command_line_has("panic"))
		panic("asked for on the command line");
	if (command_line_has("hang")) {
		irq_disable();
		for (;;)
			cpu_relax();
	}
	cpu_idle();
}
