/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first program. It tests the kernel from user mode, leaves one child behind that sleeps for ever, so that
 * more than one address space is alive at the end, and exits with 0 if every test passed.
 */
#include "user.h"

#define AT_SYSINFO 32

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

static bool is(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

static void leave_a_child(void)
{
	if (!fork())
		for (;;)
			pause();
	sched_yield();
}

/* argv, NULL, the environment, NULL, pairs of key and value. */
static u32 auxiliary(char **argv, u32 key)
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
	if (argc > 1 && is(argv[1], "child"))	/* what the exec test runs */
		return getpid() > 1 ? 42 : 1;
	if (argc < 2) {
		test_processes();
		test_memory();
		test_faults();
		test_segments();
		test_fpu();
	}
	leave_a_child();
	return failures != 0;
}
