/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page that every program sees: an ELF image with a note, the ways out of signal handlers, and a way into the
 * kernel. sysenter.c copies it; it runs in user mode, at another address.
 * Ref: Linux 2.6.23, arch/i386/kernel/vsyscall-note.S (note type 2: capabilities for the C library).
 */
#define VDSO_ENTRY 0x100
#define VDSO_SIGRETURN 0x140
#define VDSO_RT_SIGRETURN 0x160
#define VDSO_SIZE 0x180

	.data
	.balign	4
	.globl	vdso_image, vdso_image_end, vdso_note_mask, vdso_entry, vdso_sigreturn, vdso_rt_sigreturn
vdso_image:
	.byte	0x7f, 'E', 'L', 'F', 1, 1, 1
	.zero	9
	.short	3, 3			/* shared object, i386 */
	.long	1, VDSO_ENTRY, 52, 0, 0	/* version, entry, program headers, no sections, flags */
	.short	52, 32, 2, 0, 0, 0
	.long	1, 0, 0, 0, VDSO_SIZE, VDSO_SIZE, 5, 4096	/* LOAD */
	.long	4, 1f - vdso_image, 1f - vdso_image, 0, 2f - 1f, 2f - 1f, 4, 4	/* NOTE */
1:	.long	4, 2f - 3f, 2
	.asciz	"GNU"
3:	.long	1			/* one capability */
vdso_note_mask:
	.long	0			/* a platform whose segments are cut short sets bit 1 in arch_setup */
	.byte	1
	.asciz	"nosegneg"
	.balign	4
2:
	.org	vdso_image + VDSO_ENTRY, 0xcc
vdso_entry:				/* one of the two below comes here */
	.org	vdso_image + VDSO_SIGRETURN, 0xcc
vdso_sigreturn:				/* debuggers know both by their bytes */
	popl	%eax
	movl	$119, %eax
	int	$0x80
	.org	vdso_image + VDSO_RT_SIGRETURN, 0xcc
vdso_rt_sigreturn:
	movl	$173, %eax
	int	$0x80
	.org	vdso_image + VDSO_SIZE, 0xcc
vdso_image_end:

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
4:	movl	%esp, %ebp
	sysenter
	jmp	4b			/* two bytes, as long as int $0x80: a call that a signal cut short begins again */
vsyscall_sysenter_return:
	popl	%ebp
	popl	%edx
	popl	%ecx
	ret
vsyscall_sysenter_end:
