/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * System calls: Linux's numbers, arguments in EBX, ECX, EDX, ESI, EDI, the result or -errno in EAX.
 * Ref: Linux 2.6.23, include/asm-i386/unistd.h. SYS_SELFTEST is this kernel's own.
 */
#include "sched.h"

#define MAGIC1 0xfee1dead
#define MAGIC2 672274793
#define CMD_RESTART 0x01234567
#define CMD_HALT 0xcdef0123
#define CMD_POWER_OFF 0x4321fedc
#define SYS_SELFTEST 400

typedef s32 (*syscall)(struct pt_regs *regs, u32 a, u32 b, u32 c);

static s32 sys_exit(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)b, (void)c;
	do_exit((a & 0xff) << 8);
}

static s32 sys_fork(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)a, (void)b, (void)c;
	return do_fork(regs);
}

static s32 sys_read(struct pt_regs *regs, u32 fd, u32 buffer, u32 length)
{
	char text[128];
	s32 n;

	(void)regs;
	if (fd)
		return -EINVAL;
	n = console_read(text, min(length, (u32)sizeof(text)));
	return n > 0 && copy_to_user((void *)buffer, text, (u32)n) ? -EFAULT : n;
}

/* To the console as it is; a stamp would tear the program's lines. */
static s32 sys_write(struct pt_regs *regs, u32 fd, u32 buffer, u32 length)
{
	char text[128];
	u32 done, n;

	(void)regs;
	if (fd != 1 && fd != 2)
		return -EINVAL;
	for (done = 0; done < length; done += n) {
		n = min(length - done, (u32)sizeof(text));
		if (copy_from_user(text, (const void *)(buffer + done), n))
			return done ? (s32)done : -EFAULT;
		console_write(text, n);
	}
	return (s32)done;
}

static s32 sys_waitpid(struct pt_regs *regs, u32 pid, u32 status, u32 options)
{
	(void)regs;
	return do_wait((s32)pid, (u32 *)status, options);
}

/* Of argv only the first string after the name counts. */
static s32 sys_execve(struct pt_regs *regs, u32 name, u32 argv, u32 envp)
{
	char path[32], argument[32] = "";
	u32 pointers[2] = { 0 };
	s32 error;

	(void)envp;
	error = string_from_user(path, (const char *)name, sizeof(path));
	if (error < 0)
		return error;
	if (argv && copy_from_user(pointers, (const void *)argv, sizeof(pointers)))
		return -EFAULT;
	if (pointers[0] && pointers[1]) {
		error = string_from_user(argument, (const char *)pointers[1], sizeof(argument));
		if (error < 0)
			return error;
	}
	return do_execve(regs, path, argument);
}

static s32 sys_time(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	u32 now = current_seconds();

	(void)regs, (void)b, (void)c;
	if (a && copy_to_user((void *)a, &now, sizeof(now)))
		return -EFAULT;
	return (s32)now;
}

static s32 sys_getpid(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)a, (void)b, (void)c;
	return (s32)current->pid;
}

static s32 sys_getppid(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)a, (void)b, (void)c;
	return (s32)current->parent->pid;
}

static s32 sys_pause(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)a, (void)b, (void)c;
	while (!current->signal)
		schedule_timeout(0);
	return -EINTR;
}

static s32 sys_kill(struct pt_regs *regs, u32 pid, u32 signal, u32 c)
{
	(void)regs, (void)c;
	return do_kill((s32)pid, signal);
}

static s32 sys_brk(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)b, (void)c;
	return set_brk(current->mm, a);
}

static s32 sys_reboot(struct pt_regs *regs, u32 magic1, u32 magic2, u32 command)
{
	(void)regs;
	if (magic1 != MAGIC1 || magic2 != MAGIC2)
		return -EINVAL;
	switch (command) {
	case CMD_RESTART:
		machine_restart();
	case CMD_HALT:
		machine_halt();
	case CMD_POWER_OFF:
		machine_power_off();
	default:
		return -EINVAL;
	}
}

static s32 sys_call_iopl(struct pt_regs *regs, u32 level, u32 b, u32 c)
{
	(void)b, (void)c;
	return sys_iopl(regs, level);
}

static s32 sys_call_modify_ldt(struct pt_regs *regs, u32 function, u32 pointer, u32 size)
{
	(void)regs;
	return sys_modify_ldt(function, (void *)pointer, size);
}

static s32 sys_sched_yield(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)regs, (void)a, (void)b, (void)c;
	schedule();
	return 0;
}

/* At least the time asked for: the tick under way does not count. */
static s32 sys_nanosleep(struct pt_regs *regs, u32 request, u32 remaining, u32 c)
{
	u32 time[2];

	(void)regs, (void)remaining, (void)c;
	if (copy_from_user(time, (const void *)request, sizeof(time)))
		return -EFAULT;
	if (time[0] > 1000000 || time[1] >= 1000000000)
		return -EINVAL;
	schedule_timeout(time[0] * HZ + (time[1] + 1000000000 / HZ - 1) / (1000000000 / HZ) + 1);
	return current->signal ? -EINTR : 0;
}

static s32 sys_call_set_thread_area(struct pt_regs *regs, u32 pointer, u32 b, u32 c)
{
	(void)regs, (void)b, (void)c;
	return sys_set_thread_area((void *)pointer);
}

/* A user program's result: name, got, expected. */
static s32 sys_selftest(struct pt_regs *regs, u32 name, u32 got, u32 expected)
{
	char text[28];
	s32 length = string_from_user(text, (const char *)name, sizeof(text));

	(void)regs;
	if (length < 0)
		return length;
	selftest(text, got, expected);
	return 0;
}

static const struct {
	u32 number;
	syscall function;
} calls[] = {
	{ 1, sys_exit },
	{ 2, sys_fork },
	{ 3, sys_read },
	{ 4, sys_write },
	{ 7, sys_waitpid },
	{ 11, sys_execve },
	{ 13, sys_time },
	{ 20, sys_getpid },
	{ 29, sys_pause },
	{ 37, sys_kill },
	{ 45, sys_brk },
	{ 64, sys_getppid },
	{ 88, sys_reboot },
	{ 110, sys_call_iopl },
	{ 123, sys_call_modify_ldt },
	{ 158, sys_sched_yield },
	{ 162, sys_nanosleep },
	{ 243, sys_call_set_thread_area },
	{ SYS_SELFTEST, sys_selftest },
};

void do_syscall(struct pt_regs *regs)
{
	u32 i, number = regs->eax;

	for (i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].number == number) {
			regs->eax = (u32)calls[i].function(regs, regs->ebx, regs->ecx, regs->edx);
			return;
		}
	regs->eax = (u32)-ENOSYS;
}
