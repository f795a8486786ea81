/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The calls that the ROM answers in the guest, at the guest's own privilege (ring 1).
 *
 * Each global symbol NAME is the code of the call of that name. `page_X` is a word of the shared page (layout.py),
 * an absolute address that VMI_Init fixes up; `trap_NAME` is the slot in which call NAME leaves the guest; labels
 * that begin with `attention` leave it for what waits: an interrupt, deferred calls. HLT is the way out: in ring 1
 * it is #GP with the exact EIP.
 *
 * Arguments: EAX, EDX, ECX, then the stack. Calls may change EAX, ECX, EDX and flags; those marked F flags alone.
 * Calls marked SS may be called with a user's DS and ES. A block without a branch is not interrupted inside.
 *
 * Ref: abi of the calls: platform/calls.py. Intel SDM vol. 2 (IRET, SYSEXIT, PUSHF).
 */
	.text

#define IF 0x200
#define CALLS 74
#define CPU_MODE 2
#define QUEUE_ENTRIES 15
#define CYCLES_PER_SECOND 1000000000

.macro CALL_CODE name
	.balign 4
	.globl \name
\name:
.endm

/* Two words of EAX = number: the address of its code and how it is to be reached. Runs before VMI_Init too, so it
 * finds out by itself where it is. */
CALL_CODE GetRelocationInfo
	xorl %edx, %edx
	cmpl $CALLS, %eax
	jae 2f
	call 1f
1:	popl %ecx
	movzbl (answer_types - 1b)(%ecx,%eax), %edx
	movzwl (answer_places - 1b)(%ecx,%eax,2), %eax
	testl %eax, %eax
	jz 3f
	leal (rom_start - 1b)(%ecx,%eax), %eax
	ret
2:	xorl %eax, %eax
3:	ret

/* Identification and counters */
CALL_CODE CPUID			/* F, and the results */
	cpuid
	ret
CALL_CODE RDTSC
	rdtsc
	ret
CALL_CODE GetCycleFrequency
	movl $CYCLES_PER_SECOND, %eax
	xorl %edx, %edx
	ret
CALL_CODE GetCycleCounter		/* 0 real, 1 available: no time is ever stolen, so 2 stays 0 */
	cmpl $1, %eax
	ja 1f
	rdtsc
	ret
1:	xorl %eax, %eax
	xorl %edx, %edx
	ret

/* Descriptor tables: the CPU's own are the guest's. TR's selector is the guest's too. */
CALL_CODE GetGDT
	sgdt (%eax)
	ret
CALL_CODE GetIDT
	sidt (%eax)
	ret
CALL_CODE GetLDT
	xorl %eax, %eax
	sldt %ax
	ret
CALL_CODE GetTR
	xorl %eax, %eax
	str %ax
	ret

/* EAX table, EDX index, ECX low word, stack high word. A code or data segment of DPL 0 becomes one of DPL 1. */
.macro WRITE_SEGMENT name
CALL_CODE \name
	movl %ecx, (%eax,%edx,8)
	movl 4(%esp), %ecx
	testb $0x10, %ch
	jz 1f
	testb $0x60, %ch
	jnz 1f
	orb $0x20, %ch
1:	movl %ecx, 4(%eax,%edx,8)
	ret
.endm
	WRITE_SEGMENT WriteGDTEntry
	WRITE_SEGMENT WriteLDTEntry
CALL_CODE WriteIDTEntry
	movl %ecx, (%eax,%edx,8)
	movl 4(%esp), %ecx
	movl %ecx, 4(%eax,%edx,8)
	ret
CALL_CODE UpdateKernelStack	/* EAX kernel SS, EDX ESP: what the CPU loads on the way from ring 3 to ring 1 */
	orl $1, %eax
	movl %edx, page_esp1
	movl %eax, page_ss1
	ret

/* Control registers: ours to know, the guest's to read */
CALL_CODE GetCR0
	movl page_cr0, %eax
	ret
CALL_CODE GetCR2
	movl page_cr2, %eax
	ret
CALL_CODE GetCR3
	movl page_cr3, %eax
	ret
CALL_CODE GetCR4
	movl page_cr4, %eax
	ret
CALL_CODE SetCR2
	movl %eax, page_cr2
	ret
CALL_CODE WBINVD			/* every cache is coherent */
	ret

/* Interrupt flag. The CPU's own IF stays set; this word decides (F, SS). */
CALL_CODE EnableInterrupts
	movl $IF, %ss:page_flag
	cmpb $0, %ss:page_pending
	jne attention
	ret
