/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Native ops that do a part of their work, or a little more: what a backend gets wrong when it gets most of it right.
 * tests/partial.py reads them as bytes, so each is position independent and ends with its own ret.
 */
	.text

.macro MUTANT op, what
	.balign 16, 0xcc
	.globl	\op\().\what
\op\().\what:
.endm

	MUTANT restore_fl, never_clears
	testl	$0x200, %eax
	jz	1f
	sti
1:	ret
	MUTANT restore_fl, never_sets
	testl	$0x200, %eax
	jnz	1f
	cli
1:	ret
	MUTANT safe_halt, does_not_enable
	hlt
	ret
	MUTANT safe_halt, does_not_wait
	sti
	ret
	MUTANT halt, enables
	sti
	hlt
	ret
	MUTANT irq_enable_sysexit, does_not_enable
	sysexit

	MUTANT clts, clears_another_bit
	movl	%cr0, %eax
	andl	$~0x2, %eax
	movl	%eax, %cr0
	ret
	MUTANT clts, clears_more
	movl	%cr0, %eax
	andl	$~0xa, %eax
	movl	%eax, %cr0
	ret
	MUTANT write_cr3, loads_what_is_there
	movl	%cr3, %eax
	movl	%eax, %cr3
	ret
	MUTANT set_debugreg, knows_the_first_alone
	movl	%edx, %dr0
	ret
	MUTANT get_debugreg, knows_the_first_alone
	movl	%dr0, %eax
	ret
	MUTANT read_tsc, has_no_high_word
	rdtsc
	xorl	%edx, %edx
	ret
	MUTANT read_msr, leaves_the_error
	movl	%eax, %ecx
	rdmsr
	ret
	MUTANT read_msr, swaps_the_words
	movl	%edx, %ecx
	movl	$0, (%ecx)
	movl	%eax, %ecx
	rdmsr
	xchgl	%eax, %edx
	ret
	MUTANT cpuid, leaves_edx
	pushl	%ebx
	pushl	%esi
	pushl	%edi
	pushl	%ebp
	movl	%eax, %esi
	movl	%edx, %edi
	movl	%ecx, %ebp
	movl	(%esi), %eax
	movl	(%ebp), %ecx
	cpuid
	movl	%eax, (%esi)
	movl	%ebx, (%edi)
	movl	%ecx, (%ebp)
	popl	%ebp
	popl	%edi
	popl	%esi
	popl	%ebx
	ret
	MUTANT set_iopl_mask, disables
	pushfl
	andl	$~0x3200, (%esp)
	orl	%eax, (%esp)
	popfl
	ret
	MUTANT set_iopl_mask, never_lowers
	pushfl
	orl	%eax, (%esp)
	popfl
	ret

/* Descriptors */
.irp op, write_ldt_entry, write_gdt_entry, write_idt_entry
	MUTANT \op, writes_the_low_word
	movl	%ecx, (%eax,%edx,8)
	ret
	MUTANT \op, writes_the_high_word
	movl	4(%esp), %ecx
	movl	%ecx, 4(%eax,%edx,8)
	ret
.endr
	MUTANT load_tls, copies_two
	subl	$8, %esp
	sgdt	(%esp)
	movl	2(%esp), %ecx
	addl	$8, %esp
	.irp offset, 0, 4, 8, 12
	movl	\offset(%eax), %edx
	movl	%edx, 6*8+\offset(%ecx)
	.endr
	ret
	MUTANT load_tls, copies_one_more
	subl	$8, %esp
	sgdt	(%esp)
	movl	2(%esp), %ecx
	addl	$8, %esp
	.irp offset, 0, 4, 8, 12, 16, 20, 24, 28
	movl	\offset(%eax), %edx
	movl	%edx, 6*8+\offset(%ecx)
	.endr
	ret
	MUTANT set_ldt, loads_an_old_descriptor
	movl	$17*8, %eax
	testl	%edx, %edx
	jnz	1f
	xorl	%eax, %eax
