/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Port accesses that the host has chosen: four words each at SCRIPT, what to do, port, value, how often. What is
 * read stands in a row at ANSWERS.
 */
#include "kernel.inc"

#define SCRIPT	0x80000
#define ANSWERS	0xc0000

	.globl	main
main:
	mov	$SCRIPT, %esi
	mov	$ANSWERS, %edi
	cld
next:	mov	(%esi), %ebx
	mov	4(%esi), %edx
	mov	8(%esi), %eax
	mov	12(%esi), %ecx
	add	$16, %esi
	cmp	$1, %ebx
	je	write
	cmp	$2, %ebx
	je	read
	cmp	$3, %ebx
	je	wait
	mov	%edi, RESULT(0)
	done

write:	out	%al, %dx
	loop	write
	jmp	next

read:	in	%dx, %al
	stosb
	loop	read
	jmp	next

wait:	loop	wait
	jmp	next
