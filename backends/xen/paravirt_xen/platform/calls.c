// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hypercalls: the way to their handlers in Python, the loop of a multicall, and the few that come so often that they
 * are done here: update_va_mapping, one TLB flush, update_descriptor, stack_switch, fpu_taskswitch.
 *
 * A call that is not as usual is left to Python whole. The counters are those of hypercalls.py.
 *
 * Ref: hypercalls.py, multicall.py, descriptors.py, mmuext.py, trapops.py
 */
#include "xen.h"

enum {
	STACK_SWITCH = 3, FPU_TASKSWITCH = 5, UPDATE_DESCRIPTOR = 10, MULTICALL = 13, UPDATE_VA_MAPPING = 14, IRET = 23,
	MMUEXT_OP = 26, VECTOR = 0x82, INT_BYTES = 2, EINVAL = 22, EFAULT = 14, DOMID_SELF = 0x7ff0,
};
enum { TLB_FLUSH_LOCAL = 6, INVLPG_LOCAL, TLB_FLUSH_MULTI, INVLPG_MULTI, TLB_FLUSH_ALL, INVLPG_ALL };
enum { ENTRY_WORDS = 8, ARGUMENTS = 2, RESULT = 4, AT_ONCE = 512, COUNTED = 64 };
#define LEAVES (1ll << 32)
enum { DESC_P = 0x8000, DESC_S = 0x1000, DESC_A = 0x100, DESC_L = 0x200000, DESC_G = 0x800000, DPL_SHIFT = 13 };
enum { CR0_TS = 8, HFLAGS_TS = 1 << 11 };

static int read_words(const struct machine *m, uint32_t va, uint32_t *to, uint32_t count)
{
	while (count--) {
		uint64_t at = va & 3 ? NOWHERE : xen_walk(m, va, PTE_P);
		if (at == NOWHERE)
			return 0;
		*to++ = *(uint32_t *)(XEN(m)->ram + at);
		va += 4;
	}
	return 1;
}

/* ---------------------------------------------------------------- calls that are done here */

static int update_descriptor(struct machine *m, const uint32_t *args)
{
	struct frames *f = &XEN(m)->frames;
	uint64_t at = args[0] | (uint64_t)args[1] << 32, mfn = at >> 12;
	uint32_t low = args[2], high = args[3];

	if (at & 7 || mfn >= f->total || !f->owners[mfn] || !f->counts[mfn] || m->executed[mfn])
		return 0;
	if ((f->info[mfn] & FRAME_TYPE) != FRAME_DESCRIPTORS)
		return 0;
	if (high & DESC_P) {
		if ((high & (DESC_S | DESC_L)) != DESC_S)
			return 0;
		if (!(high >> DPL_SHIFT & 3))
			high |= 1 << DPL_SHIFT;
		high |= DESC_A;
		uint64_t limit = ((low & 0xffff) | (high & 0xf0000)) + 1ull;
		if (high & DESC_G)
			limit <<= 12;
		if (!(low >> 16) && !(high & 0xff0000ff) && limit > XEN(m)->hypervisor_start) {
			low |= 0xffff;
			high |= 0xf0000;
		}
	}
	f->quads[at >> 3] = low | (uint64_t)high << 32;
	return 1;
}

static int mmuext_op(struct machine *m, const uint32_t *args)
{
	struct frames *f = &XEN(m)->frames;
	uint32_t op[3], cpus = 1;

	if (args[1] != 1 || args[2] || args[3] != DOMID_SELF || !read_words(m, args[0], op, 3))
		return 0;
	if ((op[0] == TLB_FLUSH_MULTI || op[0] == INVLPG_MULTI) && !read_words(m, op[2], &cpus, 1))
		return 0;
	switch (op[0]) {
	case TLB_FLUSH_LOCAL: case TLB_FLUSH_MULTI: case TLB_FLUSH_ALL:
		if (cpus & 1) {
			++*f->clock;
			m->tlb_flush(m->cpu);
		}
		return 1;
	case INVLPG_LOCAL: case INVLPG_MULTI: case INVLPG_ALL:
		if (cpus & 1)
			f->flush_page(m->cpu, op[1]);
		return 1;
	}
	return 0;
}

