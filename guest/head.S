/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first instructions on bare hardware (and under VMI, whose ROM needs nothing else): flat 32-bit protected
 * mode, paging off, ESI points to the zero page. Ends on a stack at 3 GiB, in start_kernel.
 * Ref: Linux/i386 32-bit boot protocol; Intel SDM vol. 3A, 4.4 (PAE paging), 9.8.5 (initialising paging).
 */
#include "segment.h"

#define PA(symbol) ((symbol) - PAGE_OFFSET)

#define ZERO_PAGE_CMDLINE 0x228
#define COMMAND_LINE_SIZE 2048
#define BOOT_TABLES 4			/* page tables of 2 MiB each: identity and at 3 GiB */
#define PTE_FLAGS 0x63			/* present, writable, accessed, dirty */
#define PDPTE_FLAGS 0x01
#define EARLY_VECTORS 32
#define CR4_PAE 0x20
#define CR0_PG_WP_PE 0x80010001

	.section .head.text, "ax"
	.globl startup_32
startup_32:
	cli
	cld

	/* A loader may leave anything in .bss. */
	xorl	%eax, %eax
	movl	$PA(_bss), %edi
	movl	$PA(_end), %ecx
	subl	%edi, %ecx
	shrl	$2, %ecx
	movl	%esi, %edx
	rep stosl
	movl	%edx, %esi

	/* The zero page and the command line lie in memory that will be given away. */
	movl	$PA(boot_params), %edi
	movl	$(PAGE_SIZE / 4), %ecx
	rep movsl
	movl	PA(boot_params + ZERO_PAGE_CMDLINE), %esi
	testl	%esi, %esi
	jz	2f
	movl	$PA(command_line), %edi
	movl	$(COMMAND_LINE_SIZE - 1), %ecx
1:	lodsb
	testb	%al, %al
	jz	2f
	stosb
	loop	1b
2:
	/* Page tables: the first 8 MiB, seen at 0 and at 3 GiB through one page directory. */
	movl	$PA(boot_tables), %edi
	movl	$PTE_FLAGS, %eax
	movl	$(BOOT_TABLES * 512), %ecx
3:	movl	%eax, (%edi)
	addl	$8, %edi
	addl	$PAGE_SIZE, %eax
	loop	3b

	movl	$PA(boot_pmd), %edi
	movl	$(PA(boot_tables) + PTE_FLAGS), %eax
	movl	$BOOT_TABLES, %ecx
4:	movl	%eax, (%edi)
	addl	$8, %edi
	addl	$PAGE_SIZE, %eax
	loop	4b

	movl	$(PA(boot_pmd) + PDPTE_FLAGS), %eax
	movl	%eax, PA(boot_pgd)
	movl	%eax, PA(boot_pgd) + 3 * 8

	movl	%cr4, %eax
	orl	$CR4_PAE, %eax
	movl	%eax, %cr4
	movl	$PA(boot_pgd), %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$CR0_PG_WP_PE, %eax
	movl	%eax, %cr0
	movl	$5f, %eax
	jmp	*%eax
5:
	lgdt	boot_gdt_descr		/* cpu_init loads the real one */
	ljmp	$__KERNEL_CS, $6f
6:	movl	$__KERNEL_DS, %eax
	movl	%eax, %ss
	movl	$__USER_DS, %eax	/* as everywhere in this kernel: nothing to reload on entry from user mode */
	movl	%eax, %ds
	movl	%eax, %es
	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	lldt	%ax

	/* Until cpu_init every exception ends the run with a message; without a table it would look like a reset. */
	movl	$early_idt, %edi
	movl	$early_exception, %eax
	movl	$(__KERNEL_CS << 16), %edx
	movw	%ax, %dx
	movw	$0x8e00, %ax		/* present interrupt gate of ring 0 */
	movl	$EARLY_VECTORS, %ecx
7:	movl	%edx, (%edi)
	movl	%eax, 4(%edi)
	addl	$8, %edi
	loop	7b
	lidt	early_idt_descr

	movl	$1, boot_identity
	movl	$PA(_end), init_pg_tables_end
	.globl startup_high
startup_high:				/* paging on, flat segments: what is left to do on any platform */
	movl	$(init_stack + THREAD_SIZE), %esp
	pushl	$0			/* a loader's NT or TF is not wanted */
	popfl
	movl	$init_task, init_stack	/* struct thread_info.task */
	xorl	%ebp, %ebp		/* back traces end here */
	jmp	gate_page		/* stub 0 is start_kernel, which does not return */

early_exception:			/* an error code may be on top of the frame, or not */
	cld
	incl	early_exceptions
	cmpl	$1, early_exceptions
	jne	8f
	movl	%esp, %eax
	movl	%cr2, %edx
	call	early_fault
8:	movl	$1, %eax		/* the message itself has failed */
	outb	%al, $0xf4
	cli
9:	hlt
	jmp	9b

	/* Stubs and op code are written here by whoever loads us; until then every byte is int3. */
	.section .paravirt.pages, "ax"
	.balign	PAGE_SIZE
	.globl gate_page, code_pages
gate_page:
	.fill	PAGE_SIZE, 1, 0xcc
code_pages:
	.fill	8 * PAGE_SIZE, 1, 0xcc

	.section .data.page_aligned, "aw"
	.balign	PAGE_SIZE
	.globl cpu_gdt_table, data_pages, scratch_page
cpu_gdt_table:				/* a page of its own: a hypervisor makes it read-only */
	.fill	GDT_ENTRY_KERNEL_CS, 8, 0
	.quad	0x00cf9b000000ffff	/* 0x60 kernel code */
	.quad	0x00cf93000000ffff	/* 0x68 kernel data */
	.quad	0x00cffb000000ffff	/* 0x73 user code */
	.quad	0x00cff3000000ffff	/* 0x7b user data */
	.fill	(GDT_ENTRIES - GDT_ENTRY_TSS), 8, 0
	.balign	PAGE_SIZE
data_pages:				/* data of guest-code ops */
	.fill	4 * PAGE_SIZE, 1, 0
scratch_page:				/* what the host passes by pointer */
	.fill	PAGE_SIZE, 1, 0

	.data
	.globl boot_identity, init_pg_tables_end
	.balign	4
boot_identity:	.long 0			/* low addresses are mapped too, until mem_init */
init_pg_tables_end: .long 0		/* physical end of kernel and boot page tables */
	.balign	4
	.word	0
boot_gdt_descr:
	.word	boot_gdt_end - boot_gdt - 1
	.long	boot_gdt
	.balign	8
boot_gdt:
	.fill	GDT_ENTRY_KERNEL_CS, 8, 0
	.quad	0x00cf9b000000ffff, 0x00cf93000000ffff	/* kernel code, kernel data */
	.quad	0x00cffb000000ffff, 0x00cff3000000ffff	/* user code, user data */
boot_gdt_end:

	.word	0
early_idt_descr:
	.word	EARLY_VECTORS * 8 - 1
	.long	early_idt

	.bss
	.balign	8
early_idt:
	.skip	EARLY_VECTORS * 8
early_exceptions:
	.skip	4

	.section .bss.page_aligned, "aw", @nobits
	.balign	THREAD_SIZE
	.globl init_stack, boot_params, command_line, boot_pgd
init_stack:
	.skip	THREAD_SIZE
boot_params:
	.skip	PAGE_SIZE
boot_tables:
	.skip	BOOT_TABLES * PAGE_SIZE
boot_pmd:
	.skip	PAGE_SIZE
boot_pgd:
	.skip	PAGE_SIZE
command_line:
	.skip	COMMAND_LINE_SIZE
