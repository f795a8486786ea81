/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a process must not do, and how it dies of it. Each try runs in a child. */
#include "user.h"

#define FEATURE_NX (1 << 20)
#define SIGTRAP 5

static void write_text(void) { *(volatile u32 *)(u32)write_text = 0; }
static void write_rodata(void) { *(volatile char *)(u32)"constant" = 0; }
static void read_null(void) { (void)*(volatile u32 *)0; }
static void read_kernel(void) { (void)*(volatile u32 *)0xc0100000; }
static void write_kernel(void) { *(volatile u32 *)0xc0100000 = 0; }
static void do_hlt(void) { __asm__ volatile("hlt"); }
static void do_cli(void) { __asm__ volatile("cli"); }
static void do_mov_cr3(void) { u32 x; __asm__ volatile("movl %%cr3, %0" : "=r"(x)); }
static void do_clts(void) { __asm__ volatile("clts"); }
static void do_lgdt(void) { u64 x = 0; __asm__ volatile("lgdt %0" : : "m"(x)); }
static void do_wrmsr(void) { __asm__ volatile("wrmsr" : : "a"(0), "d"(0), "c"(0x174)); }
static void do_ud2(void) { __asm__ volatile("ud2"); }
static void do_int3(void) { __asm__ volatile("int3"); }
static void single_step(void) { __asm__ volatile("pushfl\n\torl $0x100, (%%esp)\n\tpopfl\n\tnop\n\tnop" : : : "memory"); }
static void do_int_14(void) { __asm__ volatile("int $14"); }
static void do_int_250(void) { __asm__ volatile("int $250"); }
static void do_divide(void) { u32 q = 1, r = 0; __asm__ volatile("divl %2" : "+a"(q), "+d"(r) : "r"(0)); }
static void do_in(void) { u8 x; __asm__ volatile("inb $0x80, %0" : "=a"(x)); }
static void load_kernel_cs(void) { __asm__ volatile("pushl $0x60\n\tpushl $1f\n\tlret\n1:" : : : "memory"); }

static void do_in_allowed(void)
{
	if (iopl(3))
		exit(1);
	do_in();
	sched_yield();	/* others, without the right, have run */
	do_in();
	exit(9);
}

/* The same by the fastest way, which may come back without a frame of its own. */
static void do_in_by_vsyscall(void)
{
	if (vsyscall3(110, 3, 0, 0))
		exit(1);
	do_in();
	vsyscall3(158, 0, 0, 0);	/* sched_yield */
	do_in();
	exit(9);
}

/* A child from before its parent got the right does not have it, although the parent runs in between. */
static void do_in_beside_another(void)
{
	u32 status = 0;
	s32 child = fork();

	if (!child) {
		vsyscall3(158, 0, 0, 0);
		do_in();
		exit(1);
	}
	if (vsyscall3(110, 3, 0, 0))
		exit(1);
	do_in();
	vsyscall3(158, 0, 0, 0);
	do_in();
	waitpid(child, &status, 0);
	exit(status == SIGSEGV ? 9 : 2);
}

static void do_in_taken_back(void)
{
	if (iopl(3) || iopl(0))
		exit(1);
	do_in();
}

static u8 code[16];	/* writable data: no code there where NX is on */
static void execute_data(void)
{
	code[0] = 0xc3;
	((void (*)(void))code)();
}

/* Whether the kernel can have NX. CPUID in user mode is the CPU's; a kernel that hides NX still may not use it. */
static u32 status_of_data_code(void)
{
	u32 status = status_of(execute_data);

	return status == 0 ? SIGSEGV : status;
}

void test_faults(void)
{
	check("write to text", status_of(write_text), SIGSEGV);
	check("write to constants", status_of(write_rodata), SIGSEGV);
	check("read at 0", status_of(read_null), SIGSEGV);
	check("read kernel memory", status_of(read_kernel), SIGSEGV);
	check("write kernel memory", status_of(write_kernel), SIGSEGV);
	passed("memory protection");
	check("hlt in ring 3", status_of(do_hlt), SIGSEGV);
	check("cli in ring 3", status_of(do_cli), SIGSEGV);
	check("mov cr3 in ring 3", status_of(do_mov_cr3), SIGSEGV);
	check("clts in ring 3", status_of(do_clts), SIGSEGV);
	check("lgdt in ring 3", status_of(do_lgdt), SIGSEGV);
	check("wrmsr in ring 3", status_of(do_wrmsr), SIGSEGV);
	check("kernel code segment", status_of(load_kernel_cs), SIGSEGV);
	passed("privileged instructions");
	check("invalid opcode", status_of(do_ud2), SIGILL);
	check("breakpoint", status_of(do_int3), SIGTRAP);
	check("single step", status_of(single_step), SIGTRAP);
	check("divide by zero", status_of(do_divide), SIGFPE);
	check("int of a kernel gate", status_of(do_int_14), SIGSEGV);
	check("int without a gate", status_of(do_int_250), SIGSEGV);
	passed("exceptions");
	check("in without iopl", status_of(do_in), SIGSEGV);
	check("in with iopl", status_of(do_in_allowed), 9 << 8);
	check("in with iopl, by vsyscall", status_of(do_in_by_vsyscall), 9 << 8);
	check("in beside iopl", status_of(do_in_beside_another), 9 << 8);
	check("in after iopl 0", status_of(do_in_taken_back), SIGSEGV);
	passed("iopl");
	check("code in data", status_of_data_code(), SIGSEGV);
	passed("code in data");
}
