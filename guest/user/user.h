/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a user program may use. */
#ifndef USER_H
#define USER_H

#include "types.h"

#define EBADADDR 14 /* EFAULT */
#define SIGILL 4
#define SIGFPE 8
#define SIGKILL 9
#define SIGUSR1 10
#define SIGSEGV 11
#define SIGPIPE 13
#define AT_SYSINFO 32
#define AT_SYSINFO_EHDR 33
#define PROT_READ 1
#define PROT_WRITE 2
#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20

/* What a handler gets: the signal, and with SA_SIGINFO words about it and the registers, which it may change. */
typedef void (*handler)(u32 signal, const u32 *info, u32 *context);
#define SIG_DFL 0
#define SIG_IGN 1
#define SA_SIGINFO 4
#define SA_RESTART 0x10000000
#define INFO_ADDRESS 3
enum { CONTEXT_GS = 5, CONTEXT_FS, CONTEXT_EIP = 19, CONTEXT_CS, CONTEXT_EFLAGS, CONTEXT_SS = 23, CONTEXT_FPU };

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
static inline s32 read(u32 fd, void *to, u32 length) { return syscall3(3, fd, (u32)to, length); }
static inline s32 write(u32 fd, const void *text, u32 length) { return syscall3(4, fd, (u32)text, length); }
static inline s32 close(u32 fd) { return syscall3(6, fd, 0, 0); }
static inline s32 waitpid(s32 pid, u32 *status, u32 options) { return syscall3(7, (u32)pid, (u32)status, options); }
static inline s32 execve(const char *path, const char *const *argv) { return syscall3(11, (u32)path, (u32)argv, 0); }
static inline s32 time(u32 *to) { return syscall3(13, (u32)to, 0, 0); }
static inline s32 getpid(void) { return syscall3(20, 0, 0, 0); }
static inline s32 pause(void) { return syscall3(29, 0, 0, 0); }
static inline s32 kill(s32 pid, u32 signal) { return syscall3(37, (u32)pid, signal, 0); }
static inline s32 pipe(u32 *fds) { return syscall3(42, (u32)fds, 0, 0); }
static inline s32 brk(u32 address) { return syscall3(45, address, 0, 0); }
static inline s32 dup2(u32 from, u32 to) { return syscall3(63, from, to, 0); }
static inline s32 getppid(void) { return syscall3(64, 0, 0, 0); }
/* An address, or -errno. */
static inline void *mmap(volatile void *at, u32 length, u32 prot, u32 flags)
{
	const u32 arguments[6] = { (u32)at, length, prot, flags, 0xffffffff, 0 };

	return (void *)syscall3(90, (u32)arguments, 0, 0);
}
static inline s32 munmap(volatile void *at, u32 length) { return syscall3(91, (u32)at, length, 0); }
static inline s32 iopl(u32 level) { return syscall3(110, level, 0, 0); }
static inline s32 modify_ldt(void *desc, u32 size) { return syscall3(123, 17, (u32)desc, size); }
static inline s32 mprotect(volatile void *at, u32 length, u32 prot) { return syscall3(125, (u32)at, length, prot); }
static inline s32 sched_yield(void) { return syscall3(158, 0, 0, 0); }
static inline s32 nanosleep(const u32 *time) { return syscall3(162, (u32)time, 0, 0); }
static inline s32 set_thread_area(void *desc) { return syscall3(243, (u32)desc, 0, 0); }

/* The old call without SA_SIGINFO, the new one with it: both frames are in use. */
s32 set_handler(u32 signal, handler function, u32 flags);
/* On the console, as it is. */
void print(const char *text);
bool same(const char *a, const char *b);
/* A value of the auxiliary vector, 0 if it is not there. */
u32 auxiliary(char **argv, u32 key);

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
void test_signals(void);
void test_pipes(void);
void test_mappings(void);
void test_vdso(char **argv);

/* The program /bench. Its exit status. */
int bench_main(void);

#endif
