/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The FPU is switched lazily: CR0.TS makes its first use after a switch fault, and only then a task's state is
 * loaded. So a task that never uses it costs nothing.
 * Ref: Intel SDM vol. 1, 10.5 (FXSAVE); vol. 3A, 2.5 (TS), 13.4.
 */
#include "alternative.h"
#include "sched.h"

#define CR0_MP 2
#define CR0_EM 4
#define CR0_TS 8
#define CR0_NE 0x20	/* errors as #MF, not as IRQ 13 */
#define CR4_OSFXSR 0x200
#define CR4_OSXMMEXCPT 0x400
#define MXCSR_DEFAULT 0x1f80
#define MXCSR_WORD 6	/* of the image */
#define MXCSR_BITS 0xffbf	/* of a CPU without DAZ: FXRSTOR refuses any other */

static bool fxsr;

/* From trap_init, which owns CR4. */
void fpu_init(void)
{
	fxsr = cpu_features & FEATURE_FXSR;
	if (fxsr)
		write_cr4(read_cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
	write_cr0((read_cr0() & ~(u32)CR0_EM) | CR0_MP | CR0_NE | CR0_TS);
}

/* The current task's registers go to memory; its next use faults again. */
void fpu_save(struct task *task)
{
	__asm__ volatile(ALTERNATIVE("fnsave (%0)\n\tfwait\n\tnop\n\tnop", "fxsave (%0)\n\tfnclex", ALT_BIT_FXSR)
			 : : "a"(task->thread.fpu_state) : "memory");
	task->thread.fpu_live = false;
	write_cr0(read_cr0() | CR0_TS);
}

void fpu_drop(struct task *task)
{
	if (task->thread.fpu_live)
		write_cr0(read_cr0() | CR0_TS);
	task->thread.fpu_live = task->thread.fpu_used = false;
}

/* For a signal handler, which begins with a fresh FPU: the registers go to the user's stack. */
s32 fpu_to_user(u32 address)
{
	struct task *task = current;

	if (task->thread.fpu_live)
		fpu_save(task);
	task->thread.fpu_used = false;
	return copy_to_user((void *)address, task->thread.fpu_state, FPU_STATE_SIZE) ? -EFAULT : 0;
}

/* Back again, and nothing of the handler's own is left. 0: there were none. */
s32 fpu_from_user(u32 address)
{
	struct task *task = current;
	u32 *words = (u32 *)task->thread.fpu_state;

	fpu_drop(task);
	if (!address)
		return 0;
	if (copy_from_user(words, (const void *)address, FPU_STATE_SIZE))
		return -EFAULT;
	if (fxsr)
		words[MXCSR_WORD] &= MXCSR_BITS;
	task->thread.fpu_used = true;
	return 0;
}

/* #NM: the current task wants the FPU. */
void math_state_restore(void)
{
	struct thread *thread = &current->thread;
	u32 mxcsr = MXCSR_DEFAULT;

	clts();
	if (thread->fpu_used)
		__asm__ volatile(ALTERNATIVE("frstor (%0)\n\tnop", "fxrstor (%0)", ALT_BIT_FXSR)
				 : : "a"(thread->fpu_state) : "memory");
	else if (fxsr)
		__asm__ volatile("fninit\n\tldmxcsr %0" : : "m"(mxcsr));
	else
		__asm__ volatile("fninit");
	thread->fpu_used = thread->fpu_live = true;
}
