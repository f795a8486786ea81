/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first program. As /init it tests the kernel from user mode, leaves one child behind that sleeps for ever, so
 * that more than one address space is alive at the end, and exits with 0 if every test passed. As /bench it measures.
 */
#include "user.h"

int main(int argc, char **argv);
u32 failures, vsyscall;
static u32 failures_before;

void check(const char *name, u32 got, u32 expected)
{
	if (got == expected)
		return;
	failures++;
	syscall3(400, (u32)name, got, expected);
}

void passed(const char *name)
{
	if (failures == failures_before)
		syscall3(400, (u32)name, 0, 0);
	failures_before = failures;
}

u32 status_of(void (*function)(void))
{
	u32 status = 0xffffffff;
	s32 pid = fork();

	if (!pid) {
		function();
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		return 0xffffffff;
	return status;
}

void sleep_ms(u32 ms)
{
	u32 request[2] = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(request);
}

void print(const char *text)
{
	u32 length = 0;

	while (text[length])
		length++;
	write(1, text, length);
}

bool same(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

s32 set_handler(u32 signal, handler function, u32 flags)
{
	const u32 old[4] = { (u32)function, 0, flags, 0 }, new[5] = { (u32)function, flags, 0, 0, 0 };
	s32 result;

	if (!(flags & SA_SIGINFO))
		return syscall3(67, signal, (u32)old, 0);
	__asm__ volatile("int $0x80" : "=a"(result) : "0"(174), "b"(signal), "c"(new), "d"(0), "S"(8) : "memory");
	return result;
}

static void leave_a_child(void)
{
	if (!fork())
		for (;;)
			pause();
	sched_yield();
}

/* argv, NULL, the environment, NULL, pairs of key and value. */
u32 auxiliary(char **argv, u32 key)
{
	u32 *word = (u32 *)argv;

	while (*word++)
		;
	while (*word++)
		;
	for (; *word; word += 2)
		if (*word == key)
			return word[1];
	return 0;
}

int main(int argc, char **argv)
{
	vsyscall = auxiliary(argv, AT_SYSINFO);
	if (same(argv[0], "/bench"))
		return bench_main();
	if (argc > 1 && same(argv[1], "child"))	/* what the exec test runs */
		return getpid() > 1 ? 42 : 1;
	if (argc < 2) {
		test_processes();
		test_memory();
		test_faults();
		test_segments();
		test_fpu();
		test_signals();
		test_pipes();
		test_mappings();
		test_vdso(argv);
	}
	vsyscall = 0;	/* the platform's: pages that are compared hold no such address */
	leave_a_child();
	return failures != 0;
}
