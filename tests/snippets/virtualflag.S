/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A guest whose EFLAGS.IF stays set while a word of memory says whether interrupts are taken. INT 40h halts.
 * Results: 0 the flag while the interrupt waited, 1 counted behind the halt.
 */
#include "kernel.inc"

	.globl	main, flag
main:
	sti
	out	%al, $0x80		/* the interrupt line; the handler logs it */
	mov	$20000, %ecx		/* longer than a slice of the portable clock */
1:	loop	1b
	mov	log_next, %eax		/* nothing may have come */
	mov	%eax, RESULT(0)
	movl	$0x200, flag
	mov	$20000, %ecx
1:	loop	1b
	mov	log_next, %eax
	mov	%eax, RESULT(1)
	int	$0x40			/* waits for the next one */
	incl	RESULT(2)
	movl	$0, flag
	int	$0x40			/* for ever */
	incl	RESULT(2)
	done
	.balign	4
flag:	.long	0
