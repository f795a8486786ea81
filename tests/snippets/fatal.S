/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Ways to lose the CPU; ARG(0) chooses one.
 */
#include "kernel.inc"

	.globl	main
main:
	mov	ARG(0), %eax
	jmp	*cases(, %eax, 4)

	.globl	at_reset, at_empty, at_stack
reset:	lidt	no_idt			/* 0: an IDT limit of 0, the deliberate way */
at_reset:
	ud2
empty:	movl	$0x40, idt_pointer	/* 1: an IDT of eight vectors; neither #UD's fault nor #DF has a gate */
	gate	6, 0x0e
	lidt	idt_pointer
at_empty:
	ud2
stack:	movl	$0, tss + 8		/* 2: SS0 of the TSS is null: no way into ring 0 */
	user	at_stack
at_stack:
	int	$0x80
task:	gate	0x50, 0x85, TSS + 8	/* 3: a task gate */
	int	$0x50
v86:	push	$0			/* 4: an exception of virtual-8086 mode, whose first bytes are `int 0x21` */
	push	$0
	push	$0
	push	$0
	push	$0
	push	$0x100
	push	$0x20002
	push	$0
	push	$0x4000
	movw	$0x21cd, 0x4000
	iret
execute:				/* 5: code where nothing is */
	mov	$0xfee00000, %eax
	jmp	*%eax
flood:	gate	6, 0x0e			/* 6: a fault for ever, without entering a block */
	point	11, at_flood
at_flood:
	ud2
cases:	.long	reset, empty, stack, task, v86, execute, flood
no_idt:	.word	0
	.long	0
