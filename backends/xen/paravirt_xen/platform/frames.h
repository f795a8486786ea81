/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The frames of a domain, as frames.py keeps them: the same arrays, by pointer. native.py fills this in.
 */
#ifndef PARAVIRT_XEN_FRAMES_H
#define PARAVIRT_XEN_FRAMES_H

#include <stdint.h>

enum { FRAME_NONE, FRAME_L1, FRAME_L2, FRAME_L3, FRAME_DESCRIPTORS = 5, FRAME_WRITABLE = 7, FRAME_TYPE = 7 };
enum { FRAME_RELEASED = 32 };
#define RECIPES 256

/* What an instruction writes to memory, by the place in translated code that asks for it. */
struct recipe {
	uint64_t ra;
	uint8_t kind, size, reg, pad[5];
	uint32_t immediate, pad2;
};

struct frames {
	uint8_t *owners, *info;
	uint32_t *counts, *refs, *stamps;
	uint32_t *clock;
	uint64_t *quads;
	uint64_t total;
	/* libunicorn */
	void (*set_page)(void *cpu, uint64_t va, uint64_t physical, int prot, int mmu, uint64_t size);
	int (*restore_state)(void *cpu, uint64_t ra, int exits);
	void (*flush_page)(void *cpu, uint64_t va);
	/* the write that is under way, or has been done and not accounted for */
	uint64_t *pending;		/* the entry; NULL: none */
	uint64_t old;			/* its value before */
	uint64_t assists;		/* vm_assist */
	uint64_t writes, repaired;	/* out: how many; how many that were not foreseen and had to be taken back */
	struct recipe recipes[RECIPES];
};

#endif
