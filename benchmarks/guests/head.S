/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The benchmark guest's first moment, its traps and what it does in ring 3.
 *
 * It starts by Linux's 32-bit boot protocol (ESI: zero page) and by multiboot (EAX: magic, EBX: information);
 * both enter it in flat protected mode with paging off.
 *
 * Ref: Multiboot Specification 0.6.96, 3.1 and 3.2; Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol";
 * Intel SDM vol. 3A, 6.12 (gates), 7.2.1 (TSS); vol. 2B, SYSENTER and SYSEXIT.
 */

#define MULTIBOOT_MAGIC	0x1BADB002
#define KERNEL_CS	0x08
#define KERNEL_DS	0x10
#define USER_CS		0x1b
#define USER_DS		0x23
#define TSS		0x28

	.section .multiboot, "a"
	.balign	4
	.long	MULTIBOOT_MAGIC, 0, -MULTIBOOT_MAGIC

	.text
	.globl	_start
_start:
	cli
	cld
	movl	$stack_top, %esp
	lgdt	gdt_pointer
	ljmp	$KERNEL_CS, $1f
1:	movl	$KERNEL_DS, %ecx
	movl	%ecx, %ds
	movl	%ecx, %es
	movl	%ecx, %fs
	movl	%ecx, %gs
	movl	%ecx, %ss
	pushl	%esi
	pushl	%ebx
	pushl	%eax
	call	guest_main
	/* Not reached. */
2:	hlt
	jmp	2b

/* void load_tables(void): the TSS's descriptor is completed here, since no relocation splits an address so. */
	.globl	load_tables
load_tables:
	movl	$tss, %eax
	movw	%ax, gdt + TSS + 2
	shrl	$16, %eax
	movb	%al, gdt + TSS + 4
	movb	%ah, gdt + TSS + 7
	lidt	idt_pointer
	movl	$TSS, %eax
	ltr	%ax
	ret

/* void run_in_ring3(void (*code)(void), u32 count): returns when the code asks for it by `int 0x80` with EAX 1. */
	.globl	run_in_ring3
run_in_ring3:
	movl	4(%esp), %eax
	movl	8(%esp), %ecx
	pushal
	movl	%esp, ring0_esp
	movl	$USER_DS, %edx
	movl	%edx, %ds
	movl	%edx, %es
	pushl	$USER_DS
	pushl	$user_stack_top
	pushl	$2			/* EFLAGS: interrupts off */
	pushl	$USER_CS
	pushl	%eax
	movl	%ecx, %ebx		/* the count */
	iret

leave_ring3:
	movl	ring0_esp, %esp
	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	popal
	ret

/* The traps: all registers saved, a C function called, as a kernel does. */
	.macro	save
	pushal
	pushl	%ds
	pushl	%es
	movl	$KERNEL_DS, %eax
	movl	%eax, %ds
	movl	%eax, %es
	.endm

	.macro	restore
	popl	%es
	popl	%ds
	popal
	.endm

	.globl	trap_syscall, trap_undefined, trap_page_fault, trap_unexpected, entry_sysenter
trap_syscall:
	cmpl	$1, %eax
	je	leave_ring3
	save
	call	on_syscall
	restore
	iret

trap_undefined:
	save
	call	on_undefined
	restore
	addl	$2, (%esp)		/* over the UD2 */
	iret

trap_page_fault:
	save
	movl	%cr2, %eax
	pushl	%eax
	call	on_page_fault
	addl	$4, %esp
	restore
	addl	$4, %esp		/* the error code */
	iret

trap_unexpected:
	call	on_unexpected

entry_sysenter:				/* ECX: the caller's ESP, EDX: where it goes on */
	pushl	%ecx
	pushl	%edx
	call	on_syscall
	popl	%edx
	popl	%ecx
	sysexit

/* Ring 3. EBX counts. */
	.globl	user_syscall, user_undefined, user_page_fault, user_sysenter
user_syscall:
1:	movl	$20, %eax
	int	$0x80
	decl	%ebx
	jnz	1b
	jmp	user_end

user_undefined:
1:	ud2
	decl	%ebx
	jnz	1b
	jmp	user_end

user_page_fault:
	xorl	%esi, %esi
1:	movl	%esi, %edi
	andl	$0xff000, %edi		/* 256 pages in turn */
	movl	%ebx, FAULT_AREA(%edi)
	addl	$0x1000, %esi
	decl	%ebx
	jnz	1b
	jmp	user_end

user_sysenter:
1:	movl	%esp, %ecx
	movl	$2f, %edx
	sysenter
2:	decl	%ebx
	jnz	1b

user_end:
	movl	$1, %eax
	int	$0x80

	.data
	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff, 0x00cf93000000ffff	/* ring 0: code, data; in the order that SYSEXIT wants */
	.quad	0x00cffb000000ffff, 0x00cff3000000ffff	/* ring 3 */
	.quad	0x0000890000000067			/* 32-bit TSS, 104 bytes, base to come */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt
	.globl	idt_pointer
idt_pointer:
	.word	256 * 8 - 1
	.long	idt
	.balign	4
tss:	.long	0, trap_stack_top, KERNEL_DS		/* link, ESP0, SS0 */
	.fill	22, 4, 0
	.long	104 << 16				/* no I/O bitmap */

	.bss
	.balign	16
ring0_esp:
	.skip	16
	.skip	16384
stack_top:
	.skip	8192
	.globl	trap_stack_top
trap_stack_top:
	.skip	8192
user_stack_top:
