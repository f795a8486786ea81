/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * IN and OUT at every privilege. Ports 0 to 7fh stand in the TSS's bit map, those behind it do not.
 */
#include "kernel.inc"

	.globl	main, bytes, ring3, forbidden_out, forbidden_in, wide_out, last_out, beyond_out, short_tss, string_out
main:
	mov	$0x11, %al		/* ring 0: all */
	out	%al, $0x10
	mov	$0x2222, %eax
	out	%ax, $0x10
	mov	$0x33333333, %eax
	mov	$0x1234, %dx
	out	%eax, %dx
	in	$0x10, %al
	mov	%eax, RESULT(0)
	in	$0x10, %ax
	mov	%eax, RESULT(1)
	mov	$0x1234, %dx
	in	%dx, %eax
	mov	%eax, RESULT(2)
	mov	$bytes, %esi
	mov	$3, %ecx
	mov	$0x1234, %edx
	cld
	rep outsb
	mov	%ecx, RESULT(3)
	mov	%esi, RESULT(4)
	mov	$RESULT(5), %edi
	mov	$2, %ecx
	rep insl
	mov	%edi, RESULT(7)

	btrw	$0, io_bitmap + 2	/* port 10h is free, 11h is not */
	btrw	$15, io_bitmap + 14	/* port 7fh too */
	try	1f
	mov	$0x55, %ebx
	user	ring3
ring3:	mov	$0x44, %al		/* ring 3, IOPL 0: by the bit map */
	out	%al, $0x10
	in	$0x10, %al
	mov	%al, %bh
forbidden_out:
	out	%al, $0x11
1:	mov	%ebx, RESULT(8)
	mov	$0x77777777, %eax
	try	1f
	user	forbidden_in
forbidden_in:
	in	$0x20, %al
	incl	RESULT(11)		/* none of these may happen */
	int	$0x80
1:	mov	%eax, RESULT(9)		/* unchanged */
	try	1f
	user	wide_out
wide_out:
	out	%ax, $0x10		/* the second byte is forbidden */
1:	try	1f
	user	2f
2:	out	%al, $0x7f		/* the last bit of the map */
last_out:
	out	%ax, $0x7f		/* needs a bit of the byte behind the ports: set */
1:	try	1f
	mov	$0x80, %edx
	user	beyond_out
beyond_out:
	out	%al, %dx		/* outside the map */
1:	try	1f
	mov	$bytes, %esi
	mov	$0x20, %edx
	user	string_out
string_out:
	outsb
1:	mov	%esi, RESULT(10)	/* unchanged */
	try	1f
	user	2f, 0x3002		/* IOPL 3: all */
2:	out	%al, $0x20
	ud2
1:	movw	$0x67, gdt + TSS	/* a TSS that ends before the map forbids all */
	movb	$0x89, gdt + TSS + 5
	mov	$TSS, %eax
	ltr	%ax
	try	1f
	user	short_tss
short_tss:
	out	%al, $0x10
1:	done
bytes:	.ascii	"abc"
