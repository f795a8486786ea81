// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Bounce frames and upcalls: what traps.py and exits.py do, for the usual case.
 *
 * Usual is: a handler in a flat code segment of the GDT, a frame on one page that is mapped for writing and holds no
 * translated code. All of it is looked at before anything is changed; what differs is Python's.
 *
 * Ref: Xen arch/x86/x86_64/compat/entry.S (compat_create_bounce_frame); traps.py
 */
#include "xen.h"

enum { HYPERCALL = 0x82, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_UD = 6, VECTOR_GP = 13, VECTOR_PF = 14 };
enum { RING1 = 1, RING3 = 3, PF_PRESENT = 1, PF_WRITE = 2, PF_USER = 4 };
enum { EFLAGS_IOPL = 0x3000, EFLAGS_CLEARED = 0x34100, HFLAGS_CLEARED = 0x30108 };	/* VM, RF, NT, TF; VM, RF, TF, shadow */
enum { HF_CS32 = 0x10, HF_SS32 = 0x20, HF_ADDSEG = 0x40 };
enum { DESC_P = 0x8000, DESC_S = 0x1000, DESC_CODE = 0x800, DESC_DB = 0x400000, DESC_G = 0x800000 };
enum { UPCALL_PENDING, UPCALL_MASK, ARCH_CR2 = 8 };
enum { PAGE = 4096, GDT_BYTES = 16 * PAGE };
static const uint32_t WITH_ERROR = 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17;

static int holds_code(const struct machine *m, uint64_t at)
{
	return m->executed[at >> 12];
}

static uint8_t *vcpu_info(const struct machine *m)
{
	return XEN(m)->ram + XEN(m)->vcpu_info;
}

/* A segment of the guest's kernel, out of the GDT; 0: not a usual one. */
static int find_segment(const struct machine *m, uint32_t selector, uint32_t kind, struct segment *found)
{
	const struct xen *x = XEN(m);
	uint32_t offset = selector & 0xfff8;

	if ((selector & 7) != RING1 || !offset)
		return 0;
	uint64_t entry = *quad(x, x->gdt_window + (offset >> 12) * 8);
	uint64_t at = (entry & PTE_FRAME) | (offset & 4095);
	if (at >= x->ram_size - 7)
		return 0;
	uint32_t low = (uint32_t)*quad(x, at), high = *quad(x, at) >> 32;
	if ((high & (DESC_P | DESC_S | DESC_CODE | 0x6000)) != (DESC_P | DESC_S | kind | RING1 << 13))
		return 0;
	found->selector = selector;
	found->base = low >> 16 | (high & 0xff) << 16 | (high & 0xff000000);
	found->limit = (low & 0xffff) | (high & 0xf0000);
	if (high & DESC_G)
		found->limit = found->limit << 12 | 0xfff;
	found->high = high;
	return 1;
}

static void load_segments(struct machine *m, const struct segment *code, const struct segment *stack)
{
	uint32_t hflags = ENV32(m, ENV_HFLAGS) & ~(uint32_t)(HFLAGS_CPL | HF_CS32 | HF_SS32 | HF_ADDSEG | HFLAGS_CLEARED);

	*SEGMENT(m, SEG_CS) = *code;
	if (stack)
		*SEGMENT(m, SEG_SS) = *stack;
	if (code->high & DESC_DB)
		hflags |= HF_CS32;
	if (SEGMENT(m, SEG_SS)->high & DESC_DB)
		hflags |= HF_SS32;
	if (SEGMENT(m, SEG_DS)->base | SEGMENT(m, SEG_ES)->base | SEGMENT(m, SEG_SS)->base)
		hflags |= HF_ADDSEG;
	ENV32(m, ENV_HFLAGS) = hflags | RING1;
}

struct frame {
	struct segment code, stack;
	uint64_t at;		/* machine address of its lowest word */
	uint32_t esp;
	int switched;
};

