// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A whole level 1 table becomes one, or ceases to be one: a reference more or less for each of its 512 entries. A
 * process that begins or ends has a few dozen such tables.
 *
 * Ref: frames.py (_promote_l1, _demote)
 */
#include "references.h"

enum { ENTRIES = 512 };

/* 1: every entry may stand there and has its references. 0: one may not, and nothing is counted; Python says which. */
int xen_promote_l1(struct machine *m, uint64_t mfn)
{
	struct frames *f = &XEN(m)->frames;
	const uint64_t *table = f->quads + mfn * ENTRIES;

	for (int i = 0; i < ENTRIES; i++) {
		if (!(table[i] & PTE_P))
			continue;
		if (may_map(f, table[i])) {
			get_l1e(f, table[i]);
			continue;
		}
		while (i-- > 0)
			if (table[i] & PTE_P)
				put_l1e(f, table[i]);
		return 0;
	}
	return 1;
}

/* 1: every entry has given its references back. 0: none has, for one may be the last of a frame that was given away. */
int xen_demote_l1(struct machine *m, uint64_t mfn)
{
	struct frames *f = &XEN(m)->frames;
	const uint64_t *table = f->quads + mfn * ENTRIES;

	for (int i = 0; i < ENTRIES; i++)
		if (frees(f, table[i]))
			return 0;
	for (int i = 0; i < ENTRIES; i++)
		if (table[i] & PTE_P)
			put_l1e(f, table[i]);
	return 1;
}
