/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Work in ring 3 that interrupts disturb, with system calls, page-sized copies and a time stamp counter that is
 * read as it goes. Ends after ARG(0) interrupts of vector 30h, or, without any, after ARG(1) rounds.
 */
#include "kernel.inc"

	.globl	main, work, step, tick
main:
	gate	0x30, 0x8e
	point	0x30, tick
	gate	0x80, 0xee
	point	0x80, call
	mov	%esp, resume_esp
	user	work, 0x202
work:	xor	%ebx, %ebx
	xor	%ebp, %ebp
step:	inc	%ebx			/* rounds */
	mov	%ebx, %eax
	imul	$1103515245, %eax
	add	%eax, %ebp
	mov	$0x200000, %esi
	mov	$0x201000, %edi
	mov	%ebp, (%esi)
	mov	$64, %ecx
	cld
	rep movsl
	int	$0x80
	jmp	step

tick:	incl	RESULT(0)
	push	%eax
	mov	ARG(0), %eax
	cmp	%eax, RESULT(0)
	pop	%eax
	je	over
	iret

call:	incl	RESULT(1)
	push	%eax
	push	%edx
	rdtsc
	sub	RESULT(2), %eax		/* the low word does not wrap in 4 s */
	jle	backward
	add	%eax, RESULT(2)
	pop	%edx
	pop	%eax
	cmp	ARG(1), %ebx
	je	over
	iret
backward:
	incl	RESULT(3)
over:	done
