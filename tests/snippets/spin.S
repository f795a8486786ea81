/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Ways to pass time; ARG(0) chooses one.
 */
#include "kernel.inc"

	.globl	main, forever, sleeper, asleep, system_calls, counted, counted_twice, string, gate_stub
main:
	mov	ARG(0), %eax
	jmp	*cases(, %eax, 4)
forever:
	jmp	forever			/* 0 */
sleeper:
	sti				/* 1: sleep between interrupts, for ever */
	hlt
asleep:	jmp	sleeper
string:	mov	$-1, %ecx		/* 2: one instruction of 2^32 rounds */
	xor	%esi, %esi
	rep lodsb
	jmp	string
faults:	point	6, forever_ud		/* 3: nothing but faults, in C */
forever_ud:
	ud2
system_calls:				/* 4: nothing but system calls */
	int	$0x80
	jmp	system_calls
ports:	in	$0x80, %al		/* 5: nothing but port I/O */
	jmp	ports
count:	mov	ARG(1), %ecx		/* 6: known numbers of instructions */
counted:
	nop
	loop	counted
	mov	$2, %ecx
counted_twice:
	nop
	loop	counted_twice
	mov	ARG(2), %ecx
	mov	$0x200000, %edi
	rep stosb
	done
in_text:				/* 7: F4 at the end of a longer instruction, run many times, is no HLT */
	sti
	mov	$20000, %ecx
1:	mov	$0xf4, %al
	test	$0xf4000000, %eax
	loop	1b
	done
open:	sti				/* 8: interrupts are welcome */
2:	jmp	2b
gate_call:				/* 9: a call of the host, and one that is none */
	call	gate_stub
	mov	%eax, RESULT(0)
	int	$0x83
	done
	.align	32
	.fill	24, 1, 0x90		/* stubs 0 to 2 */
gate_stub:
	int	$0x83
	ret
	.fill	5, 1, 0x90
cases:	.long	forever, sleeper, string, faults, system_calls, ports, count, in_text, open, gate_call
