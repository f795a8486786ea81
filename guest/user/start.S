/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a program begins: argc at ESP, then argv. */
	.text
	.globl	_start
_start:
	xorl	%ebp, %ebp
	movl	(%esp), %eax
	leal	4(%esp), %edx
	andl	$-16, %esp
	call	main
	movl	%eax, %ebx
	movl	$1, %eax
	int	$0x80
	hlt
