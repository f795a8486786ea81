/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What sysenter.c copies to the vsyscall page; it runs in user mode, at another address. */
	.section .rodata, "a"
	.globl	vsyscall_int80, vsyscall_int80_end
vsyscall_int80:
	int	$0x80
	ret
vsyscall_int80_end:

	/* SYSENTER saves nothing: EBP tells the kernel where the stack is. SYSEXIT loses ECX and EDX. */
	.globl	vsyscall_sysenter, vsyscall_sysenter_return, vsyscall_sysenter_end
vsyscall_sysenter:
	pushl	%ecx
	pushl	%edx
	pushl	%ebp
	movl	%esp, %ebp
	sysenter
vsyscall_sysenter_return:
	popl	%ebp
	popl	%edx
	popl	%ecx
	ret
vsyscall_sysenter_end:
