/*
 * What the guests share. They are entered as a PC's loader enters a kernel: 32-bit, flat segments, interrupts off,
 * no IDT and no stack.
 *
 * Ref: Linux Documentation/arch/x86/boot.rst, "32-bit Boot Protocol"; Intel SDM vol. 3A, 6.11 (gates).
 */
#define BOOT_CS 0x10
#define DEBUG_EXIT 0xf4
#define POWER_OFF_PORT 0x604
#define POWER_OFF_WORD 0x2000

	/* An interrupt gate. Changes EAX. */
	.macro gate vector, handler
	movl	$\handler, %eax
	movw	%ax, idt + 8 * \vector
	movw	$BOOT_CS, idt + 8 * \vector + 2
	movw	$0x8e00, idt + 8 * \vector + 4
	shrl	$16, %eax
	movw	%ax, idt + 8 * \vector + 6
	.endm

	.macro start
	movl	$stack_end, %esp
	lidt	idt_pointer
	.endm

	.macro function name
	.globl	\name
	.type	\name, @function
\name:
	.endm

	.macro outb_to port, value
	movw	$\port, %dx
	movb	$\value, %al
	outb	%al, %dx
	.endm

	.data
idt_pointer:
	.word	256 * 8 - 1
	.long	idt
no_idt:
	.word	0
	.long	0

	.bss
	.balign	4096
	.skip	16384
stack_end:
idt:
	.skip	256 * 8
	.text
