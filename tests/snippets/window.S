/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * When an interrupt may be taken. A write to port 80h raises INTR; the interrupt controller's answer is vector
 * 30h, and lowers it. Port 81h lowers it by itself. Each part waits until its interrupt has come.
 */
#include "kernel.inc"

	.macro	raise
	mov	$1, %al
	out	%al, $0x80
	.endm

	.macro	wait count		/* until the log has `count` records */
1:	cmpl	$LOG + 32 * (\count), log_next
	jb	1b
	.endm

	.globl	main, shadow_1, after_shadow, never, never_end, by_popf, by_iret, woken, woken_too, user_loop, user_end
	.globl	masked, masked_end
main:
	xor	%ebx, %ebx		/* twice: what is translated already goes on by itself from block to block */
twice:	test	%ebx, %ebx
	jz	masked_end
	raise				/* IF is clear: it waits */
	mov	$500, %ecx
masked:	loop	masked
masked_end:
	call	enable			/* one more instruction behind STI, then it comes */
after_shadow:
	test	%ebx, %ebx
	jz	2f
	wait	1
2:	cli
	inc	%ebx
	cmp	$2, %ebx
	jb	twice
	jmp	3f
enable:	sti
shadow_1:
	ret
3:

	raise				/* STI; CLI opens no window */
	mov	$500, %ecx
never:	sti
	cli
	loop	never
never_end:
	out	%al, $0x81		/* taken back: nothing comes */
	sti
	nop
	nop
	cli

	raise				/* POPF opens at once */
	push	$EFLAGS_IF
	popf
by_popf:
	wait	2
	cli

	raise				/* so does IRET */
	push	$EFLAGS_IF
	push	$KERNEL_CS
	push	$by_iret
	iret
by_iret:
	wait	3
	cli

	raise				/* STI; HLT: the CPU does not sleep */
	sti
	hlt
woken:	wait	4
	cli
	sti				/* sleeps until the host raises it, at ARG(0) ns */
	hlt
woken_too:
	wait	5
	cli

	mov	%esp, resume_esp	/* ring 3, IF set: from the loop onto the TSS's stack, and back */
	user	user_loop, 0x202
user_loop:
	cmpl	$LOG + 32 * 6, log_next
	jb	user_loop
user_end:
	movl	$out_of_user, resume
	int	$0x80
out_of_user:
	done
