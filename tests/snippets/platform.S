/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a platform may take over: INT 40h from both rings, an invalid instruction, an external interrupt, memory
 * that is touched for the first time. Results: 21 doubled, 1 behind the UD2, 34 doubled.
 */
#include "kernel.inc"

	.globl	main, invalid
main:
	mov	$21, %eax
	int	$0x40
	mov	%eax, RESULT(0)
invalid:
	ud2
	incl	RESULT(1)
	sti
	out	%al, $0x80		/* the interrupt line; the handler logs it */
	mov	$20000, %ecx		/* longer than a slice of the portable clock */
1:	loop	1b
	cli
	mov	%esp, resume_esp
	gate	0x80, 0xee
	point	0x80, back
	gate	0x40, 0xee
	user	program, 2
program:
	mov	$34, %eax
	int	$0x40
	int	$0x80
back:	mov	%eax, RESULT(2)
	done
