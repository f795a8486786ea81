/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Delivery itself: what a gate does to EFLAGS, gates that are broken, faults of the delivery.
 */
#include "kernel.inc"

	.globl	main
	.globl	absent, odd_type, null_code, data_code, absent_code, outside, beyond, soft_de, feigned
main:
	gate	0x50, 0x8e		/* an interrupt gate clears IF, a trap gate leaves it; both clear NT and TF */
	gate	0x51, 0x8f
	point	0x50, keep_flags
	point	0x51, keep_flags
	mov	$RESULTS, %edi
	push	$0x4202			/* IF, NT */
	popf
	int	$0x50
	push	$0x4202
	popf
	int	$0x51
	cli
	push	$2
	popf

/* Software interrupts through bad gates: faults at the INT, with EXT clear. */
	gate	0x52, 0x0e		/* #NP(292h) */
	try	1f
absent:	int	$0x52
1:	gate	0x53, 0x82		/* #GP(29ah) */
	try	1f
odd_type:
	int	$0x53
1:	gate	0x54, 0x8e, 0		/* #GP(0) */
	try	1f
null_code:
	int	$0x54
1:	gate	0x55, 0x8e, KERNEL_DS	/* #GP(10h) */
	try	1f
data_code:
	int	$0x55
1:	gate	0x56, 0x8e, 0x38	/* #NP(38h) */
	try	1f
absent_code:
	int	$0x56
1:	gate	0x57, 0x8e, 0x1230	/* #GP(1230h) */
	try	1f
outside:
	int	$0x57
1:	lidt	short_idt		/* #GP(7fah): behind the IDT's limit */
	try	1f
beyond:	int	$0xff
1:	lidt	idt_pointer
	gate	0, 0x0e			/* #NP(2): INT 0 is no exception, so no double fault */
	try	1f
soft_de:
	int	$0
1:	gate	3, 0x0e			/* #NP(1ah), at the INT3 */
	try	1f
feigned:
	int3
1:	gate	3, 0xee

/* Exceptions through bad gates: EXT is set. */
	.globl	benign, double, double_gp, double_pf, exception_outside
	gate	6, 0x0e			/* #UD is benign: #NP(33h) */
	try	1f
benign:	ud2
1:	gate	6, 0x8e, 0x1230		/* #GP(1231h) */
	try	1f
exception_outside:
	ud2
1:	gate	6, 0x8e
	xor	%ecx, %ecx		/* #DE, then #NP: #DF(0) */
	try	1f
double:	div	%ecx
1:	gate	0, 0x8e
	gate	13, 0x0e		/* #GP, then #NP: #DF(0) */
	mov	$0x1230, %eax
	try	1f
double_gp:
	mov	%ax, %gs
1:	gate	13, 0x8e
	.globl	after_double
	mov	$0x1230, %eax		/* and nothing of it lasts: #GP(1230h) */
	try	1f
after_double:
	mov	%ax, %gs
1:
/* A 16-bit gate pushes 16-bit words; its offset has 16 bits, so the handler lies low. */
	.globl	narrow_next
	mov	$narrow, %esi
	mov	$0x4000, %edi
	mov	$narrow_end - narrow, %ecx
	rep movsb
	gate	0x58, 0x86
	point	0x58, 0x4000
	mov	%esp, RESULT(4)
	try	narrow_next
	int	$0x58
narrow_next:
	mov	%esp, RESULT(5)
	done

keep_flags:
	pushf
	pop	%eax
	stosl
	mov	8(%esp), %eax
	stosl
	iret

narrow:	mov	%esp, RESULT(6)
	mov	(%esp), %eax		/* IP, CS */
	mov	%eax, RESULT(7)
	mov	resume, %eax
	mov	resume_esp, %esp
	jmp	*%eax
narrow_end:
	.align	4
short_idt:
	.word	0x81 * 8 - 1
	.long	idt
