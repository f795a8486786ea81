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
#define PAGE_OFFSET 0xc0000000
#define AREA_FIRST (PAGE_OFFSET + 0xc0000)
#define AREA_END (PAGE_OFFSET + 0xe0000)
#define AREA_STEP 0x800
#define ROM_SIGNATURE 0xaa55
#define VMI_SIGNATURE 0x696d5663	/* cVmi */
#define API_MAJOR 3
#define VENDOR 0x15ad
#define DEVICE 0x0801
#define R_VMI_SIGNATURE 0x08
#define R_API_MINOR 0x0c
#define R_API_MAJOR 0x0d
#define R_VIRTUAL_TOP 0x10
#define R_LICENCE 0x16
#define R_PCI 0x18
#define R_PNP 0x1a
#define R_INIT 0x80
#define R_RELOCATION 0x88
#define PCI_VENDOR 4
#define PCI_DEVICE 6
#define PCI_VERSION_MINOR 0x12
#define PCI_VERSION_MAJOR 0x13
#define PNP_MANUFACTURER 0x0e
#define PNP_PRODUCT 0x10
#define LOW_MEMORY_PAGES 0x38000	/* 896 MiB, the most that a kernel at 3 GiB maps */

#define CALLS 74
#define CPUID 0
#define SET_LDT 4
#define SET_TR 6
#define WRITE_GDT_ENTRY 11
#define UPDATE_KERNEL_STACK 14
#define SET_INTERRUPT_MASK 32
#define SET_PXE_LONG 39
#define UPDATE_PXE_LONG 41
#define ALLOCATE_PAGE 44
#define RELEASE_PAGE 45
#define FLUSH_TLB 47
#define SET_LINEAR_MAPPING 48
#define GET_CYCLE_FREQUENCY 66
#define GET_CYCLE_COUNTER 67
#define SET_ALARM 68
#define GET_WALLCLOCK_TIME 70
#define SET_LAZY_MODE 73
#define VMI(number) *(vmi_calls + 4 * number)

#define NONE 0
#define CALL_REL 1
#define JUMP_REL 2

#define PAGE_PT 0x01
#define PAGE_PD 0x02
#define PAGE_PDP 0x04
#define PAGE_PAE 0x10
#define PAGE_CLONE 0x20
#define PAGE_ZEROED 0x40
#define CURRENT_AS 0x10			/* in SetPxE and UpdatePxE; the address is in bits 31 to 12 */
#define DEFER 0x20

#define PV_KERNEL_RPL (paravirt_ops + 4 * 0)
#define PV_PARAVIRT_ENABLED (paravirt_ops + 4 * 2)
#define PV_NAME (paravirt_ops + 4 * 3)
#define PV_READ_CR3 (paravirt_ops + 4 * 23)
#define KERNEL_DS 0x68
#define GDT_ENTRY_TSS 16
#define GDT_ENTRY_LDT 17
#define GDT_ENTRY_TLS 6
#define TSS_ESP0 4
#define TSS_SS1 16
#define THREAD_ESP0 24
#define THREAD_SYSENTER_CS 28
#define MSR_SYSENTER_CS 0x174

#define HZ 1000
#define NS_PER_SECOND 1000000000
#define SCALE_SHIFT 10
#define ALARM_PERIODIC 0x100		/* of real time (counter 0), by IRQ 0 */
#define COUNTER_REAL 0
#define COUNTER_AVAILABLE 1
#define PIT_CONTROL 0x43
#define PIT_CHANNEL0_MODE5 0x3a		/* counts when a gate rises, and none does: silent */

.macro FN name
	.balign 4
	.globl \name
\name:
.endm

	.text

/* ------------------------------------------------------------------ becoming a guest */

/* The op arch_setup. Interrupts are off. Without a ROM, or with one that will not have us, the table stays native's. */
FN vmi_arch_setup
	pushl %ebx
	pushl %esi
	pushl %edi
	movl $AREA_FIRST, %ebx
