/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What a guest sees of events and time: `argument` chooses.
 */
#include "xen.inc"

	.globl	main
main:
	mov	argument, %eax
	jmp	*cases(, %eax, 4)

/* 0: send `argument`[1] events to itself; results: port, how many came in time */
self:
	call2	EVENT_CHANNEL_OP, BIND_IPI, $ipi
	mov	ipi + 4, %eax
	mov	%eax, results
	mov	%eax, send
	movb	$0, UPCALL_MASK
1:	mov	log_next, %edi
	call2	EVENT_CHANNEL_OP, SEND, $send
	cmp	log_next, %edi		/* the upcall comes before the call is over */
	je	2f
	incl	results + 4
2:	decl	argument + 4
	jnz	1b
	done

	.macro	set_timer ns
	rdtsc
	add	$\ns, %eax
	adc	$0, %edx
	mov	%eax, %ebx
	mov	%edx, %ecx
	mov	%eax, results
	mov	$SET_TIMER_OP, %eax
	int	$0x82
	.endm

	.macro	bind_timer		/* and let what is pending from the start be taken */
	movb	$0, UPCALL_MASK
	call2	SCHED_OP, YIELD
	call2	EVENT_CHANNEL_OP, BIND_VIRQ, $virq
	mov	virq + 8, %eax
	mov	%eax, results + 8
	.endm

/* 1: block until a timer; results: its time, the TSC behind the call, its port */
block:
	bind_timer
	set_timer 7000000
	call2	SCHED_OP, BLOCK
	rdtsc
	mov	%eax, results + 4
	done

/* 2: poll with upcalls masked and the port masked; results as 1 */
poll:
	bind_timer
	movb	$1, UPCALL_MASK
	mov	results + 8, %eax
	mov	%eax, ports
	bts	%eax, MASK
	set_timer 7000000
	call2	SCHED_OP, POLL, $polled
	rdtsc
	mov	%eax, results + 4
	done

/* 3: a multicall that blocks in its middle; runstate: what its last call found */
multi:
	bind_timer
	set_timer 7000000
	mov	$calls, %ebx
	mov	$2, %ecx
	mov	$MULTICALL, %eax
	int	$0x82
	rdtsc
	mov	%eax, results + 4
	done

/* 4: an NMI to itself; the handler returns by hypercall; results: TSC before, TSC behind the call */
nmi:
	call2	CALLBACK_OP, 0, $nmi_callback
	rdtsc
	mov	%eax, results
	mov	$11, %ebx
	xor	%ecx, %ecx
	xor	%edx, %edx
	mov	$VCPU_OP, %eax
	int	$0x82
	rdtsc
	mov	%eax, results + 4
	done
nmi_handler:
	push	%eax
	xor	%esi, %esi
	call	note
	mov	$IRET, %eax
	int	$0x82

/* 5: keep the CPU for `argument`[1] ns with the periodic timer on */
spin:
	bind_timer
	rdtsc
	mov	%eax, %ecx
1:	rdtsc
	sub	%ecx, %eax
	cmp	argument + 4, %eax
	jb	1b
	done

/* 7: as 5, and the runstate at the end */
spin_and_tell:
	bind_timer
	rdtsc
	mov	%eax, %ecx
1:	rdtsc
	sub	%ecx, %eax
	cmp	argument + 4, %eax
	jb	1b
	mov	$4, %ebx
	xor	%ecx, %ecx
	mov	$runstate, %edx
	mov	$VCPU_OP, %eax
	int	$0x82
	done

/* 6: `argument`[1] times the cheapest hypercall */
version:
	mov	argument + 4, %esi
1:	call2	XEN_VERSION, 0
	dec	%esi
	jnz	1b
	done

	.data
cases:	.long	self, block, poll, multi, nmi, spin, version, spin_and_tell
	.globl	runstate
ipi:	.long	0, 0
send:	.long	0
virq:	.long	0, 0, 0
ports:	.long	0
polled:	.long	ports, 1, 0, 0
calls:	.long	SCHED_OP, 0, BLOCK, 0, 0, 0, 0, 0
	.long	VCPU_OP, 0, 4, 0, runstate, 0, 0, 0
runstate: .fill	11, 4, 0
nmi_callback: .short 4, 0
	.long	0xe019, nmi_handler
