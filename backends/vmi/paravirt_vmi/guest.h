/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers that the guest side needs: the ROM's header, calls, page flags, and what the kernel's structures have where.
 * Ref: VMI 3.0 as Linux 2.6.23 has it (include/asm-i386/vmi.h); the reference kernel's guest/ops.h, segment.h, sched.h
 */
#ifndef VMI_GUEST_H
#define VMI_GUEST_H

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

#endif