1:	cmpw $ROM_SIGNATURE, (%ebx)
	jne 2f
	cmpl $VMI_SIGNATURE, R_VMI_SIGNATURE(%ebx)
	jne 2f
	call check_rom
	testl %eax, %eax
	jnz found
2:	addl $AREA_STEP, %ebx
	cmpl $AREA_END, %ebx
	jb 1b
	jmp done

found:
	xorl %eax, %eax
	subl R_VIRTUAL_TOP(%ebx), %eax
	call reserve_top_address
	leal R_INIT(%ebx), %eax
	call *%eax
	testl %eax, %eax
	jnz failed

	/* Ring 1 from here on, or whichever the ROM has chosen. */
	movl %cs, %eax
	andl $3, %eax
	movl %eax, PV_KERNEL_RPL
	movl $1, PV_PARAVIRT_ENABLED
	movl $name, PV_NAME

	leal R_RELOCATION(%ebx), %edi
	xorl %esi, %esi
3:	movl %esi, %eax
	call *%edi
	movzbl %dl, %ecx
	cmpl $CALL_REL, %ecx
	je 4f
	cmpl $JUMP_REL, %ecx
	jne 5f
4:	movl %eax, vmi_calls(,%esi,4)
5:	movl %eax, %edx
	movl %esi, %eax
	call paravirt_leaf_relocation	/* (number, address, type) */
	incl %esi
	cmpl $CALLS, %esi
	jb 3b
	call paravirt_leaf_activated

	cmpl $0, vmi_calls + 4 * SET_LINEAR_MAPPING
	je 6f
	pushl $0			/* first page frame */
	xorl %eax, %eax			/* slot */
	movl $PAGE_OFFSET, %edx
	movl $LOW_MEMORY_PAGES, %ecx
	call VMI(SET_LINEAR_MAPPING)
	addl $4, %esp
6:	cmpl $0, vmi_calls + 4 * GET_CYCLE_FREQUENCY
	je done
	call VMI(GET_CYCLE_FREQUENCY)
	movl %eax, %ecx
	pushl $0
	movl $((NS_PER_SECOND << SCALE_SHIFT) & 0xffffffff), %eax
	movl $((NS_PER_SECOND << SCALE_SHIFT) >> 32), %edx
	call div64_32
	addl $4, %esp
	movl %eax, cycle_scale
done:
	popl %edi
	popl %esi
	popl %ebx
	ret
failed:
	pushl $init_failed_text
	call printk
	addl $4, %esp
	jmp done

/* EBX: a ROM with VMI's signature. EAX: 1 if we can use it. The order of the checks, and "Found" before the licence,
 * are Linux's. */
check_rom:
	movzbl R_API_MAJOR(%ebx), %eax
	cmpl $API_MAJOR, %eax
	je 1f
	movzbl R_API_MINOR(%ebx), %edx
	pushl %edx
	pushl %eax
	pushl $version_text
	call printk
	addl $12, %esp
	jmp refuse
1:	movzwl R_PCI(%ebx), %esi
	testl %esi, %esi
	jnz 2f
	pushl $pci_text
	call printk
	addl $4, %esp
	jmp refuse
2:	addl %ebx, %esi
	movzwl PCI_VENDOR(%esi), %eax
	movzwl PCI_DEVICE(%esi), %edx
	cmpl $VENDOR, %eax
	jne 3f
	cmpl $DEVICE, %edx
	je 4f
3:	pushl %edx
	pushl %eax
	pushl $device_text
	call printk
	addl $12, %esp
4:	movzbl PCI_VERSION_MINOR(%esi), %eax
	pushl %eax
	movzbl PCI_VERSION_MAJOR(%esi), %eax
	pushl %eax
	movzbl R_API_MINOR(%ebx), %eax
	pushl %eax
	movzbl R_API_MAJOR(%ebx), %eax
	pushl %eax
	movzwl R_PNP(%ebx), %edi
	movl $unknown, %eax
	movl %eax, %edx
	testl %edi, %edi
	jz 5f
	movzwl PNP_PRODUCT(%ebx,%edi), %eax
	addl %ebx, %eax
	movzwl PNP_MANUFACTURER(%ebx,%edi), %edx
	addl %ebx, %edx