1:	lldt	%ax
	ret
	MUTANT set_ldt, never_empties
	testl	%edx, %edx
	jz	1f
	pushl	%ebx
	subl	$8, %esp
	sgdt	(%esp)
	movl	2(%esp), %ecx
	addl	$8, %esp
	movl	%eax, %ebx
	shll	$16, %ebx
	leal	-1(,%edx,8), %edx
	movw	%dx, %bx
	movl	%ebx, 17*8(%ecx)
	movl	%eax, %ebx
	shrl	$16, %eax
	andl	$0xff000000, %ebx
	movb	%al, %bl
	orl	$0x8200, %ebx
	movl	%ebx, 17*8+4(%ecx)
	popl	%ebx
	movl	$17*8, %edx
	lldt	%dx
1:	ret
	MUTANT load_esp0, leaves_the_msr
	movl	24(%edx), %ecx
	movl	%ecx, 4(%eax)
	ret
	MUTANT load_esp0, leaves_the_stack
	movzwl	28(%edx), %ecx
	movw	%cx, 16(%eax)
	movl	%ecx, %eax
	xorl	%edx, %edx
	movl	$0x174, %ecx
	wrmsr
	ret
.irp op, store_gdt, store_idt
	MUTANT \op, stores_the_limit
	subl	$8, %esp
	.ifc	\op, store_gdt
	sgdt	(%esp)
	.else
	sidt	(%esp)
	.endif
	popl	%ecx
	addl	$4, %esp
	movw	%cx, (%eax)
	ret
	MUTANT \op, stores_eight_bytes
	.ifc	\op, store_gdt
	sgdt	(%eax)
	.else
	sidt	(%eax)
	.endif
	movw	$0, 6(%eax)
	ret
.endr

/* The TLB */
	MUTANT flush_tlb_kernel, keeps_global_pages
	movl	%cr3, %eax
	movl	%eax, %cr3
	ret
	MUTANT flush_tlb_kernel, turns_global_pages_off
	movl	%cr4, %eax
	andl	$~0x80, %eax
	movl	%eax, %cr4
	ret
	MUTANT flush_tlb_single, drops_the_next_page
	invlpg	0x1000(%eax)
	ret

/* Entries */
.irp op, set_pte, set_pte_atomic, set_pmd, set_pud
	MUTANT \op, stores_the_low_word
	movl	%edx, (%eax)
	ret
	MUTANT \op, stores_the_high_word
	movl	%ecx, 4(%eax)
	ret
	MUTANT \op, stores_the_low_word_first
	movl	%edx, (%eax)
	movl	%ecx, 4(%eax)
	ret
.endr
.irp op, set_pte_atomic, set_pmd, set_pud
	MUTANT \op, stores_twice
	movl	%ecx, 4(%eax)
	movl	%edx, (%eax)
	ret
.endr
.irp op, set_pte_at, set_pte_present
	MUTANT \op, stores_the_low_word
	movl	4(%esp), %eax
	movl	%eax, (%ecx)
	ret
	MUTANT \op, stores_the_high_word
	movl	8(%esp), %eax
	movl	%eax, 4(%ecx)
	ret
	MUTANT \op, stores_the_low_word_first
	movl	4(%esp), %eax
	movl	%eax, (%ecx)
	movl	8(%esp), %eax
	movl	%eax, 4(%ecx)
	ret
.endr
	MUTANT set_pte_present, is_present_in_between
	movl	8(%esp), %eax
	movl	%eax, 4(%ecx)
	movl	4(%esp), %eax
	movl	%eax, (%ecx)
	ret
.irp op, pte_clear, pmd_clear
	MUTANT \op, clears_the_low_word
	.ifc	\op, pte_clear
	movl	%ecx, %eax
	.endif
	movl	$0, (%eax)
	ret
	MUTANT \op, clears_the_high_word
	.ifc	\op, pte_clear
	movl	%ecx, %eax
	.endif
	movl	$0, 4(%eax)
	ret
	MUTANT \op, clears_the_high_word_first
	.ifc	\op, pte_clear
	movl	%ecx, %eax
	.endif
	movl	$0, 4(%eax)
	movl	$0, (%eax)
	ret
.endr
	MUTANT partial, end
