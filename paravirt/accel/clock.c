// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtual time: every block that is entered costs its instructions.
 *
 * The only block hook of the machine. It stops the CPU at the first block boundary at which the budget is
 * spent, before that block runs, and gives its cost back. Most blocks count by themselves (inline.c), and call it
 * when the budget is spent.
 */
#include "machine.h"

static void enter(struct machine *m, uint32_t instructions)
{
	int64_t before = *m->budget;

	*m->budget = before - instructions;
	if (__builtin_expect(before <= 0, 0)) {
		*m->budget = before;
		m->emu_stop(m->uc);
	} else if (m->count_modes && (ENV32(m, ENV_HFLAGS) & HFLAGS_CPL) == HFLAGS_CPL) {
		m->user += instructions;
	}
}

void pv_block(void *uc, uint64_t address, uint32_t instructions, struct machine *m)
{
	if (m->check_exit_request) {
		uint32_t spent = pv_inlined(__builtin_return_address(0), m);

		if (spent) {	/* the block has subtracted it; the other arguments were not loaded */
			*m->budget += spent;
			instructions = spent;
		}
	}
	enter(m, instructions);
}

/* RDTSC reads virtual time (1 GHz) and costs more than one instruction, or polling loops go on for ever. */
int pv_rdtsc(void *uc, struct machine *m)
{
	m->rdtscs++;
	*m->budget -= m->rdtsc_ns;
	m->charged += m->rdtsc_ns;
	uint64_t now = (uint64_t)(m->end - *m->budget) + m->tsc_offset;
	ENV64(m, ENV_EAX) = (uint32_t)now;
	ENV64(m, ENV_EDX) = now >> 32;
	return 1;
}

/* A code hook on one instruction. */
void pv_count(void *uc, uint64_t address, uint32_t size, uint64_t *counter)
{
	(void)uc, (void)address, (void)size;
	++*counter;
}
