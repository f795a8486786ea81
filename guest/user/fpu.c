/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The FPU's registers belong to the process that loaded them, although they are switched only on demand. */
#include "user.h"

/* Keep a number on the FPU's stack over many switches; whether it is still there. */
static u32 keep(u32 number)
{
	u32 result = 0, i;

	__asm__ volatile("fninit\n\tfildl %0" : : "m"(number));
	for (i = 0; i < 10; i++)
		sched_yield();
	__asm__ volatile("fistpl %0" : "=m"(result));
	return result;
}

static void keep_77(void) { exit(keep(77) == 77 ? 1 : 2); }

/* A child starts with its parent's registers. */
static void take_over(void)
{
	u32 result;

	__asm__ volatile("fistpl %0" : "=m"(result));
	exit(result == 1234 ? 1 : 2);
}

static void divide_by_zero(void)
{
	u16 control = 0x037b;	/* the zero-divide exception is not masked */

	__asm__ volatile("fninit\n\tfldcw %0\n\tfld1\n\tfldz\n\tfdivrp\n\tfwait" : : "m"(control));
}

void test_fpu(void)
{
	u32 status = 0, number = 1234;
	s32 child = fork();

	if (!child)
		keep_77();
	check("fpu: parent's register", keep(55), 55);
	waitpid(child, &status, 0);
	check("fpu: child's register", status, 1 << 8);
	__asm__ volatile("fninit\n\tfildl %0" : : "m"(number));
	check("fpu: copied by fork", status_of(take_over), 1 << 8);
	__asm__ volatile("fninit");
	check("fpu: divide by zero", status_of(divide_by_zero), SIGFPE);
	passed("fpu");
}
