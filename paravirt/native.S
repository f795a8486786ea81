/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The native implementations: what the CPU itself offers for an op.
 *
 * Position independent but for absolute references to the kernel's symbols. An OP may be put in place of a
 * call (its bytes up to NAME_end, without the ret); a FN is always called. Arguments come as regparm(3) has
 * them: EAX, EDX, ECX, then the stack; EAX, ECX and EDX may be changed unless the table says less.
 *
 * Ref: Intel SDM vol. 2 (each instruction), vol. 3A 2.5, 4.4, 4.10; Linux 2.6.23 include/asm-i386/paravirt.h
 */
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

/* A fault at \insn goes on at \fixup. */
.macro FIXUP insn, fixup
	.pushsection __ex_table, "a"
	.long \insn, \fixup
	.popsection
.endm

/* Interrupt flag */
	OP native_save_fl, "pushfl; popl %eax"
	OP native_restore_fl, "pushl %eax; popfl"
	OP native_irq_disable, "cli"
	OP native_irq_enable, "sti"
	OP native_safe_halt, "sti; hlt"
	OP native_halt, "hlt"

/* Control registers */
	OP native_clts, "clts"
	OP native_read_cr0, "movl %cr0, %eax"
	OP native_write_cr0, "movl %eax, %cr0"
	OP native_read_cr2, "movl %cr2, %eax"
	OP native_write_cr2, "movl %eax, %cr2"
	OP native_read_cr3, "movl %cr3, %eax"
	OP native_write_cr3, "movl %eax, %cr3"
	OP native_read_cr4, "movl %cr4, %eax"
	OP native_write_cr4, "movl %eax, %cr4"

/* A CPU without CR4 raises #UD or #GP; the answer is then 0. */
FN native_read_cr4_safe
1:	movl %cr4, %eax
	ret
2:	xorl %eax, %eax
	ret
	FIXUP 1b, 2b

/* Descriptor tables. The TSS is GDT entry 16, the LDT entry 17, TLS entries 6 to 8. */
	OP native_load_gdt, "lgdt (%eax)"
	OP native_load_idt, "lidt (%eax)"
	OP native_store_gdt, "sgdt (%eax)"
	OP native_store_idt, "sidt (%eax)"
	OP native_load_tr_desc, "movl $0x80, %eax; ltr %ax"
	OP native_store_tr, "xorl %eax, %eax; str %ax"

/* EAX: table, EDX: index, ECX: low word, stack: high word */
.macro WRITE_DESCRIPTOR name
FN \name
	pushl %ebx
	movl 8(%esp), %ebx
	movl %ecx, (%eax,%edx,8)
	movl %ebx, 4(%eax,%edx,8)
	popl %ebx
	ret
.endm
	WRITE_DESCRIPTOR native_write_ldt_entry
	WRITE_DESCRIPTOR native_write_gdt_entry
	WRITE_DESCRIPTOR native_write_idt_entry

/* EAX: descriptors, EDX: how many. None: the null selector. */
FN native_set_ldt
	testl %edx, %edx
	jz 1f
	pushl %ebx
	subl $8, %esp
	sgdt (%esp)
	movl 2(%esp), %ecx
	addl $8, %esp
	movl %eax, %ebx			/* limit 15..0 and base 15..0 */
	shll $16, %ebx
	leal -1(,%edx,8), %edx
	movw %dx, %bx
	movl %ebx, 17*8(%ecx)
	movl %eax, %ebx			/* base 23..16 and 31..24, present, type 2: LDT */
	shrl $16, %eax
	andl $0xff000000, %ebx
	movb %al, %bl
	orl $0x8200, %ebx
	movl %ebx, 17*8+4(%ecx)
	popl %ebx
	movl $17*8, %edx
1:	lldt %dx
	ret

/* EAX: thread_struct, which begins with its three TLS descriptors */
FN native_load_tls
	subl $8, %esp
	sgdt (%esp)
	movl 2(%esp), %ecx
	addl $8, %esp
	.irp offset, 0, 4, 8, 12, 16, 20
	movl \offset(%eax), %edx
	movl %edx, 6*8+\offset(%ecx)
	.endr
	ret

/* EAX: TSS, EDX: thread_struct (esp0 at 24, sysenter_cs at 28). TSS.ss1 remembers what MSR 0x174 holds. */
FN native_load_esp0
	movl 24(%edx), %ecx
	movl %ecx, 4(%eax)
	movzwl 28(%edx), %ecx
	cmpw %cx, 16(%eax)
	je 1f
	movw %cx, 16(%eax)
	movl %ecx, %eax
	xorl %edx, %edx
	movl $0x174, %ecx
	wrmsr
1:	ret

