/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory of a process: copies after fork, the heap, the stack. */
#include "user.h"

#define PAGE 4096

static volatile u32 shared_word = 1, child_view;
static volatile u32 zeroed[3000];

static void write_words(void)
{
	child_view = shared_word;
	shared_word = 2;
	exit(child_view == 1 && shared_word == 2 ? 1 : 2);
}

/* The parent writes first, then the child reads what it must still find. */
static void read_late(void)
{
	sleep_ms(5);
	exit(shared_word == 3 ? 1 : 2);
}

static u32 use_stack(u32 depth)
{
	volatile u8 room[PAGE];

	room[0] = (u8)depth;
	room[PAGE - 1] = 1;
	return depth ? use_stack(depth - 1) + room[PAGE - 1] : room[PAGE - 1];
}

static u32 sum(volatile u32 *words, u32 n)
{
	u32 total = 0;

	while (n--)
		total += *words++;
	return total;
}

static void test_brk(void)
{
	u32 start = (u32)brk(0), pages = 40, i;
	volatile u32 *heap = (volatile u32 *)start;

	check("brk: grow", (u32)brk(start + pages * PAGE), start + pages * PAGE);
	for (i = 0; i < pages; i++)
		heap[i * PAGE / 4] = i + 1;
	check("heap: contents", sum(heap, pages * PAGE / 4), pages * (pages + 1) / 2);
	check("brk: shrink", (u32)brk(start + PAGE), start + PAGE);
	check("brk: grow again", (u32)brk(start + 8 * PAGE), start + 8 * PAGE);
	check("heap: fresh pages", sum(heap, 8 * PAGE / 4), 1);
	check("brk: refused", (u32)brk(0xd0000000), start + 8 * PAGE);
	for (i = 0; i < 8 * PAGE / 4; i++)
		heap[i] = i * 2654435761u;	/* the end state compares the heap's contents */
	passed("heap");
}

void test_memory(void)
{
	u32 status = 0;
	s32 child;

	check("bss is zero", sum(zeroed, 3000), 0);
	check("fork: child writes", status_of(write_words), 1 << 8);
	check("fork: parent's copy", shared_word, 1);
	shared_word = 3;
	child = fork();
	if (!child)
		read_late();
	shared_word = 4;
	waitpid(child, &status, 0);
	check("fork: child's copy", status, 1 << 8);
	passed("copy on write");
	check("stack", use_stack(10), 11);
	passed("stack");
	test_brk();
}
