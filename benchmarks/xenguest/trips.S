/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A Xen domain that does one thing again and again. Its command line is "N COUNT": what, and how often.
 *
 * Ref: Xen public/xen.h (start_info, shared_info), elfnote.h
 */

#define SET_TRAP_TABLE	0
#define STACK_SWITCH	3
#define UPDATE_VA_MAPPING 14
#define XEN_VERSION	17
#define VM_ASSIST	21
#define SCHED_OP	29
#define CALLBACK_OP	30
#define EVENT_CHANNEL_OP 32

#define BASE		0xc0000000
#define SHARED_INFO	36	/* in start_info */
#define PT_BASE		60
#define CMD_LINE	80
#define PAGE		4096
#define RING1_CS	0xe019
#define RING1_DS	0xe021
#define RING3_CS	0xe02b
#define RING3_DS	0xe033
#define USER		4	/* in a page-table entry */
#define INVLPG		2

	.macro	elfnote kind, desc:vararg
	.long	4, 2f - 1f, \kind
	.asciz	"Xen"
1:	\desc
2:	.balign	4
	.endm

	.section .note.Xen, "a", @note
	elfnote	1, .long _start			/* ENTRY */
	elfnote	3, .long BASE			/* VIRT_BASE */
	elfnote	4, .long BASE			/* PADDR_OFFSET: p_paddr is virtual */
	elfnote	5, .asciz "xen-3.0"		/* XEN_VERSION */
	elfnote	6, .asciz "trips"		/* GUEST_OS */
	elfnote	8, .asciz "generic"		/* LOADER */
	elfnote	9, .asciz "yes"			/* PAE_MODE */

	.macro	hypercall number
	mov	$\number, %eax
	int	$0x82
	.endm

	/* Map the page at \va as it is, with flags added. */
	.macro	remap va, flags
	mov	$\va, %ebx
	call	entry
	mov	(%edi), %ecx
	mov	4(%edi), %edx
	or	$\flags, %ecx
	mov	$INVLPG, %esi
	hypercall UPDATE_VA_MAPPING
	.endm

	.text
	.globl	_start
_start:
	cld
	mov	%esi, start_info
	add	$CMD_LINE, %esi
	xor	%eax, %eax
	lodsb
	sub	$'0', %eax
	push	%eax
	inc	%esi
	xor	%ebp, %ebp
1:	lodsb
	movzx	%al, %eax
	sub	$'0', %eax
	js	2f
	imul	$10, %ebp
	add	%eax, %ebp
	jmp	1b
2:	pop	%eax
	jmp	*cases(, %eax, 4)

done:	mov	$2, %ebx			/* SCHEDOP_shutdown */
	mov	$poweroff, %ecx
	hypercall SCHED_OP
	ud2

/* EDI := the page-table entry of the address in EBX */
entry:	mov	start_info, %edi
	mov	PT_BASE(%edi), %edi
	mov	%ebx, %ecx
	sub	$BASE, %ecx
	shr	$21, %ecx
	add	$2, %ecx			/* behind the L3 and its one L2 */
	shl	$12, %ecx
	add	%ecx, %edi
	mov	%ebx, %ecx
	shr	$12, %ecx
	and	$511, %ecx
	lea	(%edi, %ecx, 8), %edi
	ret

nothing:
	dec	%ebp				/* 0 */
	jnz	nothing
	jmp	done

version:
	xor	%ebx, %ebx			/* 1 */
	xor	%ecx, %ecx
	hypercall XEN_VERSION
	dec	%ebp
	jnz	version
	jmp	done

mapping:					/* 2 */
	mov	$scratch, %ebx
	call	entry
	mov	(%edi), %ecx
	mov	4(%edi), %edx
	xor	%esi, %esi
1:	xor	$0x200, %ecx
	hypercall UPDATE_VA_MAPPING
	dec	%ebp
	jnz	1b
	jmp	done

direct:						/* 3 */
	xor	%ebx, %ebx			/* enable writable page tables */
	mov	$2, %ecx
	hypercall VM_ASSIST
	mov	$scratch, %ebx
	call	entry
	mov	(%edi), %eax
1:	xor	$0x200, %eax
	mov	%eax, (%edi)
	dec	%ebp
	jnz	1b
	jmp	done

event:						/* 4 */
	mov	start_info, %eax
	mov	SHARED_INFO(%eax), %ecx
	or	$0x63, %ecx
	xor	%edx, %edx
	mov	$shared, %ebx
	mov	$INVLPG, %esi
	hypercall UPDATE_VA_MAPPING
	xor	%ebx, %ebx
	mov	$callback, %ecx
	hypercall CALLBACK_OP
	mov	$7, %ebx			/* EVTCHNOP_bind_ipi */
	mov	$ipi, %ecx
	hypercall EVENT_CHANNEL_OP
	movl	$0, shared + 2048		/* the store's and the console's */
	movl	$0, shared + 4
	movw	$0, shared
1:	mov	$4, %ebx			/* EVTCHNOP_send */
	mov	$ipi + 4, %ecx
	hypercall EVENT_CHANNEL_OP
	dec	%ebp
	jnz	1b
	jmp	done
upcall:	movb	$0, shared			/* the least that a guest has to do */
	movl	$0, shared + 4
	movl	$0, shared + 2048
	movb	$0, shared + 1
	iret

trap:						/* 5 */
	remap	user, USER
	remap	user_stack, USER
	mov	$traps, %ebx
	hypercall SET_TRAP_TABLE
	mov	$RING1_DS, %ebx
	mov	%esp, %ecx
	hypercall STACK_SWITCH
	push	$RING3_DS
	push	$user_stack + PAGE
	push	$0x202
	push	$RING3_CS
	push	$user
	iret
system_call:
	iret

	.balign	PAGE
user:	int	$0x80
	dec	%ebp
	jnz	user
	int	$0x81
	.balign	PAGE

	.data
start_info: .long 0
poweroff: .long	0
ipi:	.long	0, 0
callback: .short 0, 0
	.long	RING1_CS, upcall
traps:	.byte	0x80, 3				/* vector, DPL */
	.short	RING1_CS
	.long	system_call
	.byte	0x81, 3
	.short	RING1_CS
	.long	done
	.fill	8, 1, 0
cases:	.long	nothing, version, mapping, direct, event, trap
	.balign	PAGE
scratch: .fill	PAGE, 1, 0
shared:	.fill	PAGE, 1, 0
user_stack: .fill PAGE, 1, 0
