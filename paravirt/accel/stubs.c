// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Counting stubs: each is one jump to where an op's slot led before. A code hook on their page counts the call and
 * gives the jump's instruction back to virtual time, so a run with them differs from one without by nothing else.
 *
 * Ref: Unicorn 2.1.4 include/unicorn/unicorn.h (uc_cb_hookcode_t)
 */
#include "machine.h"

enum { STUB_SHIFT = 3 };	/* 8 bytes a stub */

/* Python sees the same layout: machine/stubs.py. */
struct stubs {
	struct machine *machine;
	uint64_t base;		/* virtual address of stub 0; the hook covers the stubs and nothing else */
	uint64_t counts[];
};

void pv_stub(void *uc, uint64_t address, uint32_t size, struct stubs *stubs)
{
	(void)uc, (void)size;
	stubs->counts[(address - stubs->base) >> STUB_SHIFT]++;
	(*stubs->machine->budget)++;
}
