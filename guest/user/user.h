/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a user program may use. */
#ifndef USER_H
#define USER_H

#include "types.h"

#define EBADADDR 14 /* EFAULT */
#define SIGILL 4
#define SIGFPE 8
#define SIGKILL 9
#define SIGSEGV 11

static inline s32 syscall3(u32 number, u32 a, u32 b, u32 c)
{
	s32 result;

	__asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

/* The same through the platform's fastest way. */
extern u32 vsyscall;
static inline s32 vsyscall3(u32 number, u32 a, u32 b, u32 c)
{
	s32 result;

	__asm__ volatile("call *vsyscall" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c) : "memory");
	return result;
}

static inline void exit(u32 code) { syscall3(1, code, 0, 0); }
static inline s32 fork(void) { return syscall3(2, 0, 0, 0); }
static inline s32 write(u32 fd, const void *text, u32 length) { return syscall3(4, fd, (u32)text, length); }
static inline s32 waitpid(s32 pid, u32 *status, u32 options) { return syscall3(7, (u32)pid, (u32)status, options); }
static inline s32 execve(const char *path, const char *const *argv) { return syscall3(11, (u32)path, (u32)argv, 0); }
static inline s32 time(u32 *to) { return syscall3(13, (u32)to, 0, 0); }
static inline s32 getpid(void) { return syscall3(20, 0, 0, 0); }
static inline s32 pause(void) { return syscall3(29, 0, 0, 0); }
static inline s32 kill(s32 pid, u32 signal) { return syscall3(37, (u32)pid, signal, 0); }
static inline s32 brk(u32 address) { return syscall3(45, address, 0, 0); }
static inline s32 getppid(void) { return syscall3(64, 0, 0, 0); }
static inline s32 iopl(u32 level) { return syscall3(110, level, 0, 0); }
static inline s32 modify_ldt(void *desc, u32 size) { return syscall3(123, 17, (u32)desc, size); }
static inline s32 sched_yield(void) { return syscall3(158, 0, 0, 0); }
static inline s32 nanosleep(const u32 *time) { return syscall3(162, (u32)time, 0, 0); }
static inline s32 set_thread_area(void *desc) { return syscall3(243, (u32)desc, 0, 0); }

/* Tell the kernel of one wrong value; it prints it and remembers. */
void check(const char *name, u32 got, u32 expected);
/* The end of a test: passed if nothing was wrong since the last one. */
void passed(const char *name);
/* Run `function` in a child and return its wait status. */
u32 status_of(void (*function)(void));
void sleep_ms(u32 ms);

extern u32 failures;

void test_processes(void);
void test_memory(void);
void test_faults(void);
void test_segments(void);
void test_fpu(void);

#endif
