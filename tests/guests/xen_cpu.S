/*
 * A paravirtual Xen kernel that does one thing to its CPU, by entry point, and logs the traps that come of it.
 *
 * Every vector has a handler that logs what it found: vector, error code (-1: none), EIP, the CS slot, EFLAGS, ESP and
 * SS (as they were), and CR2 of the vcpu_info. Then it goes on at `resume` in ring 1 with the stack of the start; the
 * default is the end, a shutdown. Words for the test are put into `results`.
 *
 * Ref: Xen public/xen.h, arch-x86/xen-x86_32.h.
 */
#define SET_TRAP_TABLE 0
#define STACK_SWITCH 3
#define SCHED_OP_COMPAT 6
#define UPDATE_VA_MAPPING 14
#define IRET 23
#define CALLBACK_OP 30
#define EVENT_CHANNEL_OP 32
#define RING1_CS 0xe019
#define RING1_DS 0xe021
#define RING3_CS 0xe02b
#define RING3_DS 0xe033
#define EVENT_VECTOR 0x100
#define FAILSAFE_VECTOR 0x101

	.macro function name
	.globl	\name
	.type	\name, @function
\name:
	.endm

	.macro hypercall number
	movl	$\number, %eax
	int	$0x82
	.endm

	.macro resume_at label
	movl	$\label, resume
	.endm

	.macro result index, register
	movl	\register, results + 4 * \index
	.endm

	/* All that a scenario starts with: traps, callbacks, shared_info mapped at `shared`. */
	.macro begin
	call	set_up
	.endm

	/* Into ring 3 at `label` with the stack of user programs. */
	.macro user label, eflags=0x202
	pushl	$RING3_DS
	pushl	$user_stack_end
	pushl	$\eflags
	pushl	$RING3_CS
	pushl	$\label
	pushl	$0x5a5a5a5a
	movl	$IRET, %eax
	int	$0x82
	.endm

	.text
set_up:
	movl	%esi, start_info
	movl	36(%esi), %ecx		/* machine address of shared_info */
	orl	$3, %ecx
	movl	$shared, %ebx
	xorl	%edx, %edx
	movl	$2, %esi
	hypercall UPDATE_VA_MAPPING
	movl	%eax, results + 60
	movb	$0, shared		/* console and store have called */
	call	make_traps
	movl	$trap_table, %ebx
	hypercall SET_TRAP_TABLE
	movl	$RING1_DS, %ebx
	movl	$kernel_stack_end, %ecx
	hypercall STACK_SWITCH
	xorl	%ebx, %ebx
	movl	$event_callback, %ecx
	hypercall CALLBACK_OP
	xorl	%ebx, %ebx
	movl	$failsafe_callback, %ecx
	hypercall CALLBACK_OP
	movl	%esp, start_stack
	addl	$4, start_stack
	ret

	/* trap_table: 256 entries, then the last */
make_traps:
	movl	$trap_table, %edi
	xorl	%ecx, %ecx
1:	movb	%cl, (%edi)
	movb	flags(%ecx), %al
	movb	%al, 1(%edi)
	movw	$RING1_CS, 2(%edi)
	movl	%ecx, %eax
	shll	$4, %eax
	addl	$stubs, %eax
	movl	%eax, 4(%edi)
	addl	$8, %edi
	incl	%ecx
	cmpl	$256, %ecx
	jne	1b
	ret

	.balign	16
stubs:
	.set	vector, 0
	.rept	256
	.balign	16
	.if	(vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17)
	.else
	pushl	$-1
	.endif
	pushl	$vector
	jmp	logged
	.set	vector, vector + 1
	.endr

event_upcall:
	pushl	$-1
	pushl	$EVENT_VECTOR
	jmp	logged
failsafe:
	pushl	$-1
	pushl	$FAILSAFE_VECTOR
	jmp	logged

	/* vector, error, EIP, CS, EFLAGS [, ESP, SS] */
logged:
	pushal
	movl	next, %edi
	movl	32(%esp), %eax
	movl	%eax, (%edi)
	movl	36(%esp), %eax
	movl	%eax, 4(%edi)
	movl	40(%esp), %eax
	movl	%eax, 8(%edi)
	movl	44(%esp), %eax
	movl	%eax, 12(%edi)
	movl	48(%esp), %eax
	movl	%eax, 16(%edi)
	leal	52(%esp), %eax
	movl	%ss, %ebx
	testb	$2, 44(%esp)
	jz	1f
	movl	52(%esp), %eax
	movl	56(%esp), %ebx
