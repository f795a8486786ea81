/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Into the kernel and out of it: exceptions, interrupts, system calls. Every change of the interrupt flag and
 * every return goes through an op.
 * Ref: Intel SDM vol. 3A, 6.12 (frames), 6.15 (error codes); struct pt_regs in sched.h.
 */
#include "entry.h"

	.text

/* ------------------------------------------------------------------ exceptions */

	exception divide_error, do_divide_error, 0
	exception debug, do_debug, 0
	exception nmi, do_nmi, 0
	exception int3, do_int3, 0
	exception overflow, do_overflow, 0
	exception bounds, do_bounds, 0
	exception invalid_op, do_invalid_op, 0
	exception device_not_available, do_device_not_available, 0
	exception coprocessor_segment_overrun, do_coprocessor_segment_overrun, 0
	exception invalid_tss, do_invalid_tss, 1
	exception segment_not_present, do_segment_not_present, 1
	exception stack_segment, do_stack_segment, 1
	exception general_protection, do_general_protection, 1
	exception page_fault, do_page_fault, 1
	exception spurious_interrupt_bug, do_spurious_interrupt_bug, 0
	exception coprocessor_error, do_coprocessor_error, 0
	exception alignment_check, do_alignment_check, 1
	exception machine_check, do_machine_check, 0
	exception simd_coprocessor_error, do_simd_coprocessor_error, 0
	exception test_gate, do_test_gate, 0

	.globl	common_exception
common_exception:
	pushl	%ds
	pushl	%eax
	pushl	%ebp
	pushl	%edi
	pushl	%esi
	pushl	%edx
	pushl	%ecx
	pushl	%ebx
	cld
	movl	%es, %ecx
	movl	R_ES(%esp), %edi
	movl	%ecx, R_ES(%esp)
	movl	R_ORIG_EAX(%esp), %edx
	movl	$-1, R_ORIG_EAX(%esp)
	movl	$__USER_DS, %ecx
	movl	%ecx, %ds
	movl	%ecx, %es
	movl	%esp, %eax
	call	*%edi			/* (regs, error code) */
	jmp	return_from_trap

	/* Through a task gate: the other TSS, its stack, no error code worth keeping. */
	.globl	double_fault_entry
double_fault_entry:
	xorl	%ebp, %ebp
	call	double_fault
	ud2

/* ------------------------------------------------------------------ interrupts */

	.balign	16
	.globl	irq_entries
irq_entries:				/* 8 bytes each */
	.set	irq, 0
	.rept	16
	.balign	8
	pushl	$~irq
	jmp	common_interrupt
	.set	irq, irq + 1
	.endr

	.balign	16
common_interrupt:
	save_all
	movl	%esp, %eax
	call	do_IRQ
	/* fall through */

	.globl	return_from_trap
return_from_trap:
	DISABLE_INTERRUPTS
	movl	R_CS(%esp), %eax
	andl	$3, %eax
	cmpl	$3, %eax
	jne	restore_all		/* the kernel is not preempted */
return_to_user_mode:
	movl	$-THREAD_SIZE, %ebp
	andl	%esp, %ebp
	movl	TI_FLAGS(%ebp), %ecx
	testl	%ecx, %ecx
	jnz	work_pending

restore_all:
	popl	%ebx
	popl	%ecx
	popl	%edx
	popl	%esi
	popl	%edi
	popl	%ebp
	popl	%eax
1:	popl	%ds			/* may be a selector that no longer exists */
2:	popl	%es
	addl	$4, %esp
3:	INTERRUPT_RETURN

	/* The frame cannot be returned to. Its registers are the user's; the frame goes with the task. */
	.globl	iret_exc
iret_exc:
	pushl	$0
	pushl	$do_iret_error
	jmp	common_exception

4:	movl	$0, (%esp)
	jmp	1b
5:	movl	$0, (%esp)
	jmp	2b
	.pushsection .ex_table, "aw"
	.long	1b, 4b
	.long	2b, 5b
	.long	3b, iret_exc		/* when the op's code stands at the site itself */
	.popsection

work_pending:
	ENABLE_INTERRUPTS
	testl	$2, %ecx		/* TIF_SIGPENDING */
	jz	6f
	call	do_signal
6:	call	schedule
	DISABLE_INTERRUPTS
	jmp	return_to_user_mode

/* ------------------------------------------------------------------ system calls */

	.globl	system_call
system_call:
	pushl	%eax
	save_all
	movl	%esp, %eax
	call	do_syscall
	jmp	return_from_trap

	/*
	 * SYSENTER: interrupts are off, ESP is the end of the TSS, the user's ESP is in EBP. The frame is made
	 * to look like that of an interrupt; where the call leaves it as it was, SYSEXIT is the way back.
	 */
	.globl	sysenter_entry
sysenter_entry:
	movl	(TSS_ESP0 - TSS_SIZE)(%esp), %esp
	pushl	$__USER_DS
	pushl	%ebp
	pushfl
	orl	$X86_EFLAGS_IF, (%esp)
	pushl	$__USER_CS
	pushl	sysenter_return
	pushl	%eax
	save_all
	ENABLE_INTERRUPTS
	movl	%esp, %eax
	call	do_syscall
	DISABLE_INTERRUPTS
	movl	$-THREAD_SIZE, %ebp
	andl	%esp, %ebp
	movl	TI_FLAGS(%ebp), %ecx
	testl	%ecx, %ecx
	jnz	work_pending
	movl	R_EIP(%esp), %edx
	cmpl	sysenter_return, %edx	/* exec has made another frame */
	jne	restore_all
	movl	R_ESP(%esp), %ecx
	popl	%ebx
	addl	$8, %esp
	popl	%esi
	popl	%edi
	popl	%ebp
	popl	%eax
	ENABLE_INTERRUPTS_SYSEXIT

	/* The first instructions of a new task; its registers wait at the top of the stack. */
	.globl	ret_from_fork
ret_from_fork:
	jmp	return_from_trap

	/* Leave the current kernel stack for user mode: EAX = registers at its top. */
	.globl	return_to_user
return_to_user:
	movl	%eax, %esp
	xorl	%ebp, %ebp
	jmp	return_from_trap
