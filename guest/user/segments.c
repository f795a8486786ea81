/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Segments of a process's own: TLS in the GDT, the LDT, and a stack segment that vanishes under it. */
#include "user.h"

struct user_desc {
	u32 entry_number, base, limit, flags;
};
#define SEG_32BIT 1
#define LIMIT_IN_PAGES (1 << 4)
#define USEABLE (1 << 6)
#define READ_ONLY (1 << 3)
#define NOT_PRESENT (1 << 5)
#define EMPTY (READ_ONLY | NOT_PRESENT)

static u32 words[2] = { 0x11111111, 0x22222222 };

static u32 read_gs(void)
{
	u32 value;

	__asm__ volatile("movl %%gs:0, %0" : "=r"(value));
	return value;
}

static s32 set_gs_base(const void *base)
{
	struct user_desc desc = { 6, (u32)base, 0xfffff, SEG_32BIT | LIMIT_IN_PAGES | USEABLE };
	s32 error = set_thread_area(&desc);

	if (!error)
		__asm__ volatile("movl %0, %%gs" : : "r"(6 * 8 + 3));
	return error;
}

static s32 set_ldt_entry(u32 entry, const void *base, u32 flags)
{
	struct user_desc desc = { entry, (u32)base, flags == EMPTY ? 0 : 0xfffff, flags };

	return modify_ldt(&desc, sizeof(desc));
}

/* The child has another base in the same descriptor; both must find their own after every switch. */
static void other_base(void)
{
	u32 i, wrong = 0;

	set_gs_base(&words[1]);
	for (i = 0; i < 20; i++) {
		wrong += read_gs() != words[1];
		sched_yield();
	}
	exit(wrong);
}

static void test_tls(void)
{
	struct user_desc any = { 0xffffffff, (u32)&words[1], 0xfffff, SEG_32BIT | LIMIT_IN_PAGES | USEABLE };
	struct user_desc bad = { 20, 0, 0xfffff, SEG_32BIT };
	u32 i, wrong = 0, status = 0xffffffff;
	s32 child;

	check("tls: set", (u32)set_gs_base(&words[0]), 0);
	check("tls: read", read_gs(), words[0]);
	child = fork();
	if (!child)
		other_base();
	for (i = 0; i < 20; i++) {
		wrong += read_gs() != words[0];
		sched_yield();
	}
	waitpid(child, &status, 0);
	check("tls: switches", wrong + status, 0);
	check("tls: any entry", (u32)set_thread_area(&any) + any.entry_number, 7);
	check("tls: bad entry", (u32)set_thread_area(&bad), (u32)-22);
	passed("tls");
	__asm__ volatile("movl %0, %%gs" : : "r"(0));
}

static u32 read_ldt_1(void)
{
	u32 value, zero = 0;

	__asm__ volatile("movl %1, %%fs\n\tmovl %%fs:0, %0\n\tmovl %2, %%fs" : "=&r"(value) : "r"(1 * 8 + 7), "r"(zero));
	return value;
}

static void child_ldt(void)
{
	if (read_ldt_1() != words[0])	/* fork has copied it */
		exit(1);
	if (set_ldt_entry(1, &words[1], SEG_32BIT | LIMIT_IN_PAGES | USEABLE))
		exit(2);
	sched_yield();
	exit(read_ldt_1() == words[1] ? 6 : 3);
}

static void use_empty_ldt(void)
{
	set_ldt_entry(1, 0, EMPTY);
	read_ldt_1();
}

static void lose_stack_segment(void)
{
	if (set_ldt_entry(2, 0, SEG_32BIT | LIMIT_IN_PAGES | USEABLE))
		exit(1);
	__asm__ volatile("movl %0, %%ss" : : "r"(2 * 8 + 7));
	set_ldt_entry(2, 0, EMPTY);	/* the return from this call cannot load SS */
	exit(2);
}

static void test_ldt(void)
{
	u32 table[4] = { 0 };

	check("ldt: write", (u32)set_ldt_entry(1, &words[0], SEG_32BIT | LIMIT_IN_PAGES | USEABLE), 0);
	check("ldt: read", read_ldt_1(), words[0]);
	check("ldt: read back", (u32)syscall3(123, 0, (u32)table, sizeof(table)), sizeof(table));
	check("ldt: the entry", table[3] & 0x00f0fe00, 0x00d0f200);	/* what it can do; its base is an address */
	check("ldt: after fork", status_of(child_ldt), 6 << 8);
	check("ldt: parent's own", read_ldt_1(), words[0]);
	check("ldt: empty entry", status_of(use_empty_ldt), SIGSEGV);
	passed("ldt");
	check("iret fails", status_of(lose_stack_segment), SIGSEGV);
	passed("bad return frame");
}

void test_segments(void)
{
	test_tls();
	test_ldt();
}
