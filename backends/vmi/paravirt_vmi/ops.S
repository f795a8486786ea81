/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The guest side: how a kernel finds the ROM and becomes its guest, and the ops whose arguments differ from those of
 * the calls. Ops that do not differ have the ROM's code in their slots (table.py).
 *
 * `vmi_calls` has the address of each call's code, as GetRelocationInfo gave it; 0 where there is none. Calls take
 * EAX, EDX, ECX, then the stack, and may change those three.
 *
 * Ref: Linux 2.6.23 arch/i386/kernel/vmi.c (probe_vmi_rom, check_vmi_rom, activate_vmi), vmiclock.c
 */
#include "guest.h"

.macro FN name
	.balign 4
	.globl \name
\name:
.endm

	.text

#include "activate.inc"
#include "pagetables.inc"
#include "time.inc"

/* What GetRelocationInfo calls NOP */
	.globl vmi_nop, vmi_nop_end
vmi_nop:
vmi_nop_end:
	ret

/* ------------------------------------------------------------------ CPU */

/* EAX, EDX, ECX, stack: where EAX, EBX, ECX, EDX are; EAX and ECX are inputs too */
FN vmi_cpuid
	pushl %ebx
	pushl %esi
	pushl %edi
	pushl %ebp
	movl %eax, %esi
	movl %edx, %edi
	movl %ecx, %ebp
	movl (%esi), %eax
	movl (%ebp), %ecx
	call VMI(CPUID)
	movl %eax, (%esi)
	movl %ebx, (%edi)
	movl %ecx, (%ebp)
	movl 20(%esp), %eax
	movl %edx, (%eax)
	popl %ebp
	popl %edi
	popl %esi
	popl %ebx
	ret

FN vmi_load_tr_desc
	movl $(GDT_ENTRY_TSS * 8), %eax
	jmp VMI(SET_TR)

/* EAX: descriptors, EDX: how many. The LDT's own descriptor goes into the GDT. */
FN vmi_set_ldt
	testl %edx, %edx
	jz 1f
	movl %eax, %ecx			/* low word: base 15..0, limit 15..0 */
	shll $16, %ecx
	leal -1(,%edx,8), %edx
	movw %dx, %cx
	movl %eax, %edx			/* high word: base 31..24, present, type 2, base 23..16 */
	shrl $16, %edx
	andl $0xff000000, %eax
	movb %dl, %al
	orl $0x8200, %eax
	pushl %eax
	movl $cpu_gdt_table, %eax
	movl $GDT_ENTRY_LDT, %edx
	call VMI(WRITE_GDT_ENTRY)
	addl $4, %esp
	movl $(GDT_ENTRY_LDT * 8), %eax
	jmp VMI(SET_LDT)
1:	xorl %eax, %eax
	jmp VMI(SET_LDT)

/* EAX: thread_struct, which begins with its three TLS descriptors. Only those that change are written. */
FN vmi_load_tls
	pushl %esi
	pushl %edi
	movl %eax, %esi
	movl $GDT_ENTRY_TLS, %edi
1:	movl (%esi), %ecx
	movl 4(%esi), %edx
	cmpl %ecx, cpu_gdt_table(,%edi,8)
	jne 2f
	cmpl %edx, cpu_gdt_table + 4(,%edi,8)
	je 3f
2:	pushl %edx
	movl $cpu_gdt_table, %eax
	movl %edi, %edx
	call VMI(WRITE_GDT_ENTRY)
	addl $4, %esp
3:	addl $8, %esi
	incl %edi
	cmpl $(GDT_ENTRY_TLS + 3), %edi
	jb 1b
	popl %edi
	popl %esi
	ret

/* What WriteGDTEntry is until the ROM says otherwise: EAX table, EDX index, ECX low word, stack high word */
plain_write_gdt_entry:
	movl %ecx, (%eax,%edx,8)
	movl 4(%esp), %ecx
	movl %ecx, 4(%eax,%edx,8)
	ret

/* EAX: TSS, EDX: thread_struct. The kernel reads esp0 in its TSS; TSS.ss1 remembers what MSR 0x174 holds. */
FN vmi_load_esp0
	movl THREAD_ESP0(%edx), %ecx
	movl %ecx, TSS_ESP0(%eax)
	movzwl THREAD_SYSENTER_CS(%edx), %edx
	cmpw %dx, TSS_SS1(%eax)
	je 1f
	movw %dx, TSS_SS1(%eax)
	pushl %ecx
	movl %edx, %eax
	xorl %edx, %edx
	movl $MSR_SYSENTER_CS, %ecx
	wrmsr
	popl %ecx
1:	movl $KERNEL_DS, %eax
	movl %ecx, %edx
	jmp VMI(UPDATE_KERNEL_STACK)

/* ------------------------------------------------------------------ ways back to user mode: jumped to */

/* A CALL, whose target is filled in: a fault of the IRET in the ROM is reported here. */
FN vmi_iret
	.byte 0xe8
	.long 0
	.pushsection __ex_table, "a"
	.long vmi_iret, iret_exc
	.popsection
FN vmi_sysexit
	.byte 0xe8
	.long 0

	.section .rodata, "a"
name:	.asciz "vmi"
unknown: .asciz "UNKNOWN"
licence_1: .asciz "GPL"
licence_2: .asciz "GPL v2"
found_text: .asciz "VMI: Found %s %s, API version %u.%u, ROM version %u.%u\n"
version_text: .asciz "VMI: ROM speaks version %u.%u of the API, not 3\n"
pci_text: .asciz "VMI: ROM has no PCI data\n"
device_text: .asciz "VMI: ROM is of device %x:%x, not 15ad:801; trying all the same\n"
licence_text: .asciz "VMI: ROM's licence is not GPL\n"
init_failed_text: .asciz "VMI: ROM did not initialise; going on without it\n"

	.data
	.balign 4
	.globl vmi_calls
vmi_calls:
	.fill WRITE_GDT_ENTRY, 4, 0
	.long plain_write_gdt_entry
	.fill CALLS - WRITE_GDT_ENTRY - 1, 4, 0
lazy_mode:
	.long 0
cycle_scale:
	.long 1 << SCALE_SHIFT
