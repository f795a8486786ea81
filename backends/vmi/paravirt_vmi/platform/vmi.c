// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The monitor's hot side. The order of the checks is that of traps.py, and what is not answered here is asked there.
 *
 * Ref: platform/native_side.py (State), platform/layout.py (the shared page); Intel SDM vol. 2B, SYSENTER
 */
#include "machine.h"

enum { ROM_BYTES = 0x1000, CALLS = 80, NO_TRAP = 0xff, ATTENTION = 0xfe };
enum { PAGE_CR0 = 0x80, PAGE_CR2 = 0x88, PAGE_CR3 = 0x8c, PAGE_FLAG = 0xa0, PAGE_QUEUED = 0xa5, PAGE_IOPL = 0xa6 };
enum { PAGE_QUEUE = 0x100, QUEUE_ENTRIES = 15, QUEUE_ENTRY_WORDS = 4 };
enum {
	SET_CR0 = 15, SET_CR3 = 17, CLTS = 28, ALLOCATE_PAGE = 44, RELEASE_PAGE = 45, INVAL_PAGE = 46, FLUSH_TLB = 47,
	SET_LAZY_MODE = 73, FLUSH_ALL = 3, HLT_BYTES = 1,
};
enum { LEVEL_MASK = 0xf, LEVEL_PT = 1, LEVEL_PD = 2, LEVEL_PDP = 4, FLAG_PAE = 0x10, FLAG_ZEROED = 0x40 };
enum { CR0_TS = 8, CR4_PAE = 0x20, ENV_CR0 = 424, ENV_CR2 = 440, ENV_CR4 = 456 };
#define CR0_STICKY 0x80010001u	/* PG, WP, PE */
enum { VECTOR_UD = 6, VECTOR_GP = 13, VECTOR_PF = 14, GUEST_RING = 1, INIT_ENTRY = 0x80 };
enum {
	SEGMENT_BYTES = 24, CS = 1, SS = 2,
	FLAT_CODE = 0x00cf9b00 | GUEST_RING << 13, FLAT_DATA = 0x00cf9300 | GUEST_RING << 13,
	HFLAGS_CS32 = 1 << 4, HFLAGS_SS32 = 1 << 5, HFLAGS_VM = 1 << 17, HFLAGS_RF = 1 << 16, EFLAGS_RF = 1 << 16,
	IOPL = 3 << EFLAGS_IOPL_SHIFT,	/* in hflags too */
};

struct vmi {
	uint8_t *page;			/* the shared page, which the guest may write */
	uint32_t base, active, iopl;	/* copies of the monitor's */
	int (*ask)(uint32_t vector, int software);	/* 1: the monitor has answered */
	void (*update_cr0)(void *env, uint32_t value);
	void (*update_cr3)(void *env, uint64_t value);
	void (*flush_page)(void *cpu, uint64_t va);
	uint8_t *frames;		/* a byte for each page of RAM: the level that it is announced for */
	uint64_t counts[CALLS], attentions, flushes, deferred;
	uint8_t traps[ROM_BYTES];	/* what HLT at an offset means */
};

static uint32_t *page_word(struct vmi *s, int offset)
{
	return (uint32_t *)(s->page + offset);
}

/* The frame is to show the guest's flag. A fault of the delivery comes back as the next exception, and does it again. */
static void show_flag(struct machine *m, struct vmi *s)
{
	ENV32(m, ENV_EFLAGS) = (ENV32(m, ENV_EFLAGS) & ~(uint32_t)EFLAGS_IF) | (*page_word(s, PAGE_FLAG) & EFLAGS_IF);
}

static void enter_ring_1(struct machine *m)
{
	ENV32(m, ENV_EFLAGS) = (ENV32(m, ENV_EFLAGS) & ~(uint32_t)IOPL) | EFLAGS_IF;
	ENV32(m, ENV_HFLAGS) &= ~(uint32_t)IOPL;
}

static void hide_flag(struct machine *m, struct vmi *s)
{
	*page_word(s, PAGE_FLAG) = ENV32(m, ENV_EFLAGS) & EFLAGS_IF;
	enter_ring_1(m);
}

