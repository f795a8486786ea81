/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processes: fork, exit, wait, exec, kill, preemption, sleep, and system calls that must fail. */
#include "user.h"

static void exit_7(void) { exit(7); }

static void spin(void)
{
	for (;;)
		__asm__ volatile("" : : : "memory");
}

static void work(void)
{
	u32 i;

	for (i = 0; i < 3000000; i++)
		__asm__ volatile("" : : : "memory");
	exit(5);
}

static void exec_child(void)
{
	static const char *const arguments[] = { "/init", "child", 0 };

	execve("/init", arguments);
	exit(1);
}

static s32 parent;
static void check_parent(void) { exit(getppid() == parent && getpid() != parent ? 3 : 4); }

/* The spinning child never enters the kernel by itself; only the tick can give the CPU to the others. */
static void test_preemption(void)
{
	u32 status = 0, status2 = 0;
	s32 spinner = fork(), worker;

	if (!spinner)
		spin();
	worker = fork();
	if (!worker)
		work();
	check("preemption: worker's pid", (u32)waitpid(worker, &status, 0), (u32)worker);
	check("preemption: worker", status, 5 << 8);
	check("preemption: spinner lives", (u32)waitpid(spinner, &status2, 1), 0);
	check("kill", (u32)kill(spinner, SIGKILL), 0);
	check("kill: pid", (u32)waitpid(spinner, &status2, 0), (u32)spinner);
	check("kill: status", status2, SIGKILL);
	passed("preemption, kill");
}

/* Registers are the caller's again afterwards, whichever instruction led into the kernel. */
static void test_vsyscall(void)
{
	u32 si = 0x51515151, di = 0xd1d1d1d1, cx = 0xc1c1c1c1, dx = 0xd2d2d2d2, ax = 20, i, status = 0;
	s32 child;

	__asm__ volatile("call *vsyscall" : "+a"(ax), "+c"(cx), "+d"(dx), "+S"(si), "+D"(di) : : "memory");
	check("vsyscall: getpid", ax, (u32)parent);
	check("vsyscall: registers", si ^ di ^ cx ^ dx, 0x51515151 ^ 0xd1d1d1d1 ^ 0xc1c1c1c1 ^ 0xd2d2d2d2);
	for (i = 0; i < 100; i++)
		if (vsyscall3(20, 0, 0, 0) != parent)
			check("vsyscall: again", i, 100);
	check("vsyscall: bad pointer", (u32)vsyscall3(4, 1, 0x1000, 8), (u32)-EBADADDR);
	child = vsyscall3(2, 0, 0, 0);
	if (!child)
		vsyscall3(1, vsyscall3(64, 0, 0, 0) == parent ? 8 : 9, 0, 0);
	vsyscall3(158, 0, 0, 0);
	check("vsyscall: wait", (u32)vsyscall3(7, (u32)child, (u32)&status, 0), (u32)child);
	check("vsyscall: fork", status, 8 << 8);
	passed("vsyscall");
}

void test_processes(void)
{
	u32 before, status;

	parent = getpid();
	check("getpid", (u32)parent, 1);
	check("exit status", status_of(exit_7), 7 << 8);
	check("getppid", status_of(check_parent), 3 << 8);
	check("exec", status_of(exec_child), 42 << 8);
	check("exec: no such file", (u32)execve("/none", 0), (u32)-2);
	passed("fork, exec, exit, wait");
	check("waitpid: no child", (u32)waitpid(-1, &status, 0), (u32)-10);
	check("unknown system call", (u32)syscall3(399, 0, 0, 0), (u32)-38);
	check("write: bad pointer", (u32)write(1, (void *)0x1000, 8), (u32)-EBADADDR);
	check("write: kernel pointer", (u32)write(1, (void *)0xc0100000, 8), (u32)-EBADADDR);
	check("write: bad descriptor", (u32)write(7, "x", 1), (u32)-9);
	check("kill: no process", (u32)kill(1000, 9), (u32)-3);
	passed("system call errors");
	test_vsyscall();
	test_preemption();
	before = (u32)time(0);
	sleep_ms(1000);
	check("nanosleep", (u32)time(0) - before >= 1, 1);
	passed("nanosleep");
}