static int stack_switch(struct machine *m, const uint32_t *args)
{
	uint32_t selector = args[0] & 0xffff;

	XEN(m)->kernel_stack[0] = selector & 3 ? selector : selector | 1;
	XEN(m)->kernel_stack[1] = args[1];
	return 1;
}

static int fpu_taskswitch(struct machine *m, const uint32_t *args)
{
	if (args[0]) {
		ENV64(m, ENV_CR) |= CR0_TS;
		ENV32(m, ENV_HFLAGS) |= HFLAGS_TS;
	} else {
		ENV64(m, ENV_CR) &= ~(uint64_t)CR0_TS;
		ENV32(m, ENV_HFLAGS) &= ~(uint32_t)HFLAGS_TS;
	}
	return 1;
}

/* Whether a call has been done, with success. */
static int quick(struct machine *m, uint32_t number, const uint32_t *args)
{
	switch (number) {
	case STACK_SWITCH: return stack_switch(m, args);
	case FPU_TASKSWITCH: return fpu_taskswitch(m, args);
	case UPDATE_DESCRIPTOR: return update_descriptor(m, args);
	case UPDATE_VA_MAPPING: return xen_update_va_mapping(m, args);
	case MMUEXT_OP: return mmuext_op(m, args);
	}
	return 0;
}

/* ---------------------------------------------------------------- multicall */

static int write_result(struct machine *m, uint32_t va, uint32_t result)
{
	uint64_t at = va & 3 ? NOWHERE : xen_walk(m, va, PTE_P | PTE_RW);

	if (at == NOWHERE)
		return 0;
	*(uint32_t *)(XEN(m)->ram + at) = result;
	if (m->executed[at >> 12])
		XEN(m)->invalidate(m->uc, at, at + 4);
	return 1;
}

/* What EAX becomes. */
static uint32_t multicall(struct machine *m, uint32_t list, uint32_t count)
{
	struct xen *x = XEN(m);
	uint32_t entry[ENTRY_WORDS], result;
	int leaves = 0;

	x->direct[MULTICALL]++;
	x->batches[count > COUNTED ? COUNTED + 1 : count]++;
	for (uint32_t made = 0; made < count; made++, list += sizeof entry) {
		if (made == AT_ONCE || (made && (leaves || xen_upcall_due(m)))) {	/* called again for the rest */
			ENV64(m, ENV_EBX) = list;
			ENV64(m, ENV_ECX) = count - made;
			ENV64(m, ENV_EIP) = (uint32_t)(ENV64(m, ENV_EIP) - INT_BYTES);
			return MULTICALL;
		}
		if (!read_words(m, list, entry, ENTRY_WORDS))
			return -EFAULT;
		const uint32_t number = entry[0], *args = entry + ARGUMENTS;
		if (number == MULTICALL) {
			result = -EINVAL;
		} else if (quick(m, number, args)) {
			x->inner[number]++;
			result = 0;
		} else {
			int64_t answer = x->entry(number, args[0], args[1], args[2], args[3], args[4], list, count - made);
			if (answer < 0)		/* it goes on later, and Python has seen to that */
				return MULTICALL;
			result = (uint32_t)answer;
			leaves = (answer & LEAVES) != 0;
		}
		if (!write_result(m, list + RESULT, result))
			return -EFAULT;
		if (number == IRET)
			return result;
	}
	return 0;
}

/* int 0x82 in ring 1 */
int xen_hypercall(struct machine *m)
{
	struct xen *x = XEN(m);
	const uint32_t number = ENV32(m, ENV_EAX), args[] = {
		ENV32(m, ENV_EBX), ENV32(m, ENV_ECX), ENV32(m, ENV_EDX), ENV32(m, ENV_ESI), ENV32(m, ENV_EDI),
	};
	uint32_t result = 0;

	if (m->account(m, VECTOR))
		return 1;
	m->traps++;
	/* EAX is written behind the call: it may be the frame's of iret, or again the number where the call goes on. */
	if (x->calls_here && number == MULTICALL && !(args[0] & 3))
		result = multicall(m, args[0], args[1]);
	else if (x->calls_here && quick(m, number, args))
		x->direct[number]++;
	else
		result = x->hypercall(number, args[0], args[1], args[2], args[3], args[4]);
	ENV64(m, ENV_EAX) = result;
	xen_deliver_upcall(m);
	return 1;
}