CALL_CODE DisableInterrupts
	movl $0, %ss:page_flag
	ret
CALL_CODE GetInterruptMask
	movl %ss:page_flag, %eax
	ret
CALL_CODE SetInterruptMask
	testl $IF, %eax
	jz 1f
	movl $IF, %ss:page_flag
	cmpb $0, %ss:page_pending
	jne attention
	ret
1:	movl $0, %ss:page_flag
	ret
	.globl attention
attention:
	hlt
	ret

/* Ways back. Called: the frame lies above the return address. The flag is set in the block that leaves, so what
 * waits comes behind the switch. SS: DS and ES are a user's by now. */
CALL_CODE IRET
	cmpw $0, %ss:page_queued	/* and page_iopl */
	jne 2f
1:	pushl %eax
	movl %ss:page_flag, %eax
	movl %eax, %ss:page_flag_before
	movl 16(%esp), %eax
	andl $IF, %eax
	movl %eax, %ss:page_flag
	popl %eax
	leal 4(%esp), %esp
	.globl iret_instruction
iret_instruction:
	iret
	.globl attention_iret
attention_iret:
2:	hlt
	jmp 1b

CALL_CODE SYSEXIT			/* jumped to: EDX EIP, ECX ESP */
	cmpw $0, %ss:page_queued	/* and page_iopl */
	jne 2f
1:	pushl %ss:page_sysexit_ss
	pushl %ecx
	pushfl
	orl $IF, (%esp)
	pushl %ss:page_sysexit_cs
	pushl %edx
	movl $IF, %ss:page_flag
	iret
	.globl attention_sysexit
attention_sysexit:
2:	hlt
	jmp 1b

/* Page tables: the CPU walks the guest's own, so a store is all. No walk meets half a present entry. */
CALL_CODE SetPxE			/* EAX entry, EDX where */
	movl %eax, (%edx)
	ret
CALL_CODE SetPxELong		/* EDX:EAX entry, ECX where */
	testb $1, %al
	jz 1f
	movl %edx, 4(%ecx)
	movl %eax, (%ecx)
	ret
1:	movl %eax, (%ecx)
	movl %edx, 4(%ecx)
	ret
CALL_CODE UpdatePxE			/* the entry has changed already */
	ret
CALL_CODE UpdatePxELong
	ret

/* Ports: allowed in ring 1, so the instruction serves. EDX port, ECX count. */
.macro PORT name, code
CALL_CODE \name
	\code
	ret
.endm
	PORT INL, "inl %dx, %eax"
	PORT INB, "inb %dx, %al"
	PORT INW, "inw %dx, %ax"
	PORT INSL, "rep insl"
	PORT INSB, "rep insb"
	PORT INSW, "rep insw"
	PORT OUTL, "outl %eax, %dx"
	PORT OUTB, "outb %al, %dx"
	PORT OUTW, "outw %ax, %dx"
	PORT OUTSL, "rep outsl"
	PORT OUTSB, "rep outsb"
	PORT OUTSW, "rep outsw"

/* Deferral. In CPU mode (2) a call that would leave the guest waits in the queue, if nobody can see the difference. */
.macro DEFERRED name, number, first
CALL_CODE \name
	\first
	cmpl $CPU_MODE, page_lazy
	jne trap_\name
	movl $\number, %ecx
	jmp enqueue
.endm
	DEFERRED SetCR3, 17, "movl %eax, page_cr3"
	DEFERRED CLTS, 28, "andb $0xf7, page_cr0"	/* TS */
	DEFERRED SetLDT, 4
	DEFERRED SetDR, 24
	DEFERRED SetIOPLMask, 61
enqueue:
	cmpb $QUEUE_ENTRIES, page_queued
	jae 2f
	pushl %ebx
	movzbl page_queued, %ebx
	shll $4, %ebx
	movl %ecx, page_queue(%ebx)
	movl %eax, page_queue + 4(%ebx)
	movl %edx, page_queue + 8(%ebx)
	popl %ebx
	incb page_queued
	ret
	.globl attention_full
attention_full:
2:	hlt
	jmp enqueue

CALL_CODE SetLazyMode		/* EAX: 0 none, 1 page tables, 2 CPU */
	cmpl $CPU_MODE, %eax
	ja trap_SetLazyMode
	movl %eax, page_lazy
	testl %eax, %eax
	jnz 1f
	cmpb $0, page_queued
	jne trap_SetLazyMode
1:	ret
