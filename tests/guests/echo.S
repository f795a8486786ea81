/*
 * Says "ready" on COM1, then sends back what comes in, woken by IRQ 4, and sleeps in between.
 * 'q' powers off, 'x' jumps to where no RAM is, 'e' writes 7 to the debug-exit port.
 *
 * Ref: PC16550D data sheet, 8.0 (registers); Intel 8259A data sheet, "Initialization Command Words".
 */
#include "guest.h"
#define COM1 0x3f8

function echo
	start
	gate	0x24, received
	outb_to	0x20, 0x11
	outb_to	0x21, 0x20
	outb_to	0x21, 0x04
	outb_to	0x21, 0x01
	outb_to	0x21, 0xef	/* IRQ 4 alone */
	outb_to	0xa1, 0xff
	movl	$ready, %esi
1:	lodsb
	testb	%al, %al
	jz	2f
	movw	$COM1, %dx
	outb	%al, %dx
	jmp	1b
2:	outb_to	(COM1 + 4), 0x0b	/* DTR, RTS, and OUT2, which lets the interrupt through */
	outb_to	(COM1 + 1), 0x01	/* received data */
	sti
sleep:
	hlt
	jmp	sleep

function received
	movw	$COM1 + 5, %dx
	inb	%dx, %al
	testb	$1, %al
	jz	done
	movw	$COM1, %dx
	inb	%dx, %al
	outb	%al, %dx
	cmpb	$'q', %al
	je	quit
	cmpb	$'x', %al
	je	fall
	cmpb	$'e', %al
	je	leave_with_7
	jmp	received
done:
	movb	$0x20, %al
	outb	%al, $0x20
	iret

quit:
	movw	$POWER_OFF_PORT, %dx
	movw	$POWER_OFF_WORD, %ax
	outw	%ax, %dx
1:	jmp	1b

fall:
	movl	$0x40000000, %eax
	jmp	*%eax

leave_with_7:
	movb	$7, %al
	outb	%al, $DEBUG_EXIT
1:	jmp	1b

	/* As fast as it can, for ever. */
function chatter
	movw	$COM1, %dx
	movb	$'.', %al
chatter_loop:
	outb	%al, %dx
	jmp	chatter_loop

	.data
ready:
	.asciz	"ready\r\n"
