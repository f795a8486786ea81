/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Memory-mapped I/O, CPUID, RDTSC, SYSENTER and SYSEXIT. ARG(0) is a physical address that is not RAM.
 */
#include "kernel.inc"

	.globl	main, bad_sysenter, bad_syscall, sysenter_from, sysenter_here, sysexit_to
main:
	mov	ARG(0), %esi
	mov	(%esi), %eax
	mov	%eax, RESULT(0)
	movzbl	1(%esi), %eax
	mov	%eax, RESULT(1)
	movzwl	2(%esi), %eax
	mov	%eax, RESULT(2)
	movl	$0x11223344, 4(%esi)
	movb	$0x55, 9(%esi)
	movw	$0x6677, 10(%esi)
	addl	$1, (%esi)		/* read, then write */
	mov	0x1000(%esi), %eax	/* nobody's: all ones */
	mov	%eax, RESULT(3)
	movl	$0, 0x1000(%esi)	/* and this is dropped */
	mov	0x1000(%esi), %eax
	mov	%eax, RESULT(4)
	mov	0xfffffffc, %eax	/* the last word */
	mov	%eax, RESULT(5)
	fninit
	fildll	(%esi)			/* eight bytes */
	fistpll	RESULT(6)

	mov	$RESULT(8), %edi
	mov	$leaves, %ebp
1:	mov	(%ebp), %eax
	xor	%ecx, %ecx
	cpuid
	stosl
	mov	%ebx, %eax
	stosl
	mov	%ecx, %eax
	stosl
	mov	%edx, %eax
	stosl
	add	$4, %ebp
	cmp	$leaves_end, %ebp
	jb	1b

	try	1f			/* #GP(0): the MSRs say nothing */
bad_sysenter:
	sysenter
1:	try	1f			/* #UD */
bad_syscall:
	syscall
1:	xor	%edx, %edx
	mov	$0x174, %ecx
	mov	$KERNEL_CS, %eax
	wrmsr
	inc	%ecx
	mov	$TSS_STACK - 64, %eax
	wrmsr
	inc	%ecx
	mov	$entry, %eax
	wrmsr
	try	back
	user	2f, 0x202
2:	mov	$0x1111, %ecx
	mov	$0x2222, %edx
sysenter_from:
	sysenter
	ud2
entry:	pushf				/* ring 0: IF is clear, the stack is the MSR's */
	pop	%eax
	mov	%eax, RESULT(64)
	mov	%esp, RESULT(65)
	mov	%cs, %eax
	mov	%eax, RESULT(66)
	mov	%ss, %eax
	mov	%eax, RESULT(67)
	mov	%ecx, RESULT(68)
	mov	%edx, RESULT(69)
	mov	$sysexit_to, %edx
	mov	$USER_STACK - 16, %ecx
	sysexit
	ud2
sysexit_to:
	mov	%cs, %eax
	int	$0x80
back:	mov	%eax, RESULT(70)
	done

	.align	4
leaves:	.long	0, 1, 2, 3, 0x80000000, 0x80000001, 0x80000002, 0x80000003, 0x80000004, 0x80000006, 0x80000008
	.long	0x4000, 0x40000000, 0x80000009
leaves_end:
