/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The scheduler: round robin over a table, ten ticks each. User code is preempted by the tick; kernel code runs
 * until it sleeps or returns to user mode.
 */
#include "sched.h"

#define SLICE_TICKS 10

struct task tasks[NR_TASKS];
struct task init_task = { .state = TASK_RUNNING, .name = "swapper" };
struct tss cpu_tss aligned(128);
u32 context_switches, preemptions;

void sched_init(void)
{
	init_task.slice = SLICE_TICKS;
	init_task.thread.esp0 = (u32)thread_info() + THREAD_SIZE;
	call_slot(smp_ops[SMP_PREPARE_BOOT_CPU], 0, 0);
}

static struct task *pick_next(struct task *prev)
{
	u32 i, start = prev == &init_task ? 0 : (u32)(prev - tasks) + 1;

	for (i = 0; i < NR_TASKS; i++) {
		struct task *task = &tasks[(start + i) % NR_TASKS];

		if (task->state == TASK_RUNNING)
			return task;
	}
	return &init_task;
}

void load_segments(struct thread *thread)
{
	/* LDT selectors may be stale; the null selector is what an invalid one becomes. */
	__asm__ volatile("1:\tmovw %[fs], %%fs\n2:\tmovw %[gs], %%gs\n3:\n"
			 "\t.pushsection .text.fixup,\"ax\"\n"
			 "4:\tmovl %[zero], %%fs\n\tjmp 2b\n5:\tmovl %[zero], %%gs\n\tjmp 3b\n\t.popsection\n"
			 "\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 4b, 2b, 5b\n\t.popsection"
			 : : [fs] "m"(thread->fs), [gs] "m"(thread->gs), [zero] "r"(0) : "memory");
}

/*
 * Everything of the CPU that belongs to the next task, in one batch, then its stack. Whatever is queued must be
 * done before selectors are loaded, since they are looked up in the new descriptors.
 */
static void context_switch(struct task *prev, struct task *next)
{
	struct thread *from = &prev->thread, *to = &next->thread;

	context_switches++;
	__asm__ volatile("movw %%fs, %0\n\tmovw %%gs, %1" : "=m"(from->fs), "=m"(from->gs));
	set_lazy_mode(LAZY_CPU);
	if (next->mm)
		switch_mm(next->mm);
	if (from->fpu_live)
		fpu_save(prev);
	load_esp0(&cpu_tss, to);
	load_tls(to, 0);
	if (from->iopl != to->iopl)
		set_iopl_mask(to->iopl);
	set_lazy_mode(LAZY_NONE);
	load_segments(to);
	switch_stacks(&from->esp, to->esp);
}

void schedule(void)
{
	u32 flags = irq_save();
	struct task *prev = current, *next;

	thread_info()->flags &= ~(u32)TIF_NEED_RESCHED;
	next = pick_next(prev);
	next->slice = SLICE_TICKS;
	if (next != prev)
		context_switch(prev, next);
	restore_fl(flags);
}

static struct thread_info *info_of(struct task *task)
{
	return (struct thread_info *)(task->thread.esp0 - THREAD_SIZE);
}

static void need_resched(void)
{
	thread_info()->flags |= TIF_NEED_RESCHED;
}

/* Whether the task has a signal to take on its way back to user mode. */
void update_signal_flag(struct task *task)
{
	if (signal_pending(task))
		info_of(task)->flags |= TIF_SIGPENDING;
	else
		info_of(task)->flags &= ~(u32)TIF_SIGPENDING;
}

void wake_up_task(struct task *task)
{
	u32 flags = irq_save();

	if (task->state == TASK_SLEEPING) {
		task->state = TASK_RUNNING;
		task->wake_at = 0;
		if (current == &init_task)
			need_resched();
	}
	restore_fl(flags);
}

/* From the timer interrupt. */
void scheduler_tick(bool user)
{
	struct task *task = current;
	u32 i;

	for (i = 0; i < NR_TASKS; i++)
		if (tasks[i].state == TASK_SLEEPING && tasks[i].wake_at && (s32)(jiffies - tasks[i].wake_at) >= 0)
			wake_up_task(&tasks[i]);
	if (task == &init_task || --task->slice)
		return;
	task->slice = SLICE_TICKS;
	if (user && pick_next(task) != task)
		preemptions++;
	need_resched();
}

/* Sleep at least `ticks` (0: until woken). A signal wakes too. */
void schedule_timeout(u32 ticks)
{
	u32 flags = irq_save();
	struct task *task = current;

	if (!signal_pending(task)) {
		task->state = TASK_SLEEPING;
		task->wake_at = ticks ? (jiffies + ticks) | 1 : 0;
		schedule();
		task->wake_at = 0;
	}
	restore_fl(flags);
}

/* With interrupts off, so that no wake-up comes between the caller's test and the sleep. */
void sleep_on(struct wait_queue *queue, u32 ticks)
{
	u32 bit = 1u << (current - tasks);

	queue->waiting |= bit;
	schedule_timeout(ticks);
	queue->waiting &= ~bit;
}

void wake_up(struct wait_queue *queue)
{
	u32 i;

	for (i = 0; i < NR_TASKS; i++)
		if (queue->waiting & 1u << i)
			wake_up_task(&tasks[i]);
}

void cpu_idle(void)
{
	for (;;) {
		irq_disable();
		if (thread_info()->flags & TIF_NEED_RESCHED)
			irq_enable();
		else
			safe_halt();
		schedule();
	}
}