5:	pushl %eax
	pushl %edx
	pushl $found_text
	call printk
	addl $28, %esp
	movzwl R_LICENCE(%ebx), %eax
	testl %eax, %eax
	jz 6f
	leal (%ebx,%eax), %esi
	movl %esi, %eax
	movl $licence_1, %edx
	call strcmp
	testl %eax, %eax
	jz 7f
	movl %esi, %eax
	movl $licence_2, %edx
	call strcmp
	testl %eax, %eax
	jz 7f
6:	pushl $licence_text
	call printk
	addl $4, %esp
refuse:
	xorl %eax, %eax
	ret
7:	movl $1, %eax
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

/* ------------------------------------------------------------------ page tables */

/* EAX: mm, EDX: address. EDX: flags for an entry of a page table that maps it. Changes EAX. */
page_flags:
	andl $~0xfff, %edx
	cmpl $init_mm, %eax
	je 1f
	pushl %ecx
	pushl %edx
	movl (%eax), %eax		/* mm->pgd */
	subl $PAGE_OFFSET, %eax
	pushl %eax
	call *PV_READ_CR3
	popl %ecx
	cmpl %eax, %ecx
	popl %edx
	popl %ecx
	je 1f
	movl $PAGE_PT, %edx
	ret
1:	orl $(PAGE_PT | CURRENT_AS), %edx
	ret

/* EAX: where, ECX:EDX: the entry */
.macro SET_ENTRY name, level
FN \name
	pushl $\level
	xchgl %eax, %ecx
	xchgl %eax, %edx
	call VMI(SET_PXE_LONG)
	addl $4, %esp
	ret
.endm
	SET_ENTRY vmi_set_pte, PAGE_PT
	SET_ENTRY vmi_set_pmd, PAGE_PD
	SET_ENTRY vmi_set_pud, PAGE_PDP

/* EAX: mm, EDX: address, ECX: where, stack: the entry */
FN vmi_set_pte_present
	movl $0, (%ecx)
FN vmi_set_pte_at
	call page_flags
	pushl %edx
	movl 8(%esp), %eax
	movl 12(%esp), %edx
	call VMI(SET_PXE_LONG)
	addl $4, %esp
	ret

/* EAX: mm, EDX: address, ECX: where */
FN vmi_pte_clear
	call page_flags
	pushl %edx
	jmp clear_entry
FN vmi_pmd_clear		/* EAX: where */
	movl %eax, %ecx
	pushl $PAGE_PD
clear_entry:
	xorl %eax, %eax
	xorl %edx, %edx
	call VMI(SET_PXE_LONG)
	addl $4, %esp
	ret

/* EAX: where, ECX:EDX: the entry, which replaces the old one at once; the ROM is told afterwards. */
FN vmi_set_pte_atomic
	pushl %ebx
	pushl %esi
	movl %eax, %esi
	movl %edx, %ebx
	movl (%esi), %eax
	movl 4(%esi), %edx
1:	lock; cmpxchg8b (%esi)
	jnz 1b
	movl %esi, %eax
	movl $PAGE_PT, %edx
	popl %esi
	popl %ebx
	jmp VMI(UPDATE_PXE_LONG)

/* EAX: mm, EDX: address, ECX: the entry, which has changed already */
FN vmi_pte_update
	call page_flags
	movl %ecx, %eax
	jmp VMI(UPDATE_PXE_LONG)
FN vmi_pte_update_defer
	call page_flags
	orl $DEFER, %edx
	movl %ecx, %eax
	jmp VMI(UPDATE_PXE_LONG)

FN vmi_alloc_pt			/* EAX: mm, EDX: page frame */
	movl %edx, %eax
	movl $(PAGE_PT | PAGE_PAE | PAGE_ZEROED), %edx
	jmp allocate
