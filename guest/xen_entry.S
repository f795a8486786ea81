/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How Xen enters the kernel beside exceptions: the event upcall and the failsafe callback.
 *
 * The direct iret (an op) unmasks events a few instructions before it leaves. An upcall there is taken on a stack
 * that holds nothing but the frame it was about to return to, with the interrupted task's registers loaded: it is
 * folded into that frame, as if the events had come before the registers were restored. Else every such upcall
 * would nest, and what return_from_trap looks for would wait for the next entry.
 * Ref: Linux 2.6.23, arch/i386/xen/xen-asm.S, arch/i386/kernel/entry.S; Xen public/arch-x86/xen.h (callbacks).
 */
#include "entry.h"

#define RING3 2			/* the bit of a selector that rings 2 and 3 have */

	.text
	.globl	xen_hypervisor_callback
xen_hypervisor_callback:
	pushl	$0
	save_all
	testb	$RING3, R_CS(%esp)
	jnz	1f
	movl	R_EIP(%esp), %eax
	cmpl	xen_iret_start, %eax
	jb	1f
	cmpl	xen_iret_end, %eax
	jb	fold
1:	movl	%esp, %eax
	call	*xen_do_upcall
	jmp	return_from_trap

	/* Drop EIP, CS and EFLAGS of the interrupted return: the registers move up to the frame behind them. */
fold:
	leal	R_ORIG_EAX(%esp), %esi
	leal	R_EFLAGS(%esp), %edi
	movl	$((R_ORIG_EAX + 4) / 4), %ecx
	std
	rep movsl
	cld
	leal	4(%edi), %esp
	jmp	1b

	/*
	 * The hypervisor could not load a segment register, or (EAX = 1 below stays) could not return at all. Frame:
	 * DS, ES, FS, GS, then what it was about to return to. Each selector is tried again; what fails becomes null.
	 */
	.globl	xen_failsafe_callback
xen_failsafe_callback:
	pushl	%eax
	movl	$1, %eax
2:	movw	4(%esp), %ds
3:	movw	8(%esp), %es
4:	movw	12(%esp), %fs
5:	movw	16(%esp), %gs
	testl	%eax, %eax
	popl	%eax
	leal	16(%esp), %esp		/* flags stay */
	jnz	iret_exc
	pushl	$0
	save_all
	jmp	return_from_trap

.macro NULL_SELECTOR offset, again
	xorl	%eax, %eax
	movl	%eax, \offset(%esp)
	jmp	\again
.endm
6:	NULL_SELECTOR 4, 2b
7:	NULL_SELECTOR 8, 3b
8:	NULL_SELECTOR 12, 4b
9:	NULL_SELECTOR 16, 5b
	.pushsection .ex_table, "aw"
	.long	2b, 6b, 3b, 7b, 4b, 8b, 5b, 9b
	.popsection

	/* The op arch_setup fills these in: the handler of an upcall, and where the direct iret may be interrupted. */
	.data
	.balign	4
	.globl	xen_do_upcall, xen_iret_start, xen_iret_end
xen_do_upcall:	.long 0
xen_iret_start:	.long 0
xen_iret_end:	.long 0
