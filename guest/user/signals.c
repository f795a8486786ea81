/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Signal handlers: they run, get what they should, and come back, or do not if they spoil their frame. */
#include "user.h"

static volatile u32 calls, seen, nested, inside;
static volatile u32 *const unmapped = (volatile u32 *)0x30000000;

static void count(u32 signal, const u32 *info, u32 *context)
{
	(void)info, (void)context;
	calls++;
	seen = signal;
}

/* The same signal waits until its handler has returned. */
static void again(u32 signal, const u32 *info, u32 *context)
{
	(void)info, (void)context;
	nested += inside;
	inside = 1;
	if (++calls == 1)
		kill(getpid(), signal);
	inside = 0;
}

/* movl (%eax), %eax and movl %ecx, (%eax) are two bytes long: go on behind the one that failed. */
static void skip(u32 signal, const u32 *info, u32 *context)
{
	seen = signal == SIGSEGV ? info[INFO_ADDRESS] : 0;
	context[CONTEXT_EIP] += 2;
	calls++;
}

static void spoil_ss(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	context[CONTEXT_SS] = 0x68;
}

static void spoil_cs(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	context[CONTEXT_CS] = 0;
}

/* A data selector that does not exist becomes the null selector, which only its use forbids. */
static void spoil_data_segments(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	context[CONTEXT_FS] = context[CONTEXT_GS] = 0xffff;
}

static void raise_flags(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	context[CONTEXT_EFLAGS] |= 0x3000;	/* the I/O privilege level is not the program's */
	context[CONTEXT_EFLAGS] &= ~0x200u;
}

static void die_by(handler spoil)
{
	set_handler(SIGUSR1, spoil, SA_SIGINFO);
	kill(getpid(), SIGUSR1);
}

/* With its own numbers on the FPU's stack. */
static void use_fpu(u32 signal, const u32 *info, u32 *context)
{
	u16 status = 0xffff;

	(void)signal, (void)info, (void)context;
	__asm__ volatile("fnstsw %0\n\tfninit\n\tfld1\n\tfld1" : "=m"(status));
	calls += !(status & 0x3800);	/* the stack was empty */
}

static void spoil_fpu(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	((u32 *)context[CONTEXT_FPU])[6] = 0xffffffff;
}

static void bad_fpu(void)
{
	__asm__ volatile("fninit\n\tfld1");
	die_by(spoil_fpu);
	__asm__ volatile("fninit");	/* loads what came back, which must not hurt the kernel */
	exit(4);
}

static void bad_ss(void) { die_by(spoil_ss); }
static void bad_cs(void) { die_by(spoil_cs); }

static void bad_data_segments(void)
{
	u16 fs = 1, gs = 1;

	die_by(spoil_data_segments);
	__asm__ volatile("movw %%fs, %0\n\tmovw %%gs, %1" : "=r"(fs), "=r"(gs));
	exit(fs || gs ? 1 : 4);
}

static void bad_flags(void)
{
	u32 flags;

	die_by(raise_flags);
	__asm__ volatile("pushfl\n\tpopl %0" : "=r"(flags));
	exit((flags & 0x3200) == 0x200 ? 4 : 1);
}

static void lose_stack(void)
{
	set_handler(SIGUSR1, count, 0);
	__asm__ volatile("xorl %%esp, %%esp\n\tmovl $37, %%eax\n\tint $0x80" : : "b"(getpid()), "c"(SIGUSR1) : "eax");
}

static void test_handlers(void)
{
	u32 di = 0x12345678, ax = 37;

	set_handler(SIGUSR1, count, 0);
	__asm__ volatile("int $0x80" : "+a"(ax), "+D"(di) : "b"(getpid()), "c"(SIGUSR1) : "memory");
	check("signal: result of kill", ax, 0);
	check("signal: registers", di, 0x12345678);
	check("signal: calls", calls, 1);
	check("signal: number", seen, SIGUSR1);
	kill(getpid(), SIGUSR1);
	check("signal: stays set", calls, 2);
	calls = 0;
	set_handler(SIGUSR1, again, SA_SIGINFO);
	kill(getpid(), SIGUSR1);
	check("signal: blocked in its handler", calls + nested, 2);
	set_handler(SIGUSR1, (handler)SIG_IGN, 0);
	check("signal: ignored", (u32)kill(getpid(), SIGUSR1), 0);
	check("sigaction: SIGKILL", (u32)set_handler(SIGKILL, count, 0), (u32)-22);
	check("sigaction: bad pointer", (u32)syscall3(67, SIGUSR1, 0x1000, 0), (u32)-EBADADDR);
	passed("signal handlers");
}

