/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tasks come and go: kernel threads, fork, exit, wait, kill. */
#include "sched.h"

#define WNOHANG 1

static u8 stacks[NR_TASKS][THREAD_SIZE] aligned(THREAD_SIZE) section(".bss.page_aligned");
static struct wait_queue child_exits;
static u32 last_pid;

/* Where a task's user registers are, whenever it is in the kernel. */
struct pt_regs *task_regs(struct task *task)
{
	return (struct pt_regs *)task->thread.esp0 - 1;
}

static struct task *find_task(u32 pid)
{
	u32 i;

	for (i = 0; i < NR_TASKS; i++)
		if (tasks[i].state != TASK_UNUSED && tasks[i].pid == pid)
			return &tasks[i];
	return NULL;
}

/* A task that does not run yet, its stack empty but for room for user registers. */
static struct task *new_task(void)
{
	struct thread_info *info;
	struct task *task = NULL;
	u32 i;

	for (i = 0; i < NR_TASKS && !task; i++)
		if (tasks[i].state == TASK_UNUSED)
			task = &tasks[i];
	if (!task)
		return NULL;
	memset(task, 0, sizeof(*task));
	info = (struct thread_info *)stacks[task - tasks];
	info->task = task;
	info->flags = 0;
	task->pid = ++last_pid;
	task->slice = 1;
	task->parent = current;
	task->thread.esp0 = (u32)info + THREAD_SIZE;
	task->thread.sysenter_cs = sysenter_cs;
	memset(task_regs(task), 0, sizeof(struct pt_regs));
	return task;
}

/* What switch_stacks pops: EDI, ESI, EBX, EBP, return address. */
static void first_frame(struct task *task, void (*start)(void), u32 ebx, u32 esi)
{
	u32 *esp = (u32 *)task_regs(task);

	*--esp = (u32)start;
	*--esp = 0;
	*--esp = ebx;
	*--esp = esi;
	*--esp = 0;
	task->thread.esp = (u32)esp;
}

void kernel_thread_main(void (*function)(u32), u32 argument);

void kernel_thread_main(void (*function)(u32), u32 argument)
{
	irq_enable();
	function(argument);
	do_exit(0);
}

struct task *kernel_thread(void (*function)(u32), u32 argument, const char *name)
{
	struct task *task = new_task();

	if (!task)
		panic("no room for kernel thread %s", name);
	strncpy_end(task->name, name, sizeof(task->name));
	first_frame(task, kernel_thread_start, (u32)function, argument);
	task->parent = &init_task;
	task->state = TASK_RUNNING;
	return task;
}

/* The child starts where the parent's system call returns, with 0 in EAX. */
s32 do_fork(struct pt_regs *regs)
{
	struct task *parent = current, *child = new_task();
	struct pt_regs *child_regs;

	if (!child)
		return -EAGAIN;
	if (parent->thread.fpu_live)
		fpu_save(parent);
	__asm__ volatile("movw %%fs, %0\n\tmovw %%gs, %1" : "=m"(parent->thread.fs), "=m"(parent->thread.gs));
	child->mm = mm_copy(parent->mm);
	if (!child->mm)
		return -ENOMEM;	/* the slot is still unused */
	memcpy(child->name, parent->name, sizeof(child->name));
	memcpy(child->thread.tls, parent->thread.tls, sizeof(child->thread.tls));
	child->thread.fs = parent->thread.fs;
	child->thread.gs = parent->thread.gs;
	child->thread.iopl = parent->thread.iopl;
	child->thread.fpu_used = parent->thread.fpu_used;
	memcpy(child->thread.fpu_state, parent->thread.fpu_state, sizeof(child->thread.fpu_state));
	memcpy(child->actions, parent->actions, sizeof(child->actions));
	child->blocked = parent->blocked;
	copy_files(child, parent);
	child_regs = task_regs(child);
	*child_regs = *regs;
	child_regs->eax = 0;
	first_frame(child, ret_from_fork, 0, 0);
	child->state = TASK_RUNNING;
	end_block_process(child->pid, 0, 0);
	return (s32)child->pid;
}

static void init_exits(u32 status) noreturn;
static void init_exits(u32 status)
{
	if (status & 0x7f)
		panic("Attempted to kill init! (signal %u)", status & 0x7f);
	if (status || selftest_failures)
		debug_exit(1);
	machine_power_off();
}

/* `status` as wait reports it: signal in the low 7 bits, exit code in bits 8 to 15. */
void do_exit(u32 status)
{
	struct task *task = current;
	struct mm *mm = task->mm;
	u32 i;

	if (mm)
		end_block_process(task->pid, status, 1);
	if (task->pid == 1)
		init_exits(status);
	irq_disable();
	fpu_drop(task);
	task->mm = NULL;
	irq_enable();
	close_files(task);
	if (mm)
		mm_free(mm);
	irq_disable();
	for (i = 0; i < NR_TASKS; i++)
		if (tasks[i].parent == task)
			tasks[i].parent = find_task(1);
	task->exit_code = status;
	task->state = task->parent == &init_task ? TASK_UNUSED : TASK_ZOMBIE;
	wake_up(&child_exits);
	schedule();
	panic("a dead task runs");
}

/* Wait for a child, or for any with pid -1; returns its pid, and its slot is free again. */
s32 do_wait(s32 pid, u32 *status_user, u32 options)
{
	for (;;) {
		bool children = false;
		u32 flags, i;

		flags = irq_save();
		for (i = 0; i < NR_TASKS; i++) {
			struct task *child = &tasks[i];
			u32 child_pid = child->pid, status = child->exit_code;

			if (child->state == TASK_UNUSED || child->parent != current)
				continue;
			if (pid > 0 && (u32)pid != child_pid)
				continue;
			children = true;
			if (child->state != TASK_ZOMBIE)
				continue;
			child->state = TASK_UNUSED;
			restore_fl(flags);
			if (status_user && copy_to_user(status_user, &status, sizeof(status)))
				return -EFAULT;
			return (s32)child_pid;
		}
		if (children && !(options & WNOHANG) && !signal_pending(current))
			sleep_on(&child_exits, 0);
		restore_fl(flags);
		if (!children)
			return -ECHILD;
		if (options & WNOHANG)
			return 0;
		if (signal_pending(current))
			return -ERESTARTSYS;
	}
}

s32 do_kill(s32 pid, u32 signal)
{
	struct task *task = pid > 0 ? find_task((u32)pid) : NULL;

	if (!task || !task->mm)
		return -ESRCH;
	if (signal >= NR_SIGNALS)
		return -EINVAL;
	if (signal)
		send_signal(task, signal);
	return 0;
}
