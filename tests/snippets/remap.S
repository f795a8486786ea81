/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * One linear page over two physical ones, each with a function. ARG(0) is the entry's linear address, ARG(1) and
 * ARG(2) its two values, ARG(3) the linear page.
 */
#include "kernel.inc"

	.globl	main
main:
	mov	ARG(0), %esi
	mov	ARG(3), %edi
	mov	$100, %ecx
1:	mov	ARG(1), %eax
	mov	%eax, (%esi)
	invlpg	(%edi)
	call	*%edi
	add	%eax, RESULT(0)
	mov	ARG(2), %eax
	mov	%eax, (%esi)
	mov	%cr3, %eax		/* the other way to forget a translation */
	mov	%eax, %cr3
	call	*%edi
	add	%eax, RESULT(1)
	loop	1b
	done
