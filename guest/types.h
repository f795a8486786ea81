/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fixed-width types and the few compiler helpers that everything uses. */
#ifndef TYPES_H
#define TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef u32 size_t;
typedef _Bool bool;

#define true 1
#define false 0
#define NULL ((void *)0)

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define offsetof(type, member) __builtin_offsetof(type, member)
#define barrier() __asm__ volatile("" ::: "memory")
#define min(a, b) ({ __typeof__(a) a_min = (a), b_min = (b); a_min < b_min ? a_min : b_min; })
#define max(a, b) ({ __typeof__(a) a_max = (a), b_max = (b); a_max > b_max ? a_max : b_max; })

#define aligned(n) __attribute__((aligned(n)))
#define section(name) __attribute__((section(name)))
#define packed __attribute__((packed))
#define noreturn __attribute__((noreturn))
#define format_printf(f, a) __attribute__((format(printf, f, a)))

#endif