static void test_fault_handlers(void)
{
	u32 value = 7, zero = 0;

	calls = 0;
	set_handler(SIGSEGV, skip, SA_SIGINFO);
	__asm__ volatile("movl (%%eax), %%eax" : "=a"(value) : "0"(unmapped) : "memory");
	check("fault handler: address", seen, (u32)unmapped);
	__asm__ volatile("movl %1, (%0)" : : "a"(unmapped + 1), "c"(value) : "memory");
	check("fault handler: written address", seen, (u32)(unmapped + 1));
	set_handler(SIGFPE, skip, SA_SIGINFO);
	__asm__ volatile("divl %1" : "+a"(value) : "c"(zero), "d"(0));
	set_handler(SIGILL, skip, SA_SIGINFO);
	__asm__ volatile("ud2");
	check("fault handler: calls", calls, 4);
	set_handler(SIGSEGV, (handler)SIG_DFL, 0);
	set_handler(SIGFPE, (handler)SIG_DFL, 0);
	set_handler(SIGILL, (handler)SIG_DFL, 0);
	passed("fault handlers");
}

/* A child interrupts its parent, which sleeps. */
static s32 interrupt_me(void)
{
	s32 parent = getpid(), child = fork();

	if (!child) {
		sleep_ms(3);
		kill(parent, SIGUSR1);
		exit(0);
	}
	return child;
}

static void test_interrupted_calls(void)
{
	s32 child;

	calls = 0;
	set_handler(SIGUSR1, count, 0);
	child = interrupt_me();
	check("signal: pause", (u32)pause(), (u32)-4);
	waitpid(child, 0, 0);
	child = interrupt_me();
	check("signal: wait", (u32)waitpid(child, 0, 0), (u32)-4);
	waitpid(child, 0, 0);
	set_handler(SIGUSR1, count, SA_RESTART);
	child = interrupt_me();
	check("signal: wait goes on", (u32)vsyscall3(7, (u32)child, 0, 0), (u32)child);
	child = interrupt_me();
	check("signal: wait goes on by int", (u32)waitpid(child, 0, 0), (u32)child);
	check("signal: interruptions", calls, 4);
	set_handler(SIGUSR1, (handler)SIG_DFL, 0);
	passed("interrupted system calls");
}

static void test_fpu_in_handler(void)
{
	u32 number = 4711, result = 0;

	calls = 0;
	set_handler(SIGUSR1, use_fpu, 0);
	__asm__ volatile("fninit\n\tfildl %0" : : "m"(number));
	kill(getpid(), SIGUSR1);
	__asm__ volatile("fistpl %0\n\tfninit" : "=m"(result));
	check("signal: fpu", result, 4711);
	check("signal: fresh fpu", calls, 1);
	set_handler(SIGUSR1, (handler)SIG_DFL, 0);
	passed("fpu in a handler");
}

void test_signals(void)
{
	test_handlers();
	test_fault_handlers();
	test_interrupted_calls();
	test_fpu_in_handler();
	check("sigreturn: bad fpu", status_of(bad_fpu), 4 << 8);
	check("sigreturn: bad ss", status_of(bad_ss), SIGSEGV);
	check("sigreturn: bad cs", status_of(bad_cs), SIGSEGV);
	check("sigreturn: bad fs, gs", status_of(bad_data_segments), 4 << 8);
	check("sigreturn: flags", status_of(bad_flags), 4 << 8);
	check("signal: no stack", status_of(lose_stack), SIGSEGV);
	passed("bad signal frames");
}
