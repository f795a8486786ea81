/* Guests that never end; many of them never enter a block of code again. An entry each. */
#include "guest.h"

	/* 4 MiB at 0 mapped to itself; everything else faults. Changes EAX. */
	.macro paging
	movl	$0x83, directory
	movl	$0x10, %eax
	movl	%eax, %cr4
	movl	$directory, %eax
	movl	%eax, %cr3
	movl	%cr0, %eax
	orl	$0x80000000, %eax
	movl	%eax, %cr0
	.endm

function spin
	cli
spin_loop:
	jmp	spin_loop

function spin_store	/* with a memory access in each round */
	incl	counter
	jmp	spin_store

function ud_returns
	start
	gate	6, return
ud_here:
	ud2

function bp_returns
	start
	gate	3, return_to_bp
bp_here:
	int3

function de_returns
	start
	gate	0, return
	xorl	%ecx, %ecx
de_here:
	divl	%ecx

function software_interrupts
	start
	gate	0x80, return
interrupt_loop:
	int	$0x80
	jmp	interrupt_loop

	/* The handler is the faulting instruction: delivery after delivery, with a stack that goes down for ever. */
function ud_is_handler
	start
	gate	6, ud_handler
	xorl	%esp, %esp
ud_handler:
	ud2

function ud_is_handler_fixed_stack
	start
	gate	6, ud_fixed
ud_fixed:
	movl	$stack_end, %esp
	ud2

	/* The handler of page faults is not mapped: no instruction ever begins. Its stack is 2 GiB without RAM. */
function pf_without_a_block
	start
	gate	14, 0x00800000
	movl	$directory + 4 * 512, %edi
	movl	$512, %ecx
	movl	$0xc0000083, %eax
	cld
	rep stosl
	paging
	xorl	%esp, %esp
	movl	0x00800000, %eax
1:	jmp	1b

function pf_returns
	start
	gate	14, return_with_code
	paging
pf_here:
	movl	0x00800000, %eax

	/* The handler faults again before it has changed anything. */
function pf_in_handler
	start
	gate	14, pf_handler
	paging
	movl	0x00800000, %eax
pf_handler:
	movl	$stack_end, %esp
	movl	0x00801000, %eax

function single_step
	start
	gate	1, return
	pushfl
	orl	$0x100, (%esp)
	popfl
step_loop:
	nop
	jmp	step_loop

function gp_returns	/* ring 3 may not clear IF; here it is a null selector that is loaded */
	start
	gate	13, return_with_code
	movw	$0xfff8, %ax
gp_here:
	movw	%ax, %ds

function long_rep	/* one instruction, 4 Gi times, where no RAM is */
	cld
	movl	$0x20000000, %edi
	movl	$-1, %ecx
rep_here:
	rep stosb
	jmp	long_rep

function long_rep_in
	cld
	movl	$0x00200000, %edi
	movl	$0x00ffffff, %ecx
	movw	$0x80, %dx
rep_in_here:
	rep insb
	jmp	long_rep_in

function changes_itself	/* each round is new code */
	movl	$1f + 1, %edi
change_loop:
	incl	(%edi)
1:	movl	$0, %eax
	jmp	change_loop

function polls_time
	rdtsc
	jmp	polls_time

function polls_port
	inb	$0x61, %al
	jmp	polls_port

return:
	iret

return_to_bp:
	decl	(%esp)
	iret

return_with_code:
	addl	$4, %esp
	iret

	.bss
counter:
	.skip	4
	.balign	4096
directory:
	.skip	4096
