/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What entry code shares: the frame's offsets, call sites of ops, and how registers are saved. A platform that
 * enters the kernel in ways of its own has an entry file of its own, and leaves through return_from_trap.
 * Ref: struct pt_regs in sched.h; paravirt.h for the call sites.
 */
#ifndef ENTRY_H
#define ENTRY_H

#include "ops.h"
#include "segment.h"

#define R_EAX 24
#define R_ES 32
#define R_ORIG_EAX 36
#define R_EIP 40
#define R_CS 44
#define R_ESP 52
#define R_EFLAGS 48
#define TI_FLAGS 4
#define TSS_ESP0 4
#define TSS_SIZE 104

/* 13 bytes: the op may use EAX, ECX and EDX, the site gives them back. CS:, as DS may be the user's. */
#define FLAG_OP(type, clobbers) \
771:	pushl %eax; pushl %ecx; pushl %edx; \
	.byte 0x2e; call *(paravirt_ops + 4 * type); \
	popl %edx; popl %ecx; popl %eax; \
	.pushsection .parainstructions, "a"; \
	.long 771b; .byte type; .byte 772f - 771b; .short clobbers; \
	.popsection; \
772:
#define JUMP_OP(type) \
771:	.byte 0x2e; jmp *(paravirt_ops + 4 * type); \
	.pushsection .parainstructions, "a"; \
	.long 771b; .byte type; .byte 772f - 771b; .short CLBR_NONE; \
	.popsection; \
772:
#ifdef PARAVIRT_DIRECT		/* direct.h says why */
#define DISABLE_INTERRUPTS cli
#define ENABLE_INTERRUPTS sti
#define INTERRUPT_RETURN iret
#define ENABLE_INTERRUPTS_SYSEXIT sti; sysexit
#else
#define DISABLE_INTERRUPTS FLAG_OP(PV_IRQ_DISABLE, CLBR_ANY)
#define ENABLE_INTERRUPTS FLAG_OP(PV_IRQ_ENABLE, CLBR_ANY)
#define INTERRUPT_RETURN JUMP_OP(PV_IRET)
#define ENABLE_INTERRUPTS_SYSEXIT JUMP_OP(PV_IRQ_ENABLE_SYSEXIT)
#endif

.macro save_all
	cld
	pushl	%es
	pushl	%ds
	pushl	%eax
	pushl	%ebp
	pushl	%edi
	pushl	%esi
	pushl	%edx
	pushl	%ecx
	pushl	%ebx
	movl	$__USER_DS, %edx
	movl	%edx, %ds
	movl	%edx, %es
.endm

/* The handler's address takes the place of ES until the registers are saved. */
.macro exception name, handler, error_code
	.globl	\name
\name:
	.if !\error_code
	pushl	$0
	.endif
	pushl	$\handler
	jmp	common_exception
.endm

#endif
