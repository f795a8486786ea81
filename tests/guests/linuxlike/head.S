/*
 * Entry by the 32-bit boot protocol, PAE page tables, exceptions and the timer's interrupt.
 *
 * Ref: Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Intel SDM vol. 3A, 4.4, 6.12.
 */
#define PHYSICAL(symbol) (symbol - 0xc0000000)
#define KERNEL_CS 0x60
#define KERNEL_DS 0x68
#define IRET 36 * 4

	.section .text.head, "ax"
	.globl startup_32
startup_32:
	movl 0x228(%esi), %eax
	addl $0xc0000000, %eax
	movl %eax, PHYSICAL(command_line)
	/* 64 MiB in large pages, at 0 and at PAGE_OFFSET; the last 2 MiB of them by a page table */
	movl $PHYSICAL(pmd0), %edi
	movl $0xe3, %eax			/* present, writable, accessed, dirty, large */
1:	movl %eax, (%edi)
	addl $8, %edi
	addl $0x200000, %eax
	cmpl $0x4000000 + 0xe3, %eax
	jb 1b
	movl $PHYSICAL(page_table) + 0x63, PHYSICAL(pmd0) + 31 * 8
	movl $PHYSICAL(pmd0) + 1, PHYSICAL(swapper_pg_dir)
	movl $PHYSICAL(pmd0) + 1, PHYSICAL(swapper_pg_dir) + 24
	movl $0x20, %eax
	movl %eax, %cr4
	movl $PHYSICAL(swapper_pg_dir), %eax
	movl %eax, %cr3
	movl %cr0, %eax
	orl $0x80010000, %eax
	movl %eax, %cr0
	movl $high, %eax
	jmp *%eax

	.text
high:
	lgdt gdt_pointer
	ljmp $KERNEL_CS, $1f
1:	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $stack_end, %esp
	call i386_start_kernel
2:	hlt
	jmp 2b

/* Exceptions: a frame for exception(struct frame *) in main.c. Left through the op iret, as in Linux. */
	.altmacro
	.macro vector number
	.globl vector_\number
vector_\number:
	.if !(\number == 8 || (\number >= 10 && \number <= 14))
	pushl $0
	.endif
	pushl $\number
	jmp common
	.endm
	.set i, 0
	.rept 33
	vector %i
	.set i, i + 1
	.endr
common:
	pushal
	movl %esp, %eax
	call exception
	popal
	addl $8, %esp
	jmp *pv_cpu_ops + IRET

	.globl native_iret, iret_exc
	.type native_iret, @function
native_iret:
	iret
	.size native_iret, . - native_iret
	.pushsection __ex_table, "a"
	.long native_iret, iret_exc
	.popsection

	.globl bad_iret
bad_iret:
	movl %esp, before_iret
	pushfl
	pushl $0xb0			/* no such segment */
	pushl $1f
	jmp *pv_cpu_ops + IRET
1:	xorl %eax, %eax
	ret
	.section .fixup, "ax"
iret_exc:
	movl before_iret, %esp
	movl $1, %eax
	ret
	.text

	.globl keeps
keeps:				/* EAX: the slot's contents, EDX: *eax, ECX: *edx */
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %edx, %esi
	movl %ecx, %edi
	movl %eax, %ebp
	movl (%esi), %eax
	movl (%edi), %edx
	movl $0x11223344, %ecx
	movl $0x55667788, %ebx
	pushl %edx
	call *%ebp
	movl %eax, (%esi)
	movl %edx, (%edi)
	xorl %eax, %eax
	cmpl $0x11223344, %ecx
	jne 1f
	orl $1, %eax
1:	cmpl (%esp), %edx
	jne 2f
	orl $2, %eax
2:	cmpl $0x55667788, %ebx
	jne 3f
	orl $4, %eax
3:	addl $4, %esp
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

	.data
	.globl command_line, vectors, gdt
command_line:
	.long 0
before_iret:
	.long 0
gdt_pointer:
	.word 32 * 8 - 1
	.long gdt
	.balign 8
gdt:
	.fill 12, 8, 0
	.quad 0x00cf9b000000ffff, 0x00cf93000000ffff
	.fill 18, 8, 0
	.macro entry number
	.long vector_\number
	.endm
vectors:
	.set i, 0
	.rept 33
	entry %i
	.set i, i + 1
	.endr

	.bss
	.globl swapper_pg_dir, pmd0, page_table, idt
	.balign 4096
pmd0:	.skip 4096
page_table:
	.skip 4096
swapper_pg_dir:
	.skip 32
idt:	.skip 256 * 8
	.balign 16
	.skip 16384
stack_end:
