/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Data breakpoints. Each label stands behind the instruction that hits one; what the handler finds of DR6 goes to
 * the results, in order, and is cleared.
 */
#include "kernel.inc"

#define WATCHED		0x200100
#define NEAR		0x200104
#define BYTE		0x200203

	.globl	main, stored, added, halved, pushed, loaded, moved, user_stored, marked, shadowed
	.macro	clear
	mov	%dr6, %eax
	and	$0xf, %eax
	mov	%eax, RESULTS(, %ebp, 4)
	inc	%ebp
	xor	%eax, %eax
	mov	%eax, %dr6
	.endm

main:	xor	%ebp, %ebp
	mov	$WATCHED, %eax
	mov	%eax, %dr0
	mov	$BYTE, %eax
	mov	%eax, %dr1
	mov	$0x003d0005, %eax	/* DR0: writes of 4 bytes; DR1: any access to a byte */
	mov	%eax, %dr7
	movl	$1, WATCHED		/* #DB */
stored:	clear
	mov	WATCHED, %eax		/* read: nothing */
	movl	$1, NEAR		/* beside it: nothing */
	incl	WATCHED			/* #DB, once, and once only incremented */
added:	clear
	movb	$7, WATCHED + 3		/* #DB: the last byte of it */
halved:	clear
	mov	%esp, %ebx
	mov	$WATCHED + 4, %esp
	push	%eax			/* #DB */
pushed:	mov	%ebx, %esp
	clear
	mov	BYTE, %al		/* #DB: DR1 takes reads */
loaded:	clear
	cld
	mov	$0x200200, %esi
	mov	$WATCHED - 4, %edi
	mov	$2, %ecx
	rep movsl			/* the first load hits DR1, the second store DR0 */
moved:	clear
	user	in_user
in_user:
	movl	$9, WATCHED		/* #DB from ring 3 */
user_stored:
	try	over
	int	$0x80
over:	xor	%eax, %eax
	xor	%ebx, %ebx
	xor	%esi, %esi
	mov	%eax, %dr7
	movl	$5, WATCHED		/* off again: nothing */
	mov	WATCHED, %eax
	mov	%eax, RESULTS(, %ebp, 4)
	inc	%ebp
	call	marked			/* translated before anybody looks for it */
	mov	$marked, %eax
	mov	%eax, %dr2
	mov	$0x20, %eax		/* DR2: execution */
	mov	%eax, %dr7
	try	broken
	call	marked			/* #DB, a fault */
broken:	clear
	xor	%eax, %eax
	mov	%eax, %dr7
	call	marked			/* nothing */
	mov	%ebx, RESULTS(, %ebp, 4)
	inc	%ebp
	mov	%ss, WATCHED
	mov	$0xf0001, %eax		/* DR0: any access to 4 bytes */
	mov	%eax, %dr7
	mov	WATCHED, %ss		/* #DB one instruction later */
	nop
shadowed:
	clear
	try	faulted
	mov	WATCHED, %ss
	ud2				/* #UD; DR6 alone tells of the rest */
faulted:
	clear
	xor	%eax, %eax
	mov	%eax, %dr7
	movl	$5, WATCHED
	done
marked:	nop
	lea	1(%esi, %ebx), %ebx
	ret
