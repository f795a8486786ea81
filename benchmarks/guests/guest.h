/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the benchmark guest's files share. */

#ifndef GUEST_H
#define GUEST_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

/* Physical memory, mapped one to one. The program lies at 1 MiB. */
#define WORK		0x01000000u	/* the CPU kernels' data: 16 MiB from here */
#define RAM_END		0x08000000u	/* 128 MiB, what the machine must have at least */
#ifndef FAULT_AREA
#error FAULT_AREA comes from the command line, for head.S needs it too
#endif

/* A benchmark: does its work `rounds` times on data made from `seed`, returns a checksum of what it computed. */
typedef u32 benchmark(u32 seed, u32 rounds);

benchmark bench_alu, bench_copy, bench_repcopy, bench_call, bench_sort, bench_sieve, bench_hash, bench_interpreter;
benchmark bench_none, bench_undefined, bench_syscall, bench_sysenter, bench_page_fault, bench_port_out, bench_port_in;
benchmark bench_cr3, bench_rdtsc, bench_touch;

void paging_init(void);
void traps_init(void);
void run_in_ring3(void (*code)(void), u32 count);
void console_write(const char *text);
void console_hex(u32 value);
void quit(u8 status) __attribute__((noreturn));

static inline void outb(u16 port, u8 value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline u8 inb(u16 port)
{
	u8 value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* xorshift32 (G. Marsaglia, "Xorshift RNGs", 2003): the same numbers whatever the compiler does. */
static inline u32 next_random(u32 *state)
{
	u32 x = *state;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return *state = x;
}

#endif
