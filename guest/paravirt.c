/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The op tables, empty in the image, and the note by which a loader finds them and everything else it fills.
 * The note's words are an interface: version 1.
 */
#include "paravirt.h"

u32 paravirt_ops[PV_WORDS] section(".data");
u32 machine_ops[6] section(".data");
u32 console_ops[2] section(".data");
u32 smp_ops[7] section(".data");

extern char gate_page[], code_pages[], data_pages[], scratch_page[], __parainstructions[], __parainstructions_end[],
	ex_table[], ex_table_entries[], end_block[];

static const struct {
	u32 name_size, size, type;
	char name[12];
	const void *version, *paravirt, *paravirt_words, *machine, *machine_words, *console, *console_words, *smp,
		*smp_words, *gate, *code, *code_count, *scratch, *sites, *sites_end, *exceptions, *exception_count, *end,
		*data, *data_count;
} note section(".note.paravirt") aligned(4) __attribute__((used)) = {
	.name_size = sizeof("Paravirt"),
	.size = 20 * sizeof(u32),
	.type = 1,
	.name = "Paravirt",
	.version = (void *)1,
	.paravirt = paravirt_ops,
	.paravirt_words = (void *)PV_WORDS,
	.machine = machine_ops,
	.machine_words = (void *)ARRAY_SIZE(machine_ops),
	.console = console_ops,
	.console_words = (void *)ARRAY_SIZE(console_ops),
	.smp = smp_ops,
	.smp_words = (void *)ARRAY_SIZE(smp_ops),
	.gate = gate_page,
	.code = code_pages,
	.code_count = (void *)8,
	.scratch = scratch_page,
	.sites = __parainstructions,
	.sites_end = __parainstructions_end,
	.exceptions = ex_table,
	.exception_count = ex_table_entries, /* an absolute symbol of the linker script */
	.end = end_block,
	.data = data_pages,
	.data_count = (void *)4,
};
