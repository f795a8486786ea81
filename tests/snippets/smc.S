/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Code that is written while it runs. The same physical pages are reached through up to three linear addresses:
 * ARG(0) to write, ARG(1) to execute, ARG(2) to fill with zeros. ARG(3) is the number of rounds.
 *
 * RESULT(0) is the sum of all that the written functions returned; RESULT(1) counts functions that were stale.
 */
#include "kernel.inc"

#define PAGES 100

	.globl	main
main:
	cld
	mov	$1, %ebx
	xor	%ebp, %ebp
round:	mov	ARG(2), %edi		/* zeros over last round's code, two pages */
	xor	%eax, %eax
	mov	$2048, %ecx
	rep stosl
	mov	ARG(0), %esi
	mov	ARG(1), %edi
	movb	$0xb8, 0x100(%esi)	/* mov $round, %eax; ret */
	mov	%ebx, 0x101(%esi)
	movb	$0xc3, 0x105(%esi)
	movb	$0xb8, 0xffe(%esi)	/* mov $round + 1000, %eax over the page's end; ret */
	lea	1000(%ebx), %eax
	mov	%eax, 0xfff(%esi)
	movb	$0xc3, 0x1003(%esi)
	lea	0x100(%edi), %edx
	call	*%edx
	add	%eax, %ebp
	lea	0xffe(%edi), %edx
	call	*%edx
	add	%eax, %ebp
	mov	%ebx, 0x800(%esi)	/* data in the page of the code */
	movl	$7, 0x101(%esi)		/* another constant */
	lea	0x100(%edi), %edx
	call	*%edx
	add	%eax, %ebp
	lock incl 0x101(%esi)
	call	*%edx
	add	%eax, %ebp
	movw	$0x0101, 0x102(%esi)	/* two bytes in the middle: 8 + 010100h */
	call	*%edx
	add	%eax, %ebp
	lea	0x106(%esi), %eax	/* PUSH over the constant */
	xchg	%eax, %esp
	sub	$1, %esp
	push	%ebx
	xchg	%eax, %esp
	call	*%edx
	add	%eax, %ebp
	inc	%ebx
	cmp	ARG(3), %ebx
	jbe	round
	mov	%ebp, RESULT(0)

/* More pages of code than any queue holds: written, run, overwritten as data, written again. */
	xor	%ebx, %ebx
2:	mov	ARG(0), %esi
	mov	ARG(1), %edi
	mov	$PAGES, %ecx
3:	lea	(%ebx, %ecx, 8), %eax
	movb	$0xb8, 0x10(%esi)
	mov	%eax, 0x11(%esi)
	movb	$0xc3, 0x15(%esi)
	lea	0x10(%edi), %edx
	call	*%edx
	lea	(%ebx, %ecx, 8), %edx
	cmp	%edx, %eax
	je	4f
	incl	RESULT(1)
4:	add	$0x1000, %esi
	add	$0x1000, %edi
	loop	3b
	mov	ARG(2), %esi
	mov	$PAGES, %ecx
5:	movl	$0, 0x10(%esi)
	movl	$0, 0x14(%esi)
	movl	$0, 0x18(%esi)
	movl	$0, 0x800(%esi)
	add	$0x1000, %esi
	loop	5b
	inc	%ebx
	cmp	$5, %ebx
	jne	2b

/* An instruction that changes the next one. */
	mov	$20, %ecx
	xor	%ebp, %ebp
6:	mov	%ecx, 7f + 1
7:	mov	$0, %eax
	add	%eax, %ebp
	loop	6b
	mov	%ebp, RESULT(2)

/* A string store that runs over the code behind it: the count comes out right. */
	mov	$8f + 1, %edi
	mov	$0x11111111, %eax
	mov	$1, %ecx
	rep stosl
8:	mov	$0, %eax
	mov	%eax, RESULT(3)

/* A loop whose text and data share a page, and whose stack does too. */
	mov	$9f, %eax
	xchg	%eax, %esp
	mov	$1000, %ecx
10:	push	%ecx
	call	twice
	pop	%edx
	add	%edx, RESULT(4)
	loop	10b
	xchg	%eax, %esp
	done
twice:	incl	RESULT(5)
	ret
	.fill	64, 4, 0
9:	.long	0
