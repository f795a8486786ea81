/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Numbers of the words of struct paravirt_ops, data words included. A number is also the `type` of a call site.
 * Ref: Linux 2.6.23, include/asm-i386/paravirt.h, with PAE, local APIC and HIGHPTE: 93 words.
 */
#ifndef OPS_H
#define OPS_H

#define PV_KERNEL_RPL 0
#define PV_SHARED_KERNEL_PMD 1
#define PV_PARAVIRT_ENABLED 2
#define PV_NAME 3
#define PV_PATCH 4
#define PV_ARCH_SETUP 5
#define PV_MEMORY_SETUP 6
#define PV_POST_ALLOCATOR_INIT 7
#define PV_INIT_IRQ 8
#define PV_TIME_INIT 9
#define PV_PAGETABLE_SETUP_START 10
#define PV_PAGETABLE_SETUP_DONE 11
#define PV_BANNER 12
#define PV_GET_WALLCLOCK 13
#define PV_SET_WALLCLOCK 14
#define PV_CPUID 15
#define PV_GET_DEBUGREG 16
#define PV_SET_DEBUGREG 17
#define PV_CLTS 18
#define PV_READ_CR0 19
#define PV_WRITE_CR0 20
#define PV_READ_CR2 21
#define PV_WRITE_CR2 22
#define PV_READ_CR3 23
#define PV_WRITE_CR3 24
#define PV_READ_CR4_SAFE 25
#define PV_READ_CR4 26
#define PV_WRITE_CR4 27
#define PV_SAVE_FL 28
#define PV_RESTORE_FL 29
#define PV_IRQ_DISABLE 30
#define PV_IRQ_ENABLE 31
#define PV_SAFE_HALT 32
#define PV_HALT 33
#define PV_WBINVD 34
#define PV_READ_MSR 35
#define PV_WRITE_MSR 36
#define PV_READ_TSC 37
#define PV_READ_PMC 38
#define PV_SCHED_CLOCK 39
#define PV_GET_CPU_KHZ 40
#define PV_LOAD_TR_DESC 41
#define PV_LOAD_GDT 42
#define PV_LOAD_IDT 43
#define PV_STORE_GDT 44
#define PV_STORE_IDT 45
#define PV_SET_LDT 46
#define PV_STORE_TR 47
#define PV_LOAD_TLS 48
#define PV_WRITE_LDT_ENTRY 49
#define PV_WRITE_GDT_ENTRY 50
#define PV_WRITE_IDT_ENTRY 51
#define PV_LOAD_ESP0 52
#define PV_SET_IOPL_MASK 53
#define PV_IO_DELAY 54
#define PV_ACTIVATE_MM 55
#define PV_DUP_MMAP 56
#define PV_EXIT_MMAP 57
#define PV_APIC_WRITE 58
#define PV_APIC_WRITE_ATOMIC 59
#define PV_APIC_READ 60
#define PV_SETUP_BOOT_CLOCK 61
#define PV_SETUP_SECONDARY_CLOCK 62
#define PV_STARTUP_IPI_HOOK 63
#define PV_FLUSH_TLB_USER 64
#define PV_FLUSH_TLB_KERNEL 65
#define PV_FLUSH_TLB_SINGLE 66
#define PV_FLUSH_TLB_OTHERS 67
#define PV_ALLOC_PT 68
#define PV_ALLOC_PD 69
#define PV_ALLOC_PD_CLONE 70
#define PV_RELEASE_PT 71
#define PV_RELEASE_PD 72
#define PV_SET_PTE 73
#define PV_SET_PTE_AT 74
#define PV_SET_PMD 75
#define PV_PTE_UPDATE 76
#define PV_PTE_UPDATE_DEFER 77
#define PV_KMAP_ATOMIC_PTE 78
#define PV_SET_PTE_ATOMIC 79
#define PV_SET_PTE_PRESENT 80
#define PV_SET_PUD 81
#define PV_PTE_CLEAR 82
#define PV_PMD_CLEAR 83
#define PV_PTE_VAL 84
#define PV_PMD_VAL 85
#define PV_PGD_VAL 86
#define PV_MAKE_PTE 87
#define PV_MAKE_PMD 88
#define PV_MAKE_PGD 89
#define PV_SET_LAZY_MODE 90
#define PV_IRQ_ENABLE_SYSEXIT 91
#define PV_IRET 92
#define PV_WORDS 93

/* Registers that a call site may destroy. */
#define CLBR_NONE 0
#define CLBR_EAX 1
#define CLBR_ECX 2
#define CLBR_EDX 4
#define CLBR_ANY 7

#endif
