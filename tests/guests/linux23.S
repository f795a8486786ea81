/*
 * What a Linux 2.6.23 shows to somebody who reads its file: struct paravirt_ops in one piece (PAE, local APIC, no
 * HIGHPTE), a few of its words, and two call sites. It does nothing.
 *
 * Ref: Linux 2.6.23 include/asm-i386/paravirt.h (struct paravirt_ops, struct paravirt_patch_site)
 */
	.text
	.globl _start, setup_boot_APIC_clock
_start:
1:	call *paravirt_ops + 31 * 4
2:	jmp *paravirt_ops + 91 * 4
3:
setup_boot_APIC_clock:
	hlt
	ret

	.data
	.globl paravirt_ops, __parainstructions, __parainstructions_end
	.type paravirt_ops, @object
	.balign 4
paravirt_ops:
	.long 0, 1, 0, name
	.fill 27, 4, 0
	.long setup_boot_APIC_clock		/* 31: irq_enable */
	.fill 59, 4, 0
	.long _start				/* 91: iret, without HIGHPTE */
	.size paravirt_ops, . - paravirt_ops
name:	.asciz "bare hardware"
	.balign 4
__parainstructions:
	.long 1b
	.byte 31, 2b - 1b
	.short 7
	.long 2b
	.byte 91, 3b - 2b
	.short 0
__parainstructions_end:
