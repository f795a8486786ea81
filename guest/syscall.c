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
	(void)regs;
	return do_read(fd, buffer, length);
}

static s32 sys_write(struct pt_regs *regs, u32 fd, u32 buffer, u32 length)
{
	(void)regs;
	return do_write(fd, buffer, length);
}

static s32 sys_close(struct pt_regs *regs, u32 fd, u32 b, u32 c)
{
	(void)regs, (void)b, (void)c;
	return do_close(fd);
}

static s32 sys_pipe(struct pt_regs *regs, u32 fds, u32 b, u32 c)
{
	(void)regs, (void)b, (void)c;
	return do_pipe((u32 *)fds);
}

static s32 sys_dup2(struct pt_regs *regs, u32 from, u32 to, u32 c)
{
	(void)regs, (void)c;
	return do_dup2(from, to);
}

static s32 sys_call_sigaction(struct pt_regs *regs, u32 signal, u32 action, u32 old)
{
	(void)regs;
	return sys_sigaction(signal, (void *)action, (void *)old);
}

static s32 sys_call_rt_sigaction(struct pt_regs *regs, u32 signal, u32 action, u32 old)
{
	return sys_rt_sigaction(signal, (void *)action, (void *)old, regs->esi);
}

static s32 sys_call_sigreturn(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)a, (void)b, (void)c;
	return sys_sigreturn(regs);
}

static s32 sys_call_rt_sigreturn(struct pt_regs *regs, u32 a, u32 b, u32 c)
{
	(void)a, (void)b, (void)c;
	return sys_rt_sigreturn(regs);
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
	while (!signal_pending(current))
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

/* The old call: its arguments stand in memory. */
static s32 sys_old_mmap(struct pt_regs *regs, u32 pointer, u32 b, u32 c)
{
	u32 words[6];

	(void)regs, (void)b, (void)c;
	if (copy_from_user(words, (const void *)pointer, sizeof(words)))
		return -EFAULT;
	return do_mmap(current->mm, words[0], words[1], words[2], words[3]);
}

static s32 sys_mmap2(struct pt_regs *regs, u32 start, u32 length, u32 prot)
{
	return do_mmap(current->mm, start, length, prot, regs->esi);
}

static s32 sys_munmap(struct pt_regs *regs, u32 start, u32 length, u32 c)
{
	(void)regs, (void)c;
	return do_munmap(current->mm, start, length);
}

static s32 sys_mprotect(struct pt_regs *regs, u32 start, u32 length, u32 prot)
{
	(void)regs;
	return do_mprotect(current->mm, start, length, prot);
}

static s32 sys_clock_gettime(struct pt_regs *regs, u32 clock, u32 pointer, u32 c)
{
	u32 time[2];

	(void)regs, (void)c;
	if (clock > 1)
		return -EINVAL;
	current_time(clock, time);
	return copy_to_user((void *)pointer, time, sizeof(time)) ? -EFAULT : 0;
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
	return signal_pending(current) ? -EINTR : 0;
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

static const syscall calls[] = {
	[1] = sys_exit,
	[2] = sys_fork,
	[3] = sys_read,
	[4] = sys_write,
	[6] = sys_close,
	[7] = sys_waitpid,
	[11] = sys_execve,
	[13] = sys_time,
	[20] = sys_getpid,
	[29] = sys_pause,
	[37] = sys_kill,
	[42] = sys_pipe,
	[45] = sys_brk,
	[63] = sys_dup2,
	[64] = sys_getppid,
	[67] = sys_call_sigaction,
	[88] = sys_reboot,
	[90] = sys_old_mmap,
	[91] = sys_munmap,
	[110] = sys_call_iopl,
	[119] = sys_call_sigreturn,
	[123] = sys_call_modify_ldt,
	[125] = sys_mprotect,
	[158] = sys_sched_yield,
	[162] = sys_nanosleep,
	[173] = sys_call_rt_sigreturn,
	[174] = sys_call_rt_sigaction,
	[192] = sys_mmap2,
	[243] = sys_call_set_thread_area,
	[265] = sys_clock_gettime,
	[SYS_SELFTEST] = sys_selftest,
};

void do_syscall(struct pt_regs *regs)
{
	u32 number = regs->eax;

	if (number < ARRAY_SIZE(calls) && calls[number])
		regs->eax = (u32)calls[number](regs, regs->ebx, regs->ecx, regs->edx);
	else
		regs->eax = (u32)-ENOSYS;
}
