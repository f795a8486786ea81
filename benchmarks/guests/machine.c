/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page tables and traps of the benchmark guest, and the round trips that are measured through them.
 *
 * PAE tables map 128 MiB one to one by 4 KiB pages, open to ring 3. Handlers are C functions behind saved registers,
 * as a kernel's are.
 *
 * Ref: Intel SDM vol. 3A, 4.4 (PAE paging), 6.11 (IDT descriptors); vol. 4, table 2-2 (SYSENTER MSRs).
 */

#include "guest.h"

#define PAGE		4096u
#define PRESENT		1u
#define USER_WRITE	6u
#define CR4_PAE		0x20u
#define CR0_PG_WP	0x80010000u
#define MSR_SYSENTER_CS	0x174
#define KERNEL_CS	8
#define GATE_RING0	0x8e00u		/* 32-bit interrupt gates, present */
#define GATE_RING3	0xee00u
#define UNDEFINED	6
#define PAGE_FAULT	14
#define SYSCALL		0x80
#define FAULT_PAGES	256u
#define POST_PORT	0x80
#define LINE_STATUS	0x3fd
#define TABLES		(RAM_END / PAGE)

struct gate {
	u16 low, selector, type, high;
};

struct gate idt[256];
static u64 tables[TABLES] __attribute__((aligned(4096)));
static u64 directory[512] __attribute__((aligned(4096)));
static u64 roots[2][4] __attribute__((aligned(32)));
static volatile u32 events;
static u32 mapped;	/* the one present page of the fault area, 0 for none */

extern char trap_syscall[], trap_undefined[], trap_page_fault[], trap_unexpected[], entry_sysenter[];
extern char trap_stack_top[];
void user_syscall(void), user_undefined(void), user_page_fault(void), user_sysenter(void);
void load_tables(void);

static void load_cr3(const u64 *root)
{
	__asm__ volatile("movl %0, %%cr3" : : "r"(root) : "memory");
}

static void write_msr(u32 number, u32 value)
{
	__asm__ volatile("wrmsr" : : "c"(number), "a"(value), "d"(0));
}

void paging_init(void)
{
	for (u32 i = 0; i < TABLES; i++)
		tables[i] = (u64)(i * PAGE) | USER_WRITE | PRESENT;
	for (u32 i = 0; i < TABLES / 512; i++)
		directory[i] = (u64)(u32)&tables[i * 512] | USER_WRITE | PRESENT;
	for (u32 i = 0; i < FAULT_PAGES; i++)
		tables[FAULT_AREA / PAGE + i] &= ~(u64)PRESENT;
	roots[0][0] = roots[1][0] = (u64)(u32)directory | PRESENT;
	load_cr3(roots[0]);
	__asm__ volatile("movl %%cr4, %%eax; orl %0, %%eax; movl %%eax, %%cr4" : : "i"(CR4_PAE) : "eax");
	__asm__ volatile("movl %%cr0, %%eax; orl %0, %%eax; movl %%eax, %%cr0" : : "i"(CR0_PG_WP) : "eax", "memory");
}

static void set_gate(u32 vector, const char *handler, u16 type)
{
	idt[vector] = (struct gate){ (u16)(u32)handler, KERNEL_CS, type, (u16)((u32)handler >> 16) };
}

void traps_init(void)
{
	for (u32 vector = 0; vector < 256; vector++)
		set_gate(vector, trap_unexpected, GATE_RING0);
	set_gate(UNDEFINED, trap_undefined, GATE_RING0);
	set_gate(PAGE_FAULT, trap_page_fault, GATE_RING0);
	set_gate(SYSCALL, trap_syscall, GATE_RING3);
	load_tables();
	write_msr(MSR_SYSENTER_CS, KERNEL_CS);
	write_msr(MSR_SYSENTER_CS + 1, (u32)trap_stack_top);
	write_msr(MSR_SYSENTER_CS + 2, (u32)entry_sysenter);
}

void on_syscall(void)
{
	events++;
}

void on_undefined(void)
{
	events++;
}

/* Map the page, and take away the one before: so each access of the loop faults. */
void on_page_fault(u32 address)
{
	u32 page = address & ~(PAGE - 1);

	if (page - FAULT_AREA >= FAULT_PAGES * PAGE) {
		console_write("page fault at ");
		console_hex(address);
		console_write("\n");
		quit(0x12);
	}
	tables[page / PAGE] |= PRESENT;
	if (mapped) {
		tables[mapped / PAGE] &= ~(u64)PRESENT;
		__asm__ volatile("invlpg (%0)" : : "r"(mapped) : "memory");
	}
	mapped = page;
	events++;
}

void on_unexpected(void)
{
	console_write("unexpected trap\n");
	quit(0x13);
}

u32 bench_none(u32 seed, u32 rounds)
{
	return seed + rounds;
}

u32 bench_undefined(u32 seed, u32 rounds)
{
	run_in_ring3(user_undefined, rounds);
	return events + seed;
}

u32 bench_syscall(u32 seed, u32 rounds)
{
	run_in_ring3(user_syscall, rounds);
	return events + seed;
}

u32 bench_sysenter(u32 seed, u32 rounds)
{
	run_in_ring3(user_sysenter, rounds);
	return events + seed;
}

u32 bench_page_fault(u32 seed, u32 rounds)
{
	run_in_ring3(user_page_fault, rounds);
	return events + seed;
}

u32 bench_port_out(u32 seed, u32 rounds)
{
	for (u32 i = 0; i < rounds; i++)
		outb(POST_PORT, (u8)seed);
	return rounds;
}

u32 bench_port_in(u32 seed, u32 rounds)
{
	u32 sum = seed;

	for (u32 i = 0; i < rounds; i++)
		sum += inb(LINE_STATUS) & 0x20;
	return sum;
}

/* A switch of address spaces as two processes make it: a new root, then 16 pages that must be walked again. */
u32 bench_cr3(u32 seed, u32 rounds)
{
	const volatile u32 *memory = (const volatile u32 *)WORK;
	u32 sum = seed;

	for (u32 i = 0; i < rounds; i++) {
		load_cr3(roots[i & 1]);
		for (u32 page = 0; page < 16; page++)
			sum += memory[page * (PAGE / 4)];
	}
	return sum;
}

u32 bench_rdtsc(u32 seed, u32 rounds)
{
	u32 low, high, last = 0, backwards = 0;

	for (u32 i = 0; i < rounds; i++) {
		__asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
		backwards += high < last;
		last = high;
	}
	return backwards + seed;
}

/* Every page of the machine above the program's own is written once: for the memory footprint. */
u32 bench_touch(u32 seed, u32 rounds)
{
	for (u32 round = 0; round < rounds; round++)
		for (u32 address = WORK; address < RAM_END; address += PAGE)
			if (address - FAULT_AREA >= FAULT_PAGES * PAGE)
				*(volatile u32 *)address = seed + address;
	return seed;
}
