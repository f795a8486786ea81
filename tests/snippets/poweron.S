/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the floating-point unit holds before anybody has initialised it.
 */
#include "kernel.inc"

	.globl	main
main:
	mov	%cr0, %eax
	mov	%eax, RESULT(0)
	and	$~0xc, %eax		/* EM, TS */
	mov	%eax, %cr0
	mov	%cr4, %eax
	or	$0x200, %eax		/* OSFXSR */
	mov	%eax, %cr4
	fnstcw	RESULT(1)
	fnstsw	RESULT(2)
	fnstenv	RESULT(8)
	stmxcsr	RESULT(3)
	done
