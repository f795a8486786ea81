/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * RDMSR or WRMSR of register ARG(0): ARG(1) is 1 to write EDX:EAX = ARG(3):ARG(2), 2 to write and read it back.
 * RESULT(0..1) is EAX and EDX afterwards, RESULT(2..3) what RDTSC says then, RESULT(4) that the end was reached.
 */
#include "kernel.inc"

	.globl	main
main:
	mov	$0x11111111, %eax
	mov	$0x22222222, %edx
	mov	ARG(0), %ecx
	try	after
	cmpl	$0, ARG(1)
	je	1f
	mov	ARG(2), %eax
	mov	ARG(3), %edx
here:
	wrmsr
	cmpl	$2, ARG(1)
	jne	after
	mov	$0x11111111, %eax
	mov	$0x22222222, %edx
1:
there:
	rdmsr
after:
	mov	%eax, RESULT(0)
	mov	%edx, RESULT(1)
	rdtsc
	mov	%eax, RESULT(2)
	mov	%edx, RESULT(3)
	movl	$1, RESULT(4)
	done
