/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Touches addresses as it is told, and leaves a record of each. ARG(0) is how often; then for each probe the
 * base of a page and a kind: 0 read, 1 write, 2 execute in ring 0; 3, 4, 5 the same in ring 3. What is read goes to
 * the probe's result, its number is written. The page to be executed holds INT3.
 */
#include "kernel.inc"

#define AT_READ 0x800
#define AT_WRITE 0x900

	.globl	main
main:
	mov	$ARG(1), %ebp
	xor	%ebx, %ebx
again:	cmp	ARG(0), %ebx
	je	over
	mov	(%ebp), %esi
	mov	4(%ebp), %eax
	try	next
	jmp	*kinds(, %eax, 4)
next:	add	$8, %ebp
	inc	%ebx
	jmp	again
over:	done

user_read:
	user	read
read:	mov	AT_READ(%esi), %edx
	mov	%edx, RESULTS(, %ebx, 4)
	int	$0x80
user_write:
	user	write
write:	mov	%ebx, AT_WRITE(%esi)
	int	$0x80
user_execute:
	user	execute
execute:
	jmp	*%esi

	.align	4
kinds:	.long	read, write, execute, user_read, user_write, user_execute