FN vmi_alloc_pd			/* EAX: page frame */
	movl $(PAGE_PD | PAGE_PAE | PAGE_ZEROED), %edx
allocate:
	xorl %ecx, %ecx
	pushl %ecx
	pushl %ecx
	call VMI(ALLOCATE_PAGE)
	addl $8, %esp
	ret
FN vmi_alloc_pd_clone		/* EAX: page frame, EDX: of what, ECX: first entry, stack: entries */
	pushl 4(%esp)
	pushl %ecx
	movl %edx, %ecx
	movl $(PAGE_PD | PAGE_PAE | PAGE_CLONE | PAGE_ZEROED), %edx
	call VMI(ALLOCATE_PAGE)
	addl $8, %esp
	ret
FN vmi_release_pt		/* EAX: page frame */
	movl $(PAGE_PT | PAGE_PAE), %edx
	jmp VMI(RELEASE_PAGE)
FN vmi_release_pd
	movl $(PAGE_PD | PAGE_PAE), %edx
	jmp VMI(RELEASE_PAGE)

FN vmi_flush_tlb_user
	movl $1, %eax
	jmp VMI(FLUSH_TLB)
FN vmi_flush_tlb_kernel
	movl $3, %eax
	jmp VMI(FLUSH_TLB)

/* EAX: 0 none, 1 page tables, 2 CPU, 3: make up for what waits and stay in the mode */
FN vmi_set_lazy_mode
	cmpl $3, %eax
	je 1f
	movl %eax, lazy_mode
	jmp VMI(SET_LAZY_MODE)
1:	xorl %eax, %eax
	call VMI(SET_LAZY_MODE)
	movl lazy_mode, %eax
	jmp VMI(SET_LAZY_MODE)

/* ------------------------------------------------------------------ time */

/* Nanoseconds of available time: the high word's part first, and nothing overflows for centuries. */
FN vmi_sched_clock
	movl $COUNTER_AVAILABLE, %eax
	call VMI(GET_CYCLE_COUNTER)
	pushl %ebx
	movl %edx, %ecx
	mull cycle_scale
	shrdl $SCALE_SHIFT, %edx, %eax
	shrl $SCALE_SHIFT, %edx
	movl %eax, %ebx
	xchgl %edx, %ecx
	movl %edx, %eax
	mull cycle_scale
	shldl $(32 - SCALE_SHIFT), %eax, %edx
	shll $(32 - SCALE_SHIFT), %eax
	addl %ebx, %eax
	adcl %ecx, %edx
	popl %ebx
	ret

FN vmi_get_cpu_khz
	call VMI(GET_CYCLE_FREQUENCY)
	movl $1000, %ecx
	jmp divide
FN vmi_get_wallclock
	call VMI(GET_WALLCLOCK_TIME)
	movl $NS_PER_SECOND, %ecx
divide:
	pushl $0
	call div64_32
	addl $4, %esp
	ret

/* The hypervisor's clock is not the guest's to set. */
FN vmi_set_wallclock
	movl $-1, %eax
	ret

/* What GetRelocationInfo calls NOP */
	.globl vmi_nop, vmi_nop_end
vmi_nop:
vmi_nop_end:
	ret

/* The tick: a periodic alarm on the line where the 8254's was. */
FN vmi_time_init
	movb $PIT_CHANNEL0_MODE5, %al
	outb %al, $PIT_CONTROL
	xorl %eax, %eax
	movl $timer_interrupt, %edx
	call request_irq
	pushl $0			/* period, high word */
	call VMI(GET_CYCLE_FREQUENCY)
	movl $HZ, %ecx
	call divide
	pushl %eax			/* low word */
	movl $COUNTER_REAL, %eax
	call VMI(GET_CYCLE_COUNTER)
	movl %edx, %ecx
	movl %eax, %edx
	movl $ALARM_PERIODIC, %eax
	call VMI(SET_ALARM)
	addl $8, %esp
	ret

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
