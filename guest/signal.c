/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals: what is pending, what a process wants done about it, and the frame on the user's stack from which the
 * handler's return restores the registers. User code may write into that frame, so whatever comes back from it is
 * checked by the CPU alone, and a refusal ends in the exception table. Above the frame lie the FPU's registers, as
 * FXSAVE has them, if the process has used it.
 * Ref: i386 ABI of Linux 2.6.23, include/asm-i386/sigcontext.h and ucontext.h (layout of both frames).
 */
#include "sched.h"

#define SIG_DFL 0
#define SIG_IGN 1
#define SIGCONT 18
#define SIGSTOP 19
#define SIGURG 23
#define SIGWINCH 28
#define SA_SIGINFO 4
#define SA_RESTORER 0x04000000
#define SA_RESTART 0x10000000
#define SA_NODEFER 0x40000000
#define SA_RESETHAND 0x80000000
#define BIT(signal) (1u << ((signal) - 1))
/* Arithmetic flags, direction, alignment check: nothing that changes what the process may do. */
#define USER_EFLAGS 0x40cd5
#define IGNORED_BY_DEFAULT (BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGURG) | BIT(SIGWINCH))

struct sigcontext {
	u32 gs, fs, es, ds, edi, esi, ebp, esp, ebx, edx, ecx, eax, trapno, error, eip, cs, eflags, esp_at_signal, ss,
		fpstate, mask, cr2;
};
struct frame {
	u32 return_address, signal;
	struct sigcontext context;
};
struct rt_frame {
	u32 return_address, signal, info_at, ucontext_at;
	u32 info[32];
	u32 flags, link, stack[3];
	struct sigcontext context;
	u32 mask[2];
};
_Static_assert(sizeof(struct sigcontext) == 88, "programs know struct sigcontext");
_Static_assert(offsetof(struct rt_frame, context) == 164, "programs know struct ucontext");

void send_signal(struct task *task, u32 signal)
{
	u32 handler = task->actions[signal].handler;

	if (handler == SIG_IGN || (handler == SIG_DFL && IGNORED_BY_DEFAULT & BIT(signal)))
		return;
	task->pending |= BIT(signal);
	update_signal_flag(task);
	if (signal_pending(task))
		wake_up_task(task);
}

/* Whether a fault of the current task is its own affair. */
bool signal_handled(u32 signal)
{
	return current->actions[signal].handler > SIG_IGN && !(current->blocked & BIT(signal));
}

/* A fault: the instruction would run again for ever, so it can neither be ignored nor wait. */
void force_signal(u32 signal, u32 address)
{
	if (!signal_handled(signal))
		do_exit(signal);
	current->fault_address = address;
	send_signal(current, signal);
}

/* Handlers are gone with the program that they were in; what is ignored stays so. */
void signals_of_new_program(struct task *task)
{
	u32 i;

	for (i = 0; i < NR_SIGNALS; i++)
		task->actions[i] = (struct signal_action){ .handler = task->actions[i].handler == SIG_IGN };
}

static s32 set_action(u32 signal, const struct signal_action *action)
{
	struct task *task = current;

	task->actions[signal] = *action;
	task->actions[signal].mask &= ~(BIT(SIGKILL) | BIT(SIGSTOP));
	if (action->handler == SIG_IGN)
		task->pending &= ~BIT(signal);
	update_signal_flag(task);
	return 0;
}

static bool may_change(u32 signal)
{
	return signal && signal < NR_SIGNALS && signal != SIGKILL && signal != SIGSTOP;
}

/* The old call: handler, mask, flags, restorer. */
s32 sys_sigaction(u32 signal, void *action, void *old)
{
	struct signal_action *now, new;
	u32 words[4];

	if (!may_change(signal))
		return -EINVAL;
	now = &current->actions[signal];
	new = *now;
	if (action) {
		if (copy_from_user(words, action, sizeof(words)))
			return -EFAULT;
		new = (struct signal_action){ words[0], words[2], words[3], words[1] };
	}
	if (old) {
		u32 before[4] = { now->handler, now->mask, now->flags, now->restorer };

		if (copy_to_user(old, before, sizeof(before)))
			return -EFAULT;
	}
	return action ? set_action(signal, &new) : 0;
}

/* The new call: handler, flags, restorer, and a mask of 64 signals, of which half exist. */
s32 sys_rt_sigaction(u32 signal, void *action, void *old, u32 set_size)
{
	struct signal_action *now, new;
	u32 words[5];

	if (!may_change(signal) || set_size != 8)
		return -EINVAL;
	now = &current->actions[signal];
	new = *now;
	if (action) {
		if (copy_from_user(words, action, sizeof(words)))
			return -EFAULT;
		new = (struct signal_action){ words[0], words[1], words[2], words[3] };
	}
	if (old) {
		u32 before[5] = { now->handler, now->flags, now->restorer, now->mask, 0 };

		if (copy_to_user(old, before, sizeof(before)))
			return -EFAULT;
	}
	return action ? set_action(signal, &new) : 0;
}

static void save_context(struct sigcontext *context, const struct pt_regs *regs, u32 fpu_at)
{
	struct thread *thread = &current->thread;

	__asm__ volatile("movw %%fs, %0\n\tmovw %%gs, %1" : "=m"(thread->fs), "=m"(thread->gs));
	*context = (struct sigcontext){
		.gs = thread->gs, .fs = thread->fs, .es = regs->es & 0xffff, .ds = regs->ds & 0xffff,
		.edi = regs->edi, .esi = regs->esi, .ebp = regs->ebp, .esp = regs->esp, .ebx = regs->ebx,
		.edx = regs->edx, .ecx = regs->ecx, .eax = regs->eax, .eip = regs->eip, .cs = regs->cs & 0xffff,
		.eflags = regs->eflags, .esp_at_signal = regs->esp, .ss = regs->ss & 0xffff,
		.fpstate = fpu_at, .mask = current->blocked, .cr2 = current->fault_address,
	};
}

