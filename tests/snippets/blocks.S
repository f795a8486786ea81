/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Blocks of 1, 127, 128 and some hundred instructions, each entered ARG(0) times.
 */
#include "kernel.inc"

	.globl	main, large
main:	mov	ARG(0), %ecx
again:	jmp	one
one:	jmp	small
small:	.fill	126, 1, 0x90		/* and the jmp: 127 */
	jmp	large
large:	.fill	127, 1, 0x90		/* 128 */
	jmp	huge
huge:	.fill	700, 1, 0x90		/* libunicorn cuts it where it likes */
	dec	%ecx
	jnz	again
	done