static void set_cr0(struct machine *m, struct vmi *s, uint32_t value)
{
	s->update_cr0(m->env, value);
	*page_word(s, PAGE_CR0) = ENV32(m, ENV_CR0);
}

static void set_cr3(struct machine *m, struct vmi *s, uint32_t value)
{
	s->update_cr3(m->env, value);
	*page_word(s, PAGE_CR3) = value;
}

/* Deferred calls, if all of them are of the two that wait at a context switch. */
static int make_up(struct machine *m, struct vmi *s)
{
	const uint32_t *entry = page_word(s, PAGE_QUEUE);
	int length = s->page[PAGE_QUEUED];

	if (length > QUEUE_ENTRIES)
		return 0;
	for (int i = 0; i < length; i++)
		if (entry[i * QUEUE_ENTRY_WORDS] != SET_CR3 && entry[i * QUEUE_ENTRY_WORDS] != CLTS)
			return 0;
	s->page[PAGE_QUEUED] = 0;
	s->flushes++;
	s->deferred += length;
	for (int i = 0; i < length; i++, entry += QUEUE_ENTRY_WORDS)
		if (entry[0] == SET_CR3)
			set_cr3(m, s, entry[1]);
		else
			set_cr0(m, s, ENV32(m, ENV_CR0) & ~(uint32_t)CR0_TS);
	return 1;
}

/* A notice that a page becomes a page table, or is none any more; what is wrong with it is told in Python. */
static int notice(struct machine *m, struct vmi *s, uint32_t pfn, uint32_t flags, int allocate)
{
	uint32_t level = flags & LEVEL_MASK, pae = ENV32(m, ENV_CR4) & CR4_PAE ? FLAG_PAE : 0;

	if (pfn >= m->pages || (level != LEVEL_PT && level != LEVEL_PD && level != LEVEL_PDP))
		return 0;
	if ((flags & ~(uint32_t)(LEVEL_MASK | FLAG_ZEROED)) != pae || (s->frames[pfn] && s->frames[pfn] != level))
		return 0;
	s->frames[pfn] = allocate ? level : 0;
	return 1;
}

/* One of the calls that are answered here. Deferred ones come before all but the first three. */
static int answer(struct machine *m, struct vmi *s, uint8_t trap)
{
	uint32_t eax = (uint32_t)ENV64(m, ENV_EAX), edx = (uint32_t)ENV64(m, ENV_EDX);

	switch (trap) {
	case SET_LAZY_MODE:
		return eax == 0 && s->page[PAGE_QUEUED] && make_up(m, s);
	case ALLOCATE_PAGE:
	case RELEASE_PAGE:
		return notice(m, s, eax, edx, trap == ALLOCATE_PAGE);
	}
	if (s->page[PAGE_QUEUED] || s->page[PAGE_IOPL])
		return 0;
	switch (trap) {
	case ATTENTION:		/* an interrupt waits; it is requested already, and taken as soon as the flag is set */
		return 1;
	case SET_CR0:
		set_cr0(m, s, eax | (ENV32(m, ENV_CR0) & CR0_STICKY));
		return 1;
	case CLTS:
		set_cr0(m, s, ENV32(m, ENV_CR0) & ~(uint32_t)CR0_TS);
		return 1;
	case SET_CR3:
		set_cr3(m, s, eax);
		return 1;
	case INVAL_PAGE:
		s->flush_page(m->cpu, eax);
		return 1;
	case FLUSH_TLB:
		if (eax & FLUSH_ALL)
			m->tlb_flush(m->cpu);
		return 1;
	}
	return 0;
}

static int call(struct machine *m, struct vmi *s, uint8_t trap)
{
	if (trap == NO_TRAP || !answer(m, s, trap))
		return 0;
	if (trap == ATTENTION)
		s->attentions++;
	else
		s->counts[trap]++;
	ENV64(m, ENV_EIP) = (uint32_t)(ENV64(m, ENV_EIP) + HLT_BYTES);
	return 1;
}

