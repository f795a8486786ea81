/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The guest side: ops as guest code. The interrupt flag, CR2, CR3 and the kernel's stack are words that guest and
 * host share, so most ops are a load or a store; the rest ask the host by INT 1Fh: number in EBX, arguments where
 * the op has them (EAX, EDX, ECX), result in EAX or EDX:EAX.
 *
 * The CPU's own IF stays set in ring 1. Interrupts are taken while the shared word says so; the host puts the word
 * into the frames that it makes. Ref: Linux 2.6.23 drivers/lguest/lguest.c, lguest_asm.S (the design).
 */
#define HYPERCALL 0x1f
#define KERNEL_DS 0x69		/* GDT entry 13, ring 1 */
#define EFLAGS_IF 0x200
#define ATTENTION 1

#define DATA_BYTES 160

	.data
	.balign 256
lguest_data:			/* in one page; host.py has the same offsets */
	.fill DATA_BYTES, 1, 0
	.set	flag, lguest_data
	.set	pending, lguest_data + 4
	.set	cr2_word, lguest_data + 8
	.set	cr3_word, lguest_data + 12
	.set	iopl_word, lguest_data + 16
	.set	tss_esp1, lguest_data + 32 + 12
	.set	tss_ss1, lguest_data + 32 + 16

	.text

.macro OP name, code
	.globl \name, \name\()_end
\name:	\code
\name\()_end:
	ret
.endm

.macro FN name
	.balign 4
	.globl \name
\name:
.endm

.macro HCALL name, number
FN \name
	pushl	%ebx
	movl	$\number, %ebx
	int	$HYPERCALL
	popl	%ebx
	ret
.endm

/* ------------------------------------------------------------------ set-up */

FN lguest_init			/* arch_setup: from here on the kernel is in ring 1 */
	pushl	%ebx
	movl	$lguest_data, %eax
	movl	$KERNEL_DS, tss_ss1
	xorl	%ebx, %ebx
	int	$HYPERCALL
	popl	%ebx
	ret

/* ------------------------------------------------------------------ the interrupt flag */

	OP lguest_save_fl, "movl flag, %eax"
	OP lguest_irq_disable, "movl $0, flag"

FN lguest_irq_enable
	movl	$EFLAGS_IF, flag
	jmp	look
FN lguest_restore_fl
	andl	$EFLAGS_IF, %eax
	movl	%eax, flag
	jz	2f
look:	cmpl	$0, pending
	je	2f
	pushl	%ebx
	movl	$ATTENTION, %ebx
	int	$HYPERCALL
	popl	%ebx
2:	ret

/* Jumped to. DS may be the user's. An interrupt behind the store is taken on top of this frame: it ends here too. */
FN lguest_iret
	pushl	%eax
	movl	12(%esp), %eax
	andl	$EFLAGS_IF, %eax
	movl	%eax, %ss:flag
	jz	1f
	cmpl	$0, %ss:pending
	je	1f
	pushl	%ebx
	movl	$ATTENTION, %ebx
	int	$HYPERCALL
	popl	%ebx
1:	popl	%eax
lguest_the_iret:
	iret
	.pushsection __ex_table, "a"
	.long	lguest_the_iret, iret_exc
	.popsection

	HCALL lguest_safe_halt, 2
	HCALL lguest_halt, 3

/* ------------------------------------------------------------------ control registers, descriptors */

	OP lguest_read_cr2, "movl cr2_word, %eax"
	OP lguest_write_cr2, "movl %eax, cr2_word"
	OP lguest_read_cr3, "movl cr3_word, %eax"
	HCALL lguest_write_cr3, 4
	HCALL lguest_read_cr0, 5
	HCALL lguest_write_cr0, 6
	HCALL lguest_clts, 7
	HCALL lguest_read_cr4, 8
	HCALL lguest_write_cr4, 9
	HCALL lguest_read_msr, 10
	HCALL lguest_write_msr, 11
	HCALL lguest_get_debugreg, 12
	HCALL lguest_set_debugreg, 13
	HCALL lguest_flush_tlb, 14
	HCALL lguest_flush_tlb_single, 15
	HCALL lguest_load_gdt, 16
	HCALL lguest_load_idt, 17
	HCALL lguest_set_ldt, 18

/* Code and data of ring 0 become ring 1's. */
FN lguest_write_gdt_entry
	movl	%ecx, (%eax,%edx,8)
	movl	4(%esp), %ecx
	testl	$0x1000, %ecx
	jz	1f
	testl	$0x6000, %ecx
	jnz	1f
	orl	$0x2000, %ecx
1:	movl	%ecx, 4(%eax,%edx,8)
	ret	$0

FN lguest_load_esp0		/* (tss, thread) */
	movl	24(%edx), %ecx
	movl	%ecx, 4(%eax)
	movl	%ecx, tss_esp1
	ret

	OP lguest_set_iopl_mask, "movl %eax, iopl_word"

/* ------------------------------------------------------------------ console, the end */

	HCALL lguest_console_write, 19
	HCALL lguest_console_read, 20
	HCALL lguest_restart, 21
	HCALL lguest_power_off, 22
	HCALL lguest_stop, 23
