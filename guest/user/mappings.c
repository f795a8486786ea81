/* SPDX-License-Identifier: GPL-2.0-or-later */
/* mmap, munmap, mprotect: what may be touched, what is kept, and what a fork shares meanwhile. */
#include "user.h"

#define PAGE 4096
#define PAGES 16

static volatile u32 *area;

static volatile u32 *page(u32 n) { return area + n * (PAGE / 4); }
static void write_5(void) { *page(5) = 1; }
static void read_5(void) { (void)*page(5); }
static void read_8(void) { (void)*page(8); }
static void write_2(void)
{
	*page(2) = 99;
	exit(*page(2) == 99 ? 3 : 4);
}

/* The child takes the page's rights away and gives them back: it must still not write to its parent's page. */
static void protect_shared(void)
{
	u32 error = (u32)mprotect(page(3), PAGE, PROT_READ) | (u32)mprotect(page(3), PAGE, PROT_READ | PROT_WRITE);

	*page(3) = 77;
	exit(error ? 1 : *page(3) == 77 ? 3 : 4);
}

/* The new call, with its arguments in registers. */
static s32 mmap2(u32 at, u32 length)
{
	s32 result;

	__asm__ volatile("int $0x80" : "=a"(result) : "0"(192), "b"(at), "c"(length), "d"(PROT_READ | PROT_WRITE),
			 "S"(MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED) : "memory");
	return result;
}

static void test_mmap(void)
{
	u32 i, sum = 0;

	area = mmap(0, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
	check("mmap", (u32)area % PAGE || (u32)area < 0x10000 || (u32)area >= 0xc0000000, 0);
	for (i = 0; i < PAGES; i++) {
		sum += *page(i);
		*page(i) = i + 1;
	}
	check("mmap: zero", sum, 0);
	check("munmap", (u32)munmap(page(8), 2 * PAGE), 0);
	check("munmap: hole", status_of(read_8), SIGSEGV);
	for (i = sum = 0; i < PAGES; i++)
		sum += i == 8 || i == 9 ? 0 : *page(i);
	check("munmap: the rest", sum, PAGES * (PAGES + 1) / 2 - 9 - 10);
	check("mmap: the lowest gap", (u32)mmap(0, 2 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), (u32)page(8));
	check("mmap: fresh", *page(8), 0);
	check("mmap: fixed", (u32)mmap(page(9), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED),
	      (u32)page(9));
	check("mmap2", (u32)mmap2((u32)page(10), PAGE), (u32)page(10));
	check("mmap2: fresh", *page(10), 0);
	*page(10) = 11;
	check("mmap: bad flags", (u32)mmap(0, PAGE, PROT_READ, MAP_ANONYMOUS), (u32)-22);
	check("mmap: too large", (u32)mmap(0, 0xfffff000, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS), (u32)-22);
	check("munmap: odd address", (u32)munmap(area + 1, PAGE), (u32)-22);
	passed("mmap");
}

static void test_mprotect(void)
{
	check("mprotect: read only", (u32)mprotect(page(5), PAGE, PROT_READ), 0);
	check("mprotect: write", status_of(write_5), SIGSEGV);
	check("mprotect: kernel's write", (u32)time((u32 *)page(5)), (u32)-EBADADDR);
	check("mprotect: read", *page(5), 6);
	check("mprotect: none", (u32)mprotect(page(5), PAGE, 0), 0);
	check("mprotect: read of none", status_of(read_5), SIGSEGV);
	check("mprotect: kernel's read", (u32)write(1, (void *)page(5), 4), (u32)-EBADADDR);
	check("mprotect: all again", (u32)mprotect(page(5), PAGE, PROT_READ | PROT_WRITE), 0);
	check("mprotect: kept", *page(5), 6);
	*page(5) = 66;
	check("mprotect: written", *page(5), 66);
	check("mprotect: shared", status_of(protect_shared), 3 << 8);
	check("mprotect: parent's page", *page(3), 4);
	check("fork: mapped page", status_of(write_2), 3 << 8);
	check("fork: parent's mapped page", *page(2), 3);
	check("mprotect: hole", (u32)mprotect((void *)0x30000000, PAGE, PROT_READ), (u32)-12);
	passed("mprotect");
}

/* A few pages with different rights stay behind for the end state. */
void test_mappings(void)
{
	test_mmap();
	test_mprotect();
	check("munmap: many", (u32)munmap(page(4), (PAGES - 4) * PAGE), 0);
	check("mprotect: last", (u32)mprotect(page(1), PAGE, PROT_READ), 0);
	passed("munmap");
}