1:	movl	%eax, 20(%edi)
	movl	%ebx, 24(%edi)
	movl	shared + 8, %eax
	movl	%eax, 28(%edi)
	addl	$32, next
	popal
	movl	start_stack, %esp
	jmp	*resume

function finish
	movl	$2, %ebx
	xorl	%ecx, %ecx
	hypercall SCHED_OP_COMPAT
	jmp	finish

	/* ------------------------------------------------------------ exceptions in ring 1 */

function divide_error
	begin
	xorl	%ecx, %ecx
1:	divl	%ecx
function breakpoint
	begin
	int3
function undefined
	begin
	ud2
function page_fault
	begin
	movl	%eax, 0xd0000004
function selector_fault
	begin
	movl	$0x1234, %eax
	movl	%eax, %ds
function masked_trap
	begin
	movb	$0, shared + 1
	int	$0x90
function unmasked_trap
	begin
	movb	$0, shared + 1
	int	$0x91
function no_handler
	begin
	int	$0x92			/* its DPL is 0 */
function sysenter_instruction
	begin
	sysenter
function syscall_instruction
	begin
	syscall
function forced_prefix_alone
	begin
	ud2
	.ascii	"xen"
	rdtsc
function bad_stack
	begin
	movl	$0xd0000000, %esp
	int3
function unregistered
	begin
	movl	$0, %ebx
	hypercall SET_TRAP_TABLE
	ud2

	/* ------------------------------------------------------------ from ring 3 */

function from_ring_3
	begin
	resume_at second
	user	user_int80
second:	resume_at third
	user	user_int90
third:	resume_at fourth
	user	user_int82
fourth:	resume_at fifth
	user	user_fault
fifth:	resume_at sixth
	user	user_sysenter
sixth:	resume_at finish
	user	user_hlt

	/* ------------------------------------------------------------ iret */

function iret_to_ring_1
	begin
	pushl	$0x46			/* IF off: events are masked */
	pushl	$RING1_CS
	pushl	$1f
	pushl	$0x1badcafe
	movb	$0, shared + 1
	movl	$IRET, %eax
	int	$0x82
1:	movl	%eax, results
	movl	%esp, results + 4
	movzbl	shared + 1, %eax
	movl	%eax, results + 8
	movl	start_stack, %eax
	movl	%eax, results + 12
	jmp	finish
function iret_delivers_at_once
	begin
	movb	$1, shared
	pushl	$0x246
	pushl	$RING1_CS
	pushl	$iret_target
	pushl	$0
	movl	$IRET, %eax
	int	$0x82
function iret_target
	nop
	jmp	finish
function iret_to_ring_0
	begin
	pushl	$0x246
	pushl	$0xe008
	pushl	$finish
	pushl	$0
	movl	$IRET, %eax
	int	$0x82
function iret_bad_selector
	begin
	pushl	$RING3_DS
	pushl	$0x1000
	pushl	$0x246
	pushl	$0x4567
	pushl	$0x2000
	pushl	$0
	movl	$IRET, %eax
	int	$0x82
function iret_no_frame
	begin
	movl	$0xd0000000, %esp
	movl	$IRET, %eax
	int	$0x82
function iret_to_vm86
	begin
	pushl	$0x99			/* GS */
	pushl	$0x88
	pushl	$0x77
	pushl	$0x66			/* ES */
	pushl	$0x55			/* SS */
	pushl	$0x44
	pushl	$0x20246
	pushl	$0x33
	pushl	$0x22
	pushl	$0
	movl	$IRET, %eax
	int	$0x82
function own_iret
	begin
	movb	$0, shared + 1
	pushl	$RING3_DS
	pushl	$user_stack_end
	pushl	$0x246
	pushl	$RING3_CS
	pushl	$user_int80
	iret
function own_iret_to_vm86
	begin
	pushl	$0
	pushl	$0
	pushl	$0
	pushl	$0
	pushl	$0
	pushl	$0x44
	pushl	$0x20246
	pushl	$RING1_CS
	pushl	$1f
	iret
1:	movl	$0x600d, results
	jmp	finish
function nested_task_iret
	begin
	pushl	$0x4246
	popfl
	pushl	$0x246
	pushl	$RING1_CS
	pushl	$finish
	iret

	/* ------------------------------------------------------------ call gates; the test makes the GDT */

function gate_from_ring_3
	begin
	resume_at finish
	user	user_gate
