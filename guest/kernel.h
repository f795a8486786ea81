/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What any part of the kernel may use: strings, messages, ports, user memory, errors. */
#ifndef KERNEL_H
#define KERNEL_H

#include "paravirt.h"
#include "segment.h"
#include "types.h"

/* string.c, div64.c */
void *memcpy(void *to, const void *from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
char *strncpy_end(char *to, const char *from, size_t room);
u64 div64_32(u64 value, u32 divisor, u32 *remainder);

/* printk.c, console.c */
void printk(const char *format, ...) format_printf(1, 2);
int vsnprintf(char *buffer, size_t room, const char *format, __builtin_va_list arguments);
int snprintf(char *buffer, size_t room, const char *format, ...) format_printf(3, 4);
void console_write(const char *s, u32 length);
s32 console_read(char *buffer, u32 length);

/* oops.c */
struct pt_regs;
void panic(const char *format, ...) noreturn format_printf(1, 2);
void die(const char *what, struct pt_regs *regs, u32 error);
#define BUG_ON(condition) do { if (condition) panic("BUG at %s:%d", __FILE_NAME__, __LINE__); } while (0)

/* machine.c */
void machine_power_off(void) noreturn;
void machine_restart(void) noreturn;
void machine_halt(void) noreturn;
void debug_exit(u32 status) noreturn;

/* time.c */
#define HZ 1000
extern volatile u32 jiffies;
extern u32 tsc_khz;
void udelay(u32 microseconds);
u32 current_seconds(void);
void current_time(u32 clock, u32 time[2]);

/* selftest.c */
void selftest(const char *name, u32 got, u32 expected);
void kernel_selftests(void);
extern u32 selftest_failures;

/* end.c */
void end_block_message(const char *message, u32 eip);
void end_block_result(const char *name, u32 passed);
void end_block_process(u32 pid, u32 status, u32 exited);
void end_block_spaces(void);

/* main.c */
extern char command_line[];
bool command_line_has(const char *word);
extern u32 cpu_features;
#define FEATURE_TSC (1 << 4)
#define FEATURE_MSR (1 << 5)
#define FEATURE_SEP (1 << 11)
#define FEATURE_PGE (1 << 13)
#define FEATURE_FXSR (1 << 24)

#define EPERM 1
#define ENOENT 2
#define ESRCH 3
#define EINTR 4
#define ENOEXEC 8
#define EBADF 9
#define ECHILD 10
#define EAGAIN 11
#define ENOMEM 12
#define EFAULT 14
#define EINVAL 22
#define EMFILE 24
#define EPIPE 32
#define ENOSYS 38
#define ERESTARTSYS 512 /* never reaches user mode: begin the call again, or -EINTR */

static inline void outb(u8 value, u16 port) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }
static inline void outw(u16 value, u16 port) { __asm__ volatile("outw %0, %1" : : "a"(value), "Nd"(port)); }
static inline u8 inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}
/* For devices of ISA speed. */
static inline void outb_p(u8 value, u16 port)
{
	outb(value, port);
	io_delay();
}
static inline u8 inb_p(u16 port)
{
	u8 value = inb(port);

	io_delay();
	return value;
}
static inline void cpu_relax(void) { __asm__ volatile("rep; nop" : : : "memory"); }

#endif
