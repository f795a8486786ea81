/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Shows registers and flags to the host and takes them back: INT 40h all registers, INT 41h flags (ARG(0)), INT 42h
 * segments. Without a handler of the host's they are no more than records in the log.
 */
#include "kernel.inc"

	.macro	keep at
	mov	%eax, \at
	mov	%ecx, \at + 4
	mov	%edx, \at + 8
	mov	%ebx, \at + 12
	mov	%ebp, \at + 16
	mov	%esi, \at + 20
	mov	%edi, \at + 24
	.endm

	.globl	main
main:
	mov	$0x10, %eax
	mov	$0x11, %ecx
	mov	$0x12, %edx
	mov	$0x13, %ebx
	mov	$0x15, %ebp
	mov	$0x16, %esi
	mov	$0x17, %edi
	int	$0x40
	keep	RESULT(0)
	mov	$-1, %eax
	mov	%eax, %ecx
	mov	%eax, %edx
	mov	%eax, %ebx
	mov	%eax, %ebp
	mov	%eax, %esi
	mov	%eax, %edi
	int	$0x40
	keep	RESULT(7)

	pushl	ARG(0)
	popf
	int	$0x41			/* the host sees them, and sets them again */
	pushf
	pop	RESULT(14)
	push	$2
	popf
	xor	%eax, %eax
	sub	%eax, %eax
	int	$0x41			/* now it changes what an instruction left */
	pushf
	pop	RESULT(15)
	push	$2
	popf

	int	$0x42
	movl	$0x5e6, %es:0x7100
	done