function gate_handler
	result	0, %esp
	movl	(%esp), %eax
	result	1, %eax
	movl	4(%esp), %eax
	result	2, %eax
	movl	8(%esp), %eax
	result	3, %eax
	movl	12(%esp), %eax
	result	4, %eax
	movl	16(%esp), %eax
	result	5, %eax
	movl	%cs, %eax
	result	6, %eax
	lret	$4
function gate_from_ring_1
	begin
	pushl	%esp			/* the far return of the handler takes it away */
	lcall	$0x28, $0
	movl	$0x77, results + 28
	jmp	finish
function forbidden_gate
	begin
	resume_at finish
	user	user_forbidden_gate

	/* ------------------------------------------------------------ events */

function upcall_after_unmasking
	begin
	movb	$1, shared
	movb	$0, shared + 1
	xorl	%ebx, %ebx		/* xen_version: any call will do */
	hypercall 17
function upcall_behind_an_exception
	begin
	resume_at finish
	movb	$1, shared
	movb	$0, shared + 1
	int	$0x91

	/* ------------------------------------------------------------ multicall */

	/* 600 entries, from a list that crosses a page: xen_version, and stack_switch between */
function long_multicall
	begin
	movl	$list, %edi
	movl	$300, %ecx
1:	movl	$17, (%edi)
	movl	$3, 32(%edi)
	movl	$RING1_DS, 40(%edi)
	movl	$kernel_stack_end, 44(%edi)
	movl	$-1, 36(%edi)
	addl	$64, %edi
	loop	1b
	movl	$list, %ebx
	movl	$600, %ecx
	hypercall 13
	result	0, %eax
	movl	list + 4, %eax
	result	1, %eax
	movl	list + 599 * 32 + 4, %eax
	result	2, %eax
	movl	list + 598 * 32 + 4, %eax
	result	3, %eax
	jmp	finish
	/* a failure, a multicall inside, an unknown number, iret: which ends it */
function mixed_multicall
	begin
	movb	$0, shared + 1
	movl	$list, %edi
	movl	$10, (%edi)		/* update_descriptor of nothing */
	movl	$1, 8(%edi)
	movl	$13, 32(%edi)
	movl	$44, 64(%edi)
	movl	$1000, 96(%edi)
	movl	$IRET, 128(%edi)
	movl	$17, 160(%edi)
	movl	$77, 164(%edi)
	pushl	$0x46
	pushl	$RING1_CS
	pushl	$1f
	pushl	$0x1badcafe
	movl	$list, %ebx
	movl	$6, %ecx
	hypercall 13
1:	result	0, %eax
	movl	list + 4, %eax
	result	1, %eax
	movl	list + 36, %eax
	result	2, %eax
	movl	list + 68, %eax
	result	3, %eax
	movl	list + 100, %eax
	result	4, %eax
	movl	list + 132, %eax
	result	5, %eax
	movl	list + 164, %eax
	result	6, %eax
	jmp	finish
	/* of a list that ends where memory does */
function torn_multicall
	begin
	movl	$0xd0000000 - 16, %ebx
	movl	$2, %ecx
	hypercall 13
	result	0, %eax
	movl	$list + 2, %ebx		/* not aligned, which is no matter */
	movl	$17, list + 2
	movl	$1, %ecx
	hypercall 13
	result	1, %eax
	movl	list + 6, %eax
	result	2, %eax
	jmp	finish

	/* ------------------------------------------------------------ emulation */

function registers
	begin
	movl	%cr0, %eax
	result	0, %eax
	movl	%cr4, %eax
	result	1, %eax
	movl	%cr3, %eax
	result	2, %eax
	movl	$0xabcd, %eax
	movl	%eax, %cr2
	movl	%cr2, %ecx
	result	3, %ecx
	orl	$8, %ecx
	movl	%cr0, %eax
	orl	$8, %eax
	movl	%eax, %cr0
	movl	%cr0, %edx
	result	4, %edx
	clts
	movl	%cr0, %edx
	result	5, %edx
	movl	$0x12345678, %eax
	movl	%eax, %dr2
	movl	%dr2, %ebx
	result	6, %ebx
	movl	$0xc0000080, %ecx
	rdmsr
	result	7, %eax
	wbinvd
	invlpg	shared
	movl	$0x40000000, %eax
	ud2
	.ascii	"xen"
	cpuid
	result	8, %eax
	result	9, %ebx
	movl	$1, %eax
	ud2
	.ascii	"xen"
	cpuid
	result	10, %edx
	result	11, %ecx
	movl	$0x174, %ecx
	wrmsr
	jmp	finish