/* Build the frame and let `regs` start the handler. The arguments are in registers too, for regparm handlers. */
static s32 start_handler(struct pt_regs *regs, u32 signal, const struct signal_action *action)
{
	bool rt = action->flags & SA_SIGINFO;
	u32 size = rt ? sizeof(struct rt_frame) : sizeof(struct frame);
	u32 fpu_at = current->thread.fpu_used ? (regs->esp - FPU_STATE_SIZE) & ~15u : 0;
	u32 esp = (((fpu_at ? fpu_at : regs->esp) - size) & ~15u) - 4;	/* as behind a call from an aligned stack */
	u32 back = action->flags & SA_RESTORER ? action->restorer : rt ? vdso_rt_sigreturn_at : vdso_sigreturn_at;
	u32 left;

	if (fpu_at && fpu_to_user(fpu_at))
		return -EFAULT;
	if (rt) {
		struct rt_frame frame = { back, signal, esp + offsetof(struct rt_frame, info),
					  esp + offsetof(struct rt_frame, flags), { signal }, 0, 0, { 0 }, { 0 }, { 0 } };

		frame.info[3] = current->fault_address;
		frame.mask[0] = current->blocked;
		save_context(&frame.context, regs, fpu_at);
		left = copy_to_user((void *)esp, &frame, sizeof(frame));
		regs->edx = frame.info_at;
		regs->ecx = frame.ucontext_at;
	} else {
		struct frame frame = { back, signal, { 0 } };

		save_context(&frame.context, regs, fpu_at);
		left = copy_to_user((void *)esp, &frame, sizeof(frame));
		regs->edx = regs->ecx = 0;
	}
	if (left)
		return -EFAULT;
	regs->eax = signal;
	regs->esp = esp;
	regs->eip = action->handler;
	regs->eflags &= ~0x400u;
	regs->cs = __USER_CS;
	regs->ds = regs->es = regs->ss = __USER_DS;
	regs->orig_eax = ~0u;
	return 0;
}

/* A system call that a signal cut short: once more, or tell the program. */
static void end_system_call(struct pt_regs *regs, const struct signal_action *action)
{
	if ((s32)regs->orig_eax < 0 || regs->eax != (u32)-ERESTARTSYS)
		return;
	if (action && !(action->flags & SA_RESTART)) {
		regs->eax = (u32)-EINTR;
		return;
	}
	regs->eax = regs->orig_eax;
	regs->eip -= 2;	/* int $0x80, or the jump in front of sysenter's return */
}

/* On the way back to user mode, interrupts on. */
void do_signal(void)
{
	struct task *task = current;
	struct pt_regs *regs = task_regs(task);
	u32 ready;

	while ((ready = task->pending & ~task->blocked)) {
		u32 signal = (u32)__builtin_ctz(ready) + 1;
		struct signal_action action = task->actions[signal];

		task->pending &= ~BIT(signal);
		if (action.handler == SIG_DFL)
			do_exit(signal);
		end_system_call(regs, &action);
		if (start_handler(regs, signal, &action))
			do_exit(SIGSEGV);
		task->blocked |= action.mask | (action.flags & SA_NODEFER ? 0 : BIT(signal));
		if (action.flags & SA_RESETHAND)
			task->actions[signal].handler = SIG_DFL;
	}
	end_system_call(regs, NULL);
	update_signal_flag(task);
}

/* What stands in the frame goes into the registers. Selectors get ring 3 and are not looked at any further. */
static s32 restore_context(struct pt_regs *regs, const struct sigcontext *context, u32 mask)
{
	struct task *task = current;

	regs->ds = context->ds & 0xffff;
	regs->es = context->es & 0xffff;
	regs->edi = context->edi;
	regs->esi = context->esi;
	regs->ebp = context->ebp;
	regs->ebx = context->ebx;
	regs->edx = context->edx;
	regs->ecx = context->ecx;
	regs->eip = context->eip;
	regs->esp = context->esp;
	regs->cs = (context->cs & 0xffff) | 3;
	regs->ss = (context->ss & 0xffff) | 3;
	regs->eflags = (regs->eflags & ~(u32)USER_EFLAGS) | (context->eflags & USER_EFLAGS);
	regs->orig_eax = ~0u;	/* no system call: nothing to begin again */
	task->thread.fs = (u16)context->fs;
	task->thread.gs = (u16)context->gs;
	load_segments(&task->thread);
	if (fpu_from_user(context->fpstate))
		do_exit(SIGSEGV);
	task->blocked = mask & ~(BIT(SIGKILL) | BIT(SIGSTOP));
	update_signal_flag(task);
	return (s32)context->eax;
}

/* The handler's return has taken the address off the stack, and the way back the signal's number. */
s32 sys_sigreturn(struct pt_regs *regs)
{
	struct frame frame;

	if (copy_from_user(&frame, (const void *)(regs->esp - 8), sizeof(frame)))
		do_exit(SIGSEGV);
	return restore_context(regs, &frame.context, frame.context.mask);
}

s32 sys_rt_sigreturn(struct pt_regs *regs)
{
	struct rt_frame frame;

	if (copy_from_user(&frame, (const void *)(regs->esp - 4), sizeof(frame)))
		do_exit(SIGSEGV);
	return restore_context(regs, &frame.context, frame.mask[0]);
}
