/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaces code by what fits this CPU, and lock prefixes where there is one CPU. Call sites of ops come after it,
 * the backend's op `patch` makes their code.
 * Ref: Linux 2.6.23, arch/i386/kernel/alternative.c (the order; noreplace-smp).
 */
#include "alternative.h"
#include "kernel.h"

#define LOCK 0xf0
#define DS_OVERRIDE 0x3e	/* as long, and without effect where DS is the segment already */
#define NOP 0x90

struct alt_instr {
	u8 *instr;
	const u8 *replacement;
	u8 feature, length, replacement_length, pad;
};
extern const struct alt_instr __alt_instructions[], __alt_instructions_end[];
extern u8 *const __smp_locks[], *const __smp_locks_end[];

static void apply_alternatives(void)
{
	const struct alt_instr *alt;

	for (alt = __alt_instructions; alt < __alt_instructions_end; alt++) {
		if (!(cpu_features & 1u << alt->feature))
			continue;
		BUG_ON(alt->replacement_length > alt->length);
		memcpy(alt->instr, alt->replacement, alt->replacement_length);
		memset(alt->instr + alt->replacement_length, NOP, alt->length - alt->replacement_length);
	}
}

static void drop_lock_prefixes(void)
{
	u8 *const *site;

	for (site = __smp_locks; site < __smp_locks_end; site++) {
		BUG_ON(**site != LOCK);
		**site = DS_OVERRIDE;
	}
	printk("SMP alternatives: switching to UP code\n");
}

void alternative_instructions(void)
{
	u32 flags = irq_save();

	apply_alternatives();
	if (!command_line_has("noreplace-smp"))
		drop_lock_prefixes();
	restore_fl(flags);
}
