/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first instructions in a Xen domain: paging on, the kernel mapped at 3 GiB, ESI points to the start_info page.
 * The domain builder finds the entry and all it must know in the notes. Joins startup_high of head.S.
 * Ref: Xen public/elfnote.h, public/xen.h (start of day, struct start_info), public/version.h.
 */
#include "segment.h"

#define START_INFO_FLAGS 40
#define START_INFO_PT_BASE 60
#define START_INFO_NR_PT_FRAMES 64
#define START_INFO_MOD_START 72
#define START_INFO_MOD_LEN 76
#define START_INFO_CMD_LINE 80
#define CMD_LINE_BYTES 1024
#define SIF_MOD_START_PFN 8
#define ZERO_PAGE_INITRD 0x218		/* ramdisk_image, ramdisk_size */

#define XEN_VERSION_OP 17
#define XENVER_PLATFORM_PARAMETERS 5
#define HYPERVISOR_VIRT_START 0xf5800000
#define GAP 0x2000			/* between the fixed addresses and the hypervisor */

.macro NOTE type, value:vararg
	.pushsection .note.Xen, "a", @note
	.balign	4
	.long	2f - 1f, 4f - 3f, \type
1:	.asciz	"Xen"
2:	.balign	4
3:	\value
4:	.balign	4
	.popsection
.endm

	NOTE 6, .asciz "paravirt"	/* GUEST_OS */
	NOTE 7, .asciz "1"		/* GUEST_VERSION */
	NOTE 5, .asciz "xen-3.0"	/* XEN_VERSION */
	NOTE 8, .asciz "generic"	/* LOADER */
	NOTE 3, .long PAGE_OFFSET	/* VIRT_BASE */
	NOTE 4, .long 0			/* PADDR_OFFSET: addresses in the file begin at 0 */
	NOTE 1, .long startup_xen	/* ENTRY */
	NOTE 2, .long xen_hypercall_page /* HYPERCALL_PAGE */
	NOTE 9, .asciz "yes"		/* PAE_MODE */
	NOTE 10, .asciz "!writable_page_tables|pae_pgdir_above_4gb" /* FEATURES */
	NOTE 12, .long HYPERVISOR_VIRT_START /* HV_START_LOW */
	NOTE 13, .quad 1, 1		/* L1_MFN_VALID: mask, value */

	/* The hypervisor writes its calls here, 32 bytes each; until then every byte is int3. */
	.section .text.page_aligned, "ax"
	.balign	PAGE_SIZE
	.globl	xen_hypercall_page
xen_hypercall_page:
	.fill	PAGE_SIZE, 1, 0xcc

	.section .text.xen_head, "ax"
	.globl	startup_xen
startup_xen:
	cld
	movl	%esi, xen_start_info

	leal	START_INFO_CMD_LINE(%esi), %esi
	movl	$command_line, %edi
	movl	$(CMD_LINE_BYTES - 1), %ecx
1:	lodsb
	testb	%al, %al
	jz	2f
	stosb
	loop	1b
2:
	/* The module is what a boot loader calls the initrd: told by physical address. */
	movl	xen_start_info, %ebx
	movl	START_INFO_MOD_START(%ebx), %eax
	testl	%eax, %eax
	jz	4f
	subl	$PAGE_OFFSET, %eax
	testl	$SIF_MOD_START_PFN, START_INFO_FLAGS(%ebx)
	jz	3f
	movl	START_INFO_MOD_START(%ebx), %eax
	shll	$PAGE_SHIFT, %eax
3:	movl	%eax, boot_params + ZERO_PAGE_INITRD
	movl	START_INFO_MOD_LEN(%ebx), %eax
	movl	%eax, boot_params + ZERO_PAGE_INITRD + 4
4:
	/* The first page tables are the last thing that the builder has put behind the kernel. */
	movl	START_INFO_NR_PT_FRAMES(%ebx), %eax
	shll	$PAGE_SHIFT, %eax
	addl	START_INFO_PT_BASE(%ebx), %eax
	subl	$PAGE_OFFSET, %eax
	movl	%eax, init_pg_tables_end

	/* Above virt_start the address space is the hypervisor's. */
	pushl	$HYPERVISOR_VIRT_START
	movl	$XENVER_PLATFORM_PARAMETERS, %ebx
	movl	%esp, %ecx
	call	xen_hypercall_page + 32 * XEN_VERSION_OP
	popl	%eax
	negl	%eax
	addl	$GAP, %eax
	call	reserve_top_address

	xorl	%eax, %eax
	movl	%eax, %fs
	movl	%eax, %gs
	jmp	startup_high

	.data
	.balign	4
	.globl	xen_start_info
xen_start_info:	.long 0		/* its address; 0 on any other platform */
