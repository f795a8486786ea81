/* Guests that end, each in its own way; an entry each. */
#include "guest.h"

function power_off
	movw	$POWER_OFF_PORT, %dx
	movw	$POWER_OFF_WORD, %ax
	outw	%ax, %dx
1:	jmp	1b

function debug_exit
	movl	$0x12a, %eax	/* AL is 2ah */
	outb	%al, $DEBUG_EXIT
1:	jmp	1b

function debug_exit_zero
	xorl	%eax, %eax
	outb	%al, $DEBUG_EXIT
1:	jmp	1b

function debug_exit_long
	movl	$0x7fffff03, %eax	/* the status is the lowest byte */
	outl	%eax, $DEBUG_EXIT
1:	jmp	1b

function prints_twice
	outb_to	0xe9, 'a'
	outb_to	0x3f8, 'b'
	outb_to	0xe9, 'c'
	outb_to	0x3f8, 'd'
	outb_to	DEBUG_EXIT, 0
1:	jmp	1b

function reset_i8042
	movb	$0xfe, %al
	outb	%al, $0x64
1:	jmp	1b

function reset_port92
	inb	$0x92, %al
	orb	$1, %al
	outb	%al, $0x92
1:	jmp	1b

function reset_pci
	movw	$0xcf9, %dx
	movb	$0x06, %al
	outb	%al, %dx
1:	jmp	1b

function reset_triple	/* what Linux does when nothing else resets */
	lidt	no_idt
	int3
1:	jmp	1b

function halt
	cli
	hlt
1:	jmp	1b

function halt_in_loop	/* an HLT that is not the first instruction of its block */
	cli
1:	nop
	hlt
	jmp	1b

function triple_fault	/* every gate is empty */
	start
	ud2
1:	jmp	1b

function triple_fault_stack	/* paging is on, the stack is not mapped */
	start
	movl	$0x83, directory	/* 4 MiB at 0, present, writable */
	movl	$0x10, %eax
	movl	%eax, %cr4
	movl	$directory, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	movl	$0x00c00000, %esp
	pushl	%eax
1:	jmp	1b

function triple_fault_handler	/* the handler is its own fault; its stack goes down over code and IDT */
	start
	gate	6, ud_handler
	movl	$0x00180000, %esp
ud_handler:
	ud2

function jump_to_nowhere
	movl	$0x40000000, %eax
	jmp	*%eax

function call_to_nowhere
	start
	movl	$0x50000123, %eax
	call	*%eax

function fall_off_ram	/* the last bytes of RAM are NOPs; behind them is nothing */
	movl	$0x1000000 - 4, %edi
	movl	$0x90909090, (%edi)
	jmp	*%edi

function paged_nowhere	/* page tables that lie where no RAM is */
	movl	$0x60000000, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
1:	jmp	1b

function task_gate	/* to a TSS that does not exist */
	start
	movl	$0x00280000, idt + 8 * 6
	movl	$0x00008500, idt + 8 * 6 + 4
	ud2
1:	jmp	1b

function wait_for_nothing	/* every interrupt of the PC is masked */
	start
	movb	$0xff, %al
	outb	%al, $0x21
	outb	%al, $0xa1
	sti
1:	hlt
	jmp	1b

function wait_for_timer	/* a timer that ticks and ticks */
	start
	gate	0x20, timer_tick
	outb_to	0x20, 0x11
	outb_to	0x21, 0x20
	outb_to	0x21, 0x04
	outb_to	0x21, 0x01
	outb_to	0x21, 0xfe
	outb_to	0x43, 0x34	/* counter 0, mode 2, 65536 */
	outb_to	0x40, 0
	outb_to	0x40, 0
	sti
1:	hlt
	jmp	1b

function timer_tick
	pushl	%eax
	movb	$0x20, %al
	outb	%al, $0x20
	popl	%eax
	iret

function wraps	/* accesses that begin below 4 GiB and end at 0 */
	start
	movl	$0x11223344, %eax
	movl	%eax, 0
	movl	0xfffffffe, %ebx	/* no RAM reads as ones: 3344ffff */
	cmpl	$0x3344ffff, %ebx
	jne	1f
	movl	%eax, 0xfffffffd	/* its last byte goes to 0 */
	cmpl	$0x11223311, 0
	jne	1f
	movl	$0xffffffff, %esp
	popl	%ecx
	cmpl	$0x223311ff, %ecx
	jne	1f
	movb	$42, %al
	outb	%al, $DEBUG_EXIT
1:	hlt
	jmp	1b

	.bss
	.balign	4096
directory:
	.skip	4096