/* Whether somebody but the guest's IDT has to look at it. */
static int is_ours(struct machine *m, struct vmi *s, uint32_t vector, uint32_t offset)
{
	uint32_t ring = ENV32(m, ENV_HFLAGS) & HFLAGS_CPL;

	if (vector == VECTOR_GP && !(ENV32(m, ENV_EFLAGS) & EFLAGS_VM))
		return 1;
	if (vector == VECTOR_PF && s->page[PAGE_QUEUED])
		return 1;
	return ring == GUEST_RING && offset < ROM_BYTES;
}

static int exception(struct machine *m, uint32_t vector, int software)
{
	struct vmi *s = m->platform_state;
	uint32_t eip = (uint32_t)ENV64(m, ENV_EIP), offset = eip - s->base;

	if (!s->active) {
		if (vector == VECTOR_UD && (eip & 0xfff) == INIT_ENTRY && s->ask(vector, software)) {
			m->account(m, vector);
			ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
			m->traps++;
			return 1;
		}
		m->deliver(m, vector, software);
		return 1;
	}
	m->traps++;
	if (vector == VECTOR_PF)
		*page_word(s, PAGE_CR2) = ENV32(m, ENV_CR2);
	if (!software && is_ours(m, s, vector, offset)) {
		int trap = vector == VECTOR_GP && offset < ROM_BYTES && (ENV32(m, ENV_HFLAGS) & HFLAGS_CPL) == GUEST_RING;

		ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
		if ((trap && call(m, s, s->traps[offset])) || s->ask(vector, software)) {
			m->account(m, vector);
			return 1;
		}
	}
	show_flag(m, s);
	m->deliver(m, vector, software);
	hide_flag(m, s);
	return 1;
}

static int interrupt(struct machine *m, int vector)
{
	struct vmi *s = m->platform_state;

	if (!s->active)
		return 0;
	show_flag(m, s);
	m->external = 1;
	m->do_hardirq(m->env, vector, 1);
	m->external = 0;
	ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
	hide_flag(m, s);
	return 1;
}

static void load(struct machine *m, int index, uint32_t selector, uint32_t high)
{
	uint8_t *segment = m->env + ENV_SEGS + SEGMENT_BYTES * index;

	*(uint32_t *)segment = selector;
	*(uint64_t *)(segment + 8) = 0;
	*(uint32_t *)(segment + 16) = 0xffffffff;
	*(uint32_t *)(segment + 20) = high;
}

/* SYSENTER into ring 1. DS and ES may have bases: hflags' ADDSEG stays as it is, which is right if a little slow. */
static int sysenter(struct machine *m)
{
	struct vmi *s = m->platform_state;
	uint32_t selector = *(uint32_t *)(m->env + m->sysenter) & 0xfffc, hflags = ENV32(m, ENV_HFLAGS);

	if (!s->active || !selector)
		return 0;
	load(m, CS, selector | GUEST_RING, FLAT_CODE);
	load(m, SS, (selector + 8) | GUEST_RING, FLAT_DATA);
	hflags &= ~(uint32_t)(HFLAGS_CPL | HFLAGS_VM | HFLAGS_RF);
	ENV32(m, ENV_HFLAGS) = hflags | HFLAGS_CS32 | HFLAGS_SS32 | GUEST_RING;
	ENV32(m, ENV_EFLAGS) &= ~(uint32_t)(EFLAGS_VM | EFLAGS_RF);
	*page_word(s, PAGE_FLAG) = 0;
	enter_ring_1(m);
	ENV64(m, ENV_ESP) = *(uint32_t *)(m->env + m->sysenter + 8);
	ENV64(m, ENV_EIP) = *(uint32_t *)(m->env + m->sysenter + 16);
	m->traps++;
	return 1;
}

/* The CPU's IOPL is 0 and its TSS has no bit map, so what is not allowed here comes back as #GP, to be looked at. */
static int port(struct machine *m, uint32_t port, int size)
{
	struct vmi *s = m->platform_state;
	uint32_t ring = ENV32(m, ENV_HFLAGS) & HFLAGS_CPL;

	(void)port, (void)size;
	return s->active && !(ENV32(m, ENV_EFLAGS) & EFLAGS_VM) && (ring <= GUEST_RING || ring <= s->iopl);
}

const struct platform paravirt_platform = {
	.machine_size = sizeof(struct machine),
	.exception = exception,
	.interrupt = interrupt,
	.sysenter = sysenter,
	.port = port,
};
