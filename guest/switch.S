/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From one kernel stack to another. */

	.text
	/* EAX = where to save ESP, EDX = ESP to load. Returns on the other stack. */
	.globl	switch_stacks
switch_stacks:
	pushl	%ebp
	pushl	%ebx
	pushl	%esi
	pushl	%edi
	movl	%esp, (%eax)
	movl	%edx, %esp
	popl	%edi
	popl	%esi
	popl	%ebx
	popl	%ebp
	ret

	/* A kernel thread begins here: EBX = function, ESI = argument. */
	.globl	kernel_thread_start
kernel_thread_start:
	xorl	%ebp, %ebp
	movl	%ebx, %eax
	movl	%esi, %edx
	call	kernel_thread_main
	ud2
