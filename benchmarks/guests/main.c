/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chooses a benchmark by the command line (bench=NAME,ROUNDS,SEED), runs it, prints its checksum, ends the machine.
 *
 * Ref: Multiboot Specification 0.6.96, 3.3 (information); Linux Documentation/arch/x86/zero-page.rst (0x228);
 * National PC16550D data sheet, 8.4 (line status).
 */

#include "guest.h"

#define MULTIBOOT_LOADER	0x2BADB002u
#define MULTIBOOT_CMDLINE	16
#define ZERO_PAGE_CMDLINE	0x228
#define COM1			0x3f8
#define LINE_STATUS		(COM1 + 5)
#define TRANSMITTER_EMPTY	0x20
#define DEBUG_EXIT		0xf4

static const struct {
	const char *name;
	benchmark *run;
} benchmarks[] = {
	{ "none", bench_none },		/* start-up alone */
	{ "alu", bench_alu },
	{ "copy", bench_copy },
	{ "repcopy", bench_repcopy },
	{ "call", bench_call },
	{ "sort", bench_sort },
	{ "sieve", bench_sieve },
	{ "hash", bench_hash },
	{ "interpreter", bench_interpreter },
	{ "exception", bench_undefined },
	{ "int80", bench_syscall },
	{ "sysenter", bench_sysenter },
	{ "pagefault", bench_page_fault },
	{ "out", bench_port_out },
	{ "in", bench_port_in },
	{ "cr3", bench_cr3 },
	{ "rdtsc", bench_rdtsc },
	{ "touch", bench_touch },
};

void console_write(const char *text)
{
	for (; *text; text++) {
		while (!(inb(LINE_STATUS) & TRANSMITTER_EMPTY))
			;
		outb(COM1, (u8)*text);
	}
}

void console_hex(u32 value)
{
	char digits[9];

	for (int i = 0; i < 8; i++)
		digits[i] = "0123456789abcdef"[value >> (28 - 4 * i) & 15];
	digits[8] = 0;
	console_write(digits);
}

void quit(u8 status)
{
	outb(DEBUG_EXIT, status);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static const char *after(const char *text, const char *word)
{
	while (*word)
		if (*text++ != *word++)
			return 0;
	return text;
}

static const char *number(const char *text, u32 *value)
{
	if (*text == ',')
		text++;
	for (*value = 0; *text >= '0' && *text <= '9'; text++)
		*value = *value * 10 + (u32)(*text - '0');
	return text;
}

void guest_main(u32 magic, const u8 *multiboot, const u8 *zero_page)
{
	const u8 *place = magic == MULTIBOOT_LOADER ? multiboot + MULTIBOOT_CMDLINE : zero_page + ZERO_PAGE_CMDLINE;
	const char *text = *(const char *const *)place, *name = 0;
	u32 rounds, seed;

	for (; *text && !name; text++)
		name = after(text, "bench=");
	for (u32 i = 0; name && i < sizeof(benchmarks) / sizeof(benchmarks[0]); i++) {
		const char *rest = after(name, benchmarks[i].name);

		if (!rest || *rest != ',')
			continue;
		number(number(rest, &rounds), &seed);
		traps_init();
		paging_init();
		console_write("sum ");
		console_hex(benchmarks[i].run(seed, rounds));
		console_write("\n");
		quit(0x10);
	}
	console_write("no such benchmark\n");
	quit(0x11);
}
