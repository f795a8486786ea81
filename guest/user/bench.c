/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel's services cost: a line for each, with the number of operations and the time of one by the
 * kernel's clock. That is virtual time, so a line is the same in every run of one command.
 * Ref: L. McVoy, C. Staelin, "lmbench: Portable Tools for Performance Analysis", USENIX 1996 (what is measured).
 */
#include "user.h"

#define PAGE 4096
#define CLOCK_MONOTONIC 1
#define MAP_SIZE 0x10000
#define MAP_STEP 0x4000	/* every fourth page is touched */

static u64 now(void)
{
	u32 time[2] = { 0, 0 };

	syscall3(265, CLOCK_MONOTONIC, (u32)time, 0);
	return (u64)time[0] * 1000000000u + time[1];
}

/* The quotient fits in 32 bits: no operation takes four seconds. */
static u32 divide(u64 value, u32 divisor)
{
	u32 quotient = (u32)value, rest = (u32)(value >> 32);

	__asm__("divl %2" : "+a"(quotient), "+d"(rest) : "r"(divisor));
	return quotient;
}

static void print_number(u32 number)
{
	char digits[11];
	u32 at = sizeof(digits) - 1;

	digits[at] = 0;
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	print(digits + at);
}

/*
 * A line is printed in two halves, one before the operations and one behind them: who watches the console can
 * read the host's counters at both. What lies between them beside the operations is the same for all of them.
 */
static void begin(const char *name, u32 operations)
{
	sleep_ms(1);	/* behind a tick, so that as many come while it runs whatever ran before */
	print("bench: ");
	print(name);
	print(" ");
	print_number(operations);
	print(" operations");
}

static void end(u32 each)
{
	print(" took ");
	print_number(each);
	print(" ns each\n");
}

static void bench(const char *name, void (*function)(u32), u32 operations)
{
	u64 start;

	function(1);	/* what only the first one pays is not asked for */
	begin(name, operations);
	start = now();
	function(operations);
	end(divide(now() - start, operations));
}

static void nothing_at_all(u32 n) { (void)n; }

static void null_calls(u32 n)
{
	while (n--)
		getppid();
}

static void fast_null_calls(u32 n)
{
	while (n--)
		vsyscall3(64, 0, 0, 0);
}

static void nothing(u32 signal, const u32 *info, u32 *context) { (void)signal, (void)info, (void)context; }

static void signals(u32 n)
{
	s32 self = getpid();

	set_handler(SIGUSR1, nothing, 0);
	while (n--)
		kill(self, SIGUSR1);
}

static void forks(u32 n)
{
	while (n--) {
		s32 child = fork();

		if (!child)
			exit(0);
		waitpid(child, 0, 0);
	}
}

static void execs(u32 n)
{
	static const char *const arguments[] = { "/true", 0 };

	while (n--) {
		s32 child = fork();

		if (!child) {
			execve("/true", arguments);
			exit(1);
		}
		waitpid(child, 0, 0);
	}
}

static void page_faults(u32 n)
{
	volatile u8 *area = mmap(0, n * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	u32 i;

	for (i = 0; i < n; i++)
		area[i * PAGE] = 1;
	munmap(area, n * PAGE);
}

/* The store fails again after each return of the handler; the last time the handler goes on behind it. */
static volatile u32 faults_left;
static void at_fault(u32 signal, const u32 *info, u32 *context)
{
	(void)signal, (void)info;
	if (!--faults_left)
		context[CONTEXT_EIP] += 2;
}

static void protection_faults(u32 n)
{
	void *page = mmap(0, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS);

	faults_left = n;
	set_handler(SIGSEGV, at_fault, SA_SIGINFO);
	__asm__ volatile("movl %%ecx, (%%eax)" : : "a"(page), "c"(0) : "memory");
	set_handler(SIGSEGV, (handler)SIG_DFL, 0);
	munmap(page, PAGE);
}

static void maps(u32 n)
{
	while (n--) {
		volatile u8 *area = mmap(0, MAP_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
		u32 at;

		for (at = 0; at < MAP_SIZE; at += MAP_STEP)
			area[at] = 1;
		munmap(area, MAP_SIZE);
	}
}

/* New rights for 512 pages, all of which are there: the entries of one page table. */
#define PROTECT_AT 0x60000000
#define PROTECT_SIZE 0x200000

static void protections(u32 n)
{
	volatile u8 *area = (volatile u8 *)PROTECT_AT;

	while (n--)
		mprotect(area, PROTECT_SIZE, n & 1 ? PROT_READ : PROT_READ | PROT_WRITE);
}

static void bench_mprotect(u32 n)
{
	volatile u8 *area = mmap((void *)PROTECT_AT, PROTECT_SIZE, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED);
	u64 start;
	u32 at;

	for (at = 0; at < PROTECT_SIZE; at += PAGE)
		area[at] = 1;
	protections(1);
	begin("mprotect", n);
	start = now();
	protections(n);
	end(divide(now() - start, n));
	munmap(area, PROTECT_SIZE);
}

static u32 to[2], from[2];

static void round_trips(u32 n)
{
	u32 token = 0;

	while (n--) {
		write(to[1], &token, 4);
		read(from[0], &token, 4);
	}
}

/* The same calls without another process. */
static void own_trips(u32 n)
{
	u32 token = 0;

	while (n--) {
		write(from[1], &token, 4);
		read(from[0], &token, 4);
	}
}

/*
 * A token goes to and fro between two processes that do nothing else. A round trip is two switches and two pairs
 * of calls, so a switch is half of it without one pair.
 */
static void bench_pipes(u32 n)
{
	u32 token, trip, pair;
	u64 start;
	s32 child;

	pipe(to);
	pipe(from);
	child = fork();
	if (!child) {
		close(to[1]);
		while (read(to[0], &token, 4) == 4)
			write(from[1], &token, 4);
		exit(0);
	}
	round_trips(1);
	begin("pipe latency", n);
	start = now();
	round_trips(n);
	end(trip = divide(now() - start, n));
	own_trips(1);
	begin("pipe without a switch", n);
	start = now();
	own_trips(n);
	end(pair = divide(now() - start, n));
	begin("context switch", 2 * n);
	end(trip / 2 > pair ? trip / 2 - pair : 0);
	close(to[1]);
	waitpid(child, 0, 0);
}

int bench_main(void)
{
	bench("nothing", nothing_at_all, 1);
	bench("null syscall", null_calls, 10000);
	bench("null syscall (vdso)", fast_null_calls, 10000);
	bench("signal", signals, 1000);
	bench("fork", forks, 50);
	bench("fork+exec", execs, 50);
	bench_pipes(1000);
	bench("page fault", page_faults, 1000);
	bench("protection fault", protection_faults, 1000);
	bench("mmap", maps, 200);
	bench_mprotect(20);
	return 0;
}
