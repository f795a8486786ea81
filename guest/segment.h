/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Selectors and addresses that C and assembly share.
 * Ref: the GDT of Linux 2.6.23 on i386 (include/asm-i386/segment.h): hypervisors and VMI ROMs know these numbers.
 */
#ifndef SEGMENT_H
#define SEGMENT_H

#define GDT_ENTRIES 32
#define GDT_ENTRY_TLS_MIN 6
#define GDT_ENTRY_TLS_MAX 8
#define GDT_ENTRY_KERNEL_CS 12
#define GDT_ENTRY_KERNEL_DS 13
#define GDT_ENTRY_USER_CS 14
#define GDT_ENTRY_USER_DS 15
#define GDT_ENTRY_TSS 16
#define GDT_ENTRY_LDT 17
#define GDT_ENTRY_TEST 28 /* free in Linux's layout; the self-test borrows it */
#define GDT_ENTRY_DOUBLEFAULT_TSS 31

#define __KERNEL_CS 0x60
#define __KERNEL_DS 0x68
#define __USER_CS 0x73
#define __USER_DS 0x7b
#define TSS_SELECTOR 0x80
#define LDT_SELECTOR 0x88
#define DOUBLEFAULT_SELECTOR 0xf8

#define PAGE_SHIFT 12
#define PAGE_SIZE 4096
#define PAGE_OFFSET 0xC0000000
#define THREAD_SIZE 8192

#define X86_EFLAGS_IF 0x200

#endif
