/*
 * What a kernel does with its local APIC: finds it, enables it, interrupts itself, lets the timer interrupt, and hears
 * the 8259 through LINT0. And what a test suite asks of the firmware.
 *
 * Printed raw to port E9h, words: the version; CPUID.1:EDX before and after it is enabled in its MSR; that MSR before and
 * after; the ISR's word with a self-IPI in service; how many IPIs, timer interrupts, 8259 interrupts and NMIs came, and
 * how many NMIs inside another. Of the firmware configuration four bytes of the signature, memory (8 bytes), CPUs (2), and a byte behind the end.
 *
 * Ref: Intel SDM vol. 3A, 10.4.3 and 10.4.4 (presence, enabling), 10.5.4 (timer), 10.6.1 (ICR), 10.8 (EOI).
 */
#include "guest.h"
#define APIC(register) (0xfee00000 + (register))
#define APIC_BASE_MSR 0x1b
#define ENABLE 0x800
#define IPI 0x61
#define TIMER 0x52
#define PIT 0x20
#define NMI 2
#define NMI_TO_SELF 0x40400
#define DEBUG_OUTPUT 0xe9
#define FW_CFG 0x510

	.macro	store
	stosl
	.endm

	.macro	firmware key, count
	movw	$FW_CFG, %dx
	movw	$\key, %ax
	outw	%ax, %dx
	incl	%edx
	movl	$\count, %ecx
	rep insb
	.endm

function apic
	start
	gate	IPI, on_ipi
	gate	TIMER, on_timer
	gate	PIT, on_pit
	gate	NMI, on_nmi
	movl	$found, %edi
	movl	APIC(0x30), %eax
	store
	call	features
	movl	$APIC_BASE_MSR, %ecx
	rdmsr
	movl	%eax, %esi
	orl	$ENABLE, %eax
	wrmsr
	call	features
	movl	%esi, %eax
	store
	movl	$APIC_BASE_MSR, %ecx
	rdmsr
	store
	movl	$0x1ff, APIC(0xf0)	/* on, spurious vector ffh */
	sti
	movl	$0x40000 + IPI, APIC(0x300)
1:	cmpl	$0, ipis
	je	1b
	movl	served, %eax
	store

	movl	$0xb, APIC(0x3e0)	/* divide by 1 */
	movl	$0x20000 + TIMER, APIC(0x320)
	movl	$100000, APIC(0x380)
2:	hlt
	cmpl	$3, timers
	jb	2b
	movl	$0x10000, APIC(0x320)

	outb_to	0x20, 0x11
	outb_to	0x21, PIT
	outb_to	0x21, 0x04
	outb_to	0x21, 0x01
	outb_to	0x21, 0xfe
	outb_to	0x43, 0x34		/* counter 0, rate generator */
	outb_to	0x40, 0x00
	outb_to	0x40, 0x10
3:	hlt
	cmpl	$2, pits
	jb	3b
	cli
	movl	$NMI_TO_SELF, APIC(0x300)
4:	cmpl	$2, nmis
	jb	4b
	movl	ipis, %eax
	store
	movl	timers, %eax
	store
	movl	pits, %eax
	store
	movl	nmis, %eax
	store
	movl	nested, %eax
	store
	firmware 0, 4
	firmware 3, 8
	firmware 5, 3
	movl	%edi, %ecx
	movl	$found, %esi
	subl	%esi, %ecx
	movw	$DEBUG_OUTPUT, %dx
	rep outsb
	outb_to	DEBUG_EXIT, 0
5:	jmp	5b

features:
	movl	$1, %eax
	cpuid
	movl	%edx, %eax
	store
	ret

on_ipi:
	pushl	%eax
	incl	ipis
	movl	APIC(0x130), %eax	/* vectors 60h to 7fh in service */
	movl	%eax, served
	movl	$0, APIC(0xb0)
	popl	%eax
	iret

on_timer:
	incl	timers
	movl	$0, APIC(0xb0)
	iret

on_nmi:					/* the first sends another, which has to wait for the IRET */
	incl	nmis
	incl	inside
	cmpl	$1, inside
	je	1f
	incl	nested
1:	cmpl	$1, nmis
	jne	2f
	pushl	%ecx
	movl	$NMI_TO_SELF, APIC(0x300)
	movl	$20000, %ecx
3:	loop	3b
	popl	%ecx
2:	decl	inside
	iret

on_pit:
	pushl	%eax
	incl	pits
	movb	$0x20, %al
	outb	%al, $0x20
	popl	%eax
	iret

	.bss
ipis:	.skip	4
timers:	.skip	4
pits:	.skip	4
nmis:	.skip	4
inside:	.skip	4
nested:	.skip	4
served:	.skip	4
found:	.skip	256