/* EAX: the new IOPL, as a mask of EFLAGS */
FN native_set_iopl_mask
	pushfl
	movl (%esp), %edx
	andl $~0x3000, %edx
	orl %eax, %edx
	movl %edx, (%esp)
	popfl
	ret

/* Two writes to the port that shows POST codes: about a microsecond on the ISA bus. */
FN native_io_delay
	outb %al, $0x80
	outb %al, $0x80
	ret

/* EAX, EDX, ECX, stack: where EAX, EBX, ECX, EDX are; EAX and ECX are inputs too */
FN native_cpuid
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %eax, %esi
	movl %edx, %edi
	movl %ecx, %ebp
	movl (%esi), %eax
	movl (%ebp), %ecx
	cpuid
	movl %eax, (%esi)
	movl %ebx, (%edi)
	movl %ecx, (%ebp)
	movl 20(%esp), %eax
	movl %edx, (%eax)
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

FN native_get_debugreg
	.irp n, 0, 1, 2, 3, 6
	cmpl $\n, %eax
	jne 1f
	movl %dr\n, %eax
	ret
1:
	.endr
	movl %dr7, %eax
	ret

FN native_set_debugreg
	.irp n, 0, 1, 2, 3, 6
	cmpl $\n, %eax
	jne 1f
	movl %edx, %dr\n
	ret
1:
	.endr
	movl %edx, %dr7
	ret

	OP native_wbinvd, "wbinvd"
	OP native_read_tsc, "rdtsc"

/* EAX: MSR, EDX: where the error goes. -EIO is the kernel's answer, -EFAULT (-14) Linux's. */
FN native_read_msr
	pushl %edx
	movl %eax, %ecx
1:	rdmsr
	popl %ecx
	movl $0, (%ecx)
	ret
2:	popl %ecx
	movl $-14, (%ecx)
	xorl %eax, %eax
	xorl %edx, %edx
	ret
	FIXUP 1b, 2b

/* EAX: MSR, ECX:EDX: value */
FN native_write_msr
	xchgl %eax, %ecx
	xchgl %eax, %edx
1:	wrmsr
	xorl %eax, %eax
	ret
2:	movl $-14, %eax
	ret
	FIXUP 1b, 2b

FN native_read_pmc
	movl %eax, %ecx
	rdpmc
	ret

/* TLB */
	OP native_flush_tlb_user, "movl %cr3, %eax; movl %eax, %cr3"
	OP native_flush_tlb_single, "invlpg (%eax)"

/* Global pages leave the TLB only when CR4.PGE changes. */
FN native_flush_tlb_kernel
	movl %cr4, %eax
	movl %eax, %edx
	andl $~0x80, %edx
	movl %edx, %cr4
	movl %eax, %cr4
	ret

/*
 * Page-table entries, 64 bits. The present bit lies in the low word: it is set last and cleared first, so
 * that no walk meets half an entry. Where the old entry may be present, the whole is replaced at once.
 */
FN native_set_pte
	movl %ecx, 4(%eax)
	movl %edx, (%eax)
	ret

FN native_set_pte_at
	movl 8(%esp), %edx
	movl 4(%esp), %eax
	movl %edx, 4(%ecx)
	movl %eax, (%ecx)
	ret

FN native_set_pte_present
	movl $0, (%ecx)
	movl 8(%esp), %edx
	movl 4(%esp), %eax
	movl %edx, 4(%ecx)
	movl %eax, (%ecx)
	ret

.macro SET_64BIT name
FN \name
	pushl %ebx
	pushl %esi
	movl %eax, %esi
	movl %edx, %ebx
	movl (%esi), %eax
	movl 4(%esi), %edx
1:	lock; cmpxchg8b (%esi)
	jnz 1b
	popl %esi
	popl %ebx
	ret
.endm
	SET_64BIT native_set_pte_atomic
	SET_64BIT native_set_pmd
	SET_64BIT native_set_pud

FN native_pte_clear
	movl $0, (%ecx)
	movl $0, 4(%ecx)
	ret

FN native_pmd_clear
	movl $0, (%eax)
	movl $0, 4(%eax)
	ret

/* Ways back to user mode; jumped to. */
	OP native_irq_enable_sysexit, "sti; sysexit"
	OP native_iret, "iret"
	FIXUP native_iret, iret_exc

/* Local APIC: the kernel maps its page at the address that apic_page holds. Weak: a real Linux has its own ops. */
	.weak apic_page
FN native_apic_write
	movl apic_page, %ecx
	movl %edx, (%ecx,%eax)
	ret

FN native_apic_write_atomic
	movl apic_page, %ecx
	xchgl %edx, (%ecx,%eax)
	ret

FN native_apic_read
	movl apic_page, %ecx
	movl (%ecx,%eax), %eax
	ret
