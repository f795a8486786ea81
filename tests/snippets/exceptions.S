/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Every exception that an i386 program can raise, in ring 0 and then in ring 3. Each label stands at the
 * instruction that faults, or, for traps, at the one behind it.
 */
#include "kernel.inc"

	.globl	main
main:
	fninit
	try	de_end			/* #DE: division by zero */
	xor	%ecx, %ecx
	.globl	de, de_quotient, bound, invalid, not_present, ss_absent, gp_selector, gp_null, read_only, end
de:	div	%ecx
de_end:
	try	de_quotient_end		/* #DE: the quotient does not fit */
	mov	$2, %edx
	mov	$1, %ecx
de_quotient:
	div	%ecx
de_quotient_end:
	.globl	trapped, int3_next, into_next
	pushf				/* #DB: single step, after the instruction behind POPF */
	orl	$0x100, (%esp)
	try	step_end
	popf
	nop
trapped:
	nop
step_end:
	int3				/* #BP; returns */
int3_next:
	mov	$0x7fffffff, %eax	/* #OF; returns */
	inc	%eax
	into
into_next:
	xor	%eax, %eax
	into				/* OF is clear: nothing */
	try	bound_end		/* #BR */
	mov	$3, %eax
bound:	bound	%eax, bounds
bound_end:
	mov	$2, %eax
	bound	%eax, bounds
	try	invalid_end		/* #UD */
invalid:
	ud2
invalid_end:
	.globl	no_fpu
	mov	%cr0, %eax		/* #NM: CR0.TS */
	or	$8, %eax
	mov	%eax, %cr0
	try	no_fpu_end
no_fpu:	fld1
no_fpu_end:
	clts
	fld1
	fstp	%st(0)
	try	not_present_end		/* #NP(30h) */
	mov	$0x30, %eax
not_present:
	mov	%ax, %gs
not_present_end:
	try	ss_absent_end		/* #SS(30h) */
	mov	$0x30, %eax
ss_absent:
	mov	%ax, %ss
ss_absent_end:
	try	gp_selector_end		/* #GP(1230h): outside the GDT */
	mov	$0x1230, %eax
gp_selector:
	mov	%ax, %gs
gp_selector_end:
	try	gp_null_end		/* #GP(0): a null SS */
	xor	%eax, %eax
gp_null:
	mov	%ax, %ss
gp_null_end:
	try	read_only_end		/* #GP(40h): SS must be writable */
	mov	$0x40, %eax
read_only:
	mov	%ax, %ss
read_only_end:
	.globl	absent_code, bad_far
	try	absent_code_end		/* #NP(38h) */
absent_code:
	ljmp	$0x38, $0
absent_code_end:
	try	bad_far_end		/* #GP(10h): data is no code */
bad_far:
	ljmp	$0x10, $0
bad_far_end:
	.globl	soft, soft_next, no_gate
soft:	int	$0x40			/* a gate of ring 0 from ring 0 */
soft_next:

/* ring 3 */
	.globl	u_hlt, u_cli, u_lgdt, u_cr0, u_de, u_int, u_syscall_next, u_int3_next, u_invlpg, u_rdmsr, u_gate
	try	1f
	user	u_hlt
u_hlt:	hlt
1:	try	1f
	user	u_cli
u_cli:	cli
1:	try	1f
	user	u_lgdt
u_lgdt:	lgdt	gdt_pointer
1:	try	1f
	user	u_cr0
u_cr0:	mov	%cr0, %eax
1:	try	1f
	user	u_invlpg
u_invlpg:
	invlpg	0
1:	try	1f
	user	u_rdmsr
u_rdmsr:
	rdmsr
1:	try	1f
	xor	%ecx, %ecx
	user	u_de
u_de:	div	%ecx
1:	try	1f
	user	u_int			/* #GP(40h * 8 + 2): the gate is for ring 0 */
u_int:	int	$0x40
1:	try	1f
	user	2f
2:	int	$0x80			/* for every ring */
u_syscall_next:
1:	try	1f
	user	2f
2:	int3
u_int3_next:
1:	try	1f
	user	u_gate			/* #GP(13 * 8 + 2): a program cannot feign a #GP */
u_gate:	int	$13
1:	done
bounds:	.long	0, 2