function unknown_msr
	begin
	movl	$0x12345, %ecx
	rdmsr
function forbidden_cr0
	begin
	movl	%cr0, %eax
	andl	$~0x80000000, %eax
	movl	%eax, %cr0
function port_without_iopl
	begin
	inb	$0x60, %al
function cli_without_iopl
	begin
	cli
function ports_with_iopl
	begin
	movl	$6, %ebx		/* PHYSDEVOP_set_iopl */
	movl	$iopl, %ecx
	hypercall 33
	xorl	%eax, %eax
	movw	$0x3f8, %dx
	inb	%dx, %al
	result	0, %eax
	inl	%dx, %eax
	result	1, %eax
	outb	%al, $0x80
	cli
	sti
	movl	$3, %ecx
	movl	$buffer, %edi
	cld
	rep insw
	result	2, %ecx
	subl	$buffer, %edi
	result	3, %edi
	movl	buffer, %eax
	result	4, %eax
	movl	$5, %ecx
	movl	$buffer, %esi
	rep outsb
	subl	$buffer, %esi
	result	5, %esi
	jmp	finish
function string_to_nowhere
	begin
	movl	$6, %ebx
	movl	$iopl, %ecx
	hypercall 33
	movl	$8, %ecx
	movl	$0xd0000000 - 2, %edi
	insb
	jmp	finish
function halt
	begin
	movb	$1, shared
	hlt
	jmp	finish
function data_breakpoint
	begin
	movl	$buffer, %eax
	movl	%eax, %dr0
	movl	$0xd0402, %eax		/* 4 bytes, written; G0 */
	movl	%eax, %dr7
	movl	buffer, %eax
	movl	$1, buffer
function behind_the_store
	nop
	jmp	finish
function instruction_breakpoint
	begin
	movl	$broken, %eax
	movl	%eax, %dr0
	call	broken			/* translated before anybody looks for it */
	movl	$2, %eax		/* G0 */
	movl	%eax, %dr7
	pushl	$1f
	pushfl
	orl	$0x10000, (%esp)	/* RF: not this time */
	pushl	$RING1_CS
	pushl	$broken
	iret
1:	pushl	$2f
	pushfl
	orl	$0x10000, (%esp)
	pushl	$RING1_CS
	pushl	$broken
	pushl	$0
	movl	$IRET, %eax
	int	$0x82
2:	call	broken
	jmp	finish
function broken
	incl	results
	ret
function single_step_over_emulation
	begin
	pushfl
	orl	$0x100, (%esp)
	popfl
	clts
	nop
	jmp	finish

	.data
	.balign	8
callbacks:
event_callback:
	.word	0, 0
	.long	RING1_CS, event_upcall
failsafe_callback:
	.word	1, 0
	.long	RING1_CS, failsafe
iopl:	.long	1
resume:	.long	finish
next:	.long	log
	.globl	log, next, results, shared, start_info, start_stack, user_stack_end, kernel_stack_end, user_text
flags:				/* DPL, and 4: masks events */
	.fill	0x80, 1, 4
	.byte	3
	.fill	0x0f, 1, 0
	.byte	5, 1, 0		/* 0x90 masks, 0x91 does not, 0x92 is the hypervisor's alone */
	.fill	0x6d, 1, 0
	.balign	16
results:
	.fill	16, 4, 0
log:	.fill	64 * 8, 4, 0
trap_table:
	.fill	257, 8, 0
start_info:
	.long	0
start_stack:
	.long	0
buffer:	.fill	16, 4, 0
	.balign	64
	.skip	2048
kernel_stack_end:
	.balign	4096
	.globl	gdt
gdt:	.skip	4096
	.skip	4064
list:	.skip	600 * 32
	.balign	4096
shared:	.skip	4096
	/* pages that the test makes the user's */
user_text:
user_int80:
	int	$0x80
user_int90:
	int	$0x90
user_int82:
	int	$0x82
user_fault:
	movl	%eax, 0xd0000008
user_sysenter:
	sysenter
user_hlt:
	hlt
user_gate:
	pushl	$0x1234
	lcall	$0x23, $0
	int	$0x80
user_forbidden_gate:
	lcall	$0x2b, $0
	.globl	user_gate, user_forbidden_gate, user_int80, user_int90, user_int82, user_fault, user_sysenter, user_hlt, stubs
	.balign	4096
	.skip	4096
user_stack_end:
	.long	0