/* Where the frame of `bytes` below ESP and SS goes, and what goes on; 0: not as usual. */
static int plan(const struct machine *m, const struct gate *gate, uint32_t bytes, struct frame *f)
{
	const struct xen *x = XEN(m);
	uint32_t cpl = ENV32(m, ENV_HFLAGS) & HFLAGS_CPL;

	if (cpl == 0 || ENV32(m, ENV_EFLAGS) & EFLAGS_VM || !find_segment(m, gate->cs, DESC_CODE, &f->code))
		return 0;
	f->switched = cpl != RING1;
	if (f->switched) {
		if (!find_segment(m, x->kernel_stack[0], 0, &f->stack))
			return 0;
		bytes += 8;
		f->esp = x->kernel_stack[1] - bytes;
	} else {
		f->stack = *SEGMENT(m, SEG_SS);
		f->esp = (uint32_t)ENV64(m, ENV_ESP) - bytes;
	}
	uint32_t va = (uint32_t)f->stack.base + f->esp;
	if ((va & 4095) + bytes > PAGE)
		return 0;
	f->at = xen_walk(m, va, PTE_P | PTE_RW);
	return f->at != NOWHERE && f->at + bytes <= x->ram_size && !holds_code(m, f->at) && !holds_code(m, x->vcpu_info);
}

static void enter(struct machine *m, const struct gate *gate, const struct frame *f, int has_error, uint32_t error)
{
	struct xen *x = XEN(m);
	uint8_t *info = vcpu_info(m), mask = info[UPCALL_MASK];
	uint32_t *word = (uint32_t *)(x->ram + f->at);
	uint32_t eflags = (uint32_t)x->read_eflags(m->env) & ~(uint32_t)(EFLAGS_IF | EFLAGS_IOPL);

	if (has_error)
		*word++ = error;
	*word++ = (uint32_t)ENV64(m, ENV_EIP);
	*word++ = (SEGMENT(m, SEG_CS)->selector & 0xffff) | (uint32_t)mask << 16;
	*word++ = eflags | (mask ? 0 : EFLAGS_IF) | x->iopl_shown;
	if (f->switched) {
		*word++ = (uint32_t)ENV64(m, ENV_ESP);
		*word++ = SEGMENT(m, SEG_SS)->selector & 0xffff;
	}
	load_segments(m, &f->code, f->switched ? &f->stack : 0);
	ENV64(m, ENV_ESP) = f->esp;
	ENV64(m, ENV_EIP) = gate->eip;
	ENV32(m, ENV_EFLAGS) &= ~(uint32_t)EFLAGS_CLEARED;
	if (gate->masks)
		info[UPCALL_MASK] = 1;
}

int xen_upcall_due(const struct machine *m)
{
	const uint8_t *info = vcpu_info(m);

	return info[UPCALL_PENDING] && !info[UPCALL_MASK];
}

void xen_deliver_upcall(struct machine *m)
{
	struct xen *x = XEN(m);
	struct frame f;

	if (!xen_upcall_due(m))
		return;
	if (plan(m, &x->event, 12, &f))
		enter(m, &x->event, &f, 0, 0);
	else
		x->upcall();
}

/* Whether Python has to look at an exception before the guest does. */
static int is_ours(const struct machine *m, uint32_t vector, uint32_t error, uint32_t cpl)
{
	if (vector == VECTOR_UD)	/* forced emulation */
		return 1;
	if (vector == VECTOR_GP)	/* a privileged instruction, a call gate */
		return 1;
	if (vector == VECTOR_PF && !(error & PF_USER)) {	/* the LDT's window; a page table */
		uint32_t va = (uint32_t)ENV64(m, CR2);
		return va >= XEN(m)->ldt_window || (cpl == RING1 && error == (PF_PRESENT | PF_WRITE) && xen_writes_table(m, va));
	}
	return 0;
}

int xen_exception(struct machine *m, uint32_t vector, int software)
{
	struct xen *x = XEN(m);
	uint32_t cpl = ENV32(m, ENV_HFLAGS) & HFLAGS_CPL, error = ENV32(m, ENV_ERROR_CODE);
	const struct gate *gate = &x->gates[vector];
	struct frame f;

	ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
	xen_settle(m);
	if (vector == HYPERCALL && software && cpl == RING1)
		return xen_hypercall(m);
	int has_error = !software && vector < 32 && WITH_ERROR >> vector & 1;
	if (software && vector != VECTOR_BP && vector != VECTOR_OF) {
		if (gate->dpl < (cpl == RING1 ? RING1 : RING3))
			return 0;
	} else if (is_ours(m, vector, error, cpl)) {
		return 0;
	}
	if (!plan(m, gate, has_error ? 16 : 12, &f))
		return 0;
	if (m->account(m, vector))
		return 1;
	m->traps++;
	if (vector == VECTOR_PF && !software)
		*(uint32_t *)(vcpu_info(m) + ARCH_CR2) = (uint32_t)ENV64(m, CR2);
	enter(m, gate, &f, has_error, error);
	xen_deliver_upcall(m);
	return 1;
}
