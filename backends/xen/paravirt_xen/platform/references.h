/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The references that a present entry of a level 1 table has, as frames.py takes and gives them back.
 */
#ifndef PARAVIRT_XEN_REFERENCES_H
#define PARAVIRT_XEN_REFERENCES_H

#include "xen.h"

#define L1_BAD (0x7ffull << 52 | 0x098)
/* All but NX, what software may use, G, D, A and U: with these equal, two entries have equal references. */
#define WEIGHTY ~(1ull << 63 | 0xf64ull)
#define MFN(entry) ((entry) >> 12 & 0xffffffffffull)

static inline int may_map(const struct frames *f, uint64_t entry)
{
	uint64_t mfn = MFN(entry);

	if (entry & L1_BAD || mfn >= f->total || !f->owners[mfn])
		return 0;
	return !(entry & PTE_RW) || (f->info[mfn] & FRAME_TYPE) == FRAME_WRITABLE || !f->counts[mfn];
}

static inline void get_l1e(struct frames *f, uint64_t entry)
{
	uint64_t mfn = MFN(entry);

	if (entry & PTE_RW) {
		f->info[mfn] |= FRAME_WRITABLE;
		f->counts[mfn]++;
	}
	f->refs[mfn]++;
}

/* Never the last reference of a frame that the domain has given away: that is Python's. */
static inline void put_l1e(struct frames *f, uint64_t entry)
{
	uint64_t mfn = MFN(entry);

	if (entry & PTE_RW && !--f->counts[mfn])
		f->stamps[mfn] = *f->clock;
	f->refs[mfn]--;
}

static inline int frees(const struct frames *f, uint64_t entry)
{
	return entry & PTE_P && f->info[MFN(entry)] & FRAME_RELEASED;
}

#endif
