// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Direct writes to page tables, without a fault.
 *
 * A store of the kernel to a page table that it has mapped read-only misses the TLB. Here, what the instruction is
 * going to write is foreseen and looked at; when it is a valid entry the store gets a TLB entry for this one access,
 * and the CPU runs it. References are counted before anything can use the new entry: at the next TLB fill, or exit.
 * Everything else is left to fault, and Python decides (ptwrite.py).
 *
 * What stands in translated code at one place stays what it is until libunicorn throws all of it away, so it is
 * remembered by its address. Should it have changed, what was really written is validated when it is counted, and
 * taken back if it must be.
 *
 * Ref: Unicorn 2.1.4 qemu/accel/tcg/cputlb.c (tlb_set_page_with_attrs: an entry of less than a page is for one
 * access), translate-all.c (cpu_restore_state); Intel SDM vol. 2A, chapter 2; entries.py, ptwrite.py.
 */
#include "references.h"

enum { UVMF_TLB_FLUSH = 1, UVMF_INVLPG = 2, UVMF_KIND = 3, UVMF_ALL = 4 };
enum { WRITABLE_PAGETABLES = 1 << 2, RING1 = 1, VECTOR_PF = 14, CACHE_SHIFT = 3, LONGEST = 15 };

enum kind {
	UNKNOWN, STORE_REGISTER, STORE_IMMEDIATE, AND_REGISTER, AND_IMMEDIATE, OR_REGISTER, OR_IMMEDIATE, XOR_REGISTER,
	XOR_IMMEDIATE, BIT_SET, BIT_RESET, BIT_SET_REGISTER, BIT_RESET_REGISTER, COMPARE_EXCHANGE, COMPARE_EXCHANGE_8,
};

void xen_settle(struct machine *m)
{
	struct frames *f = &XEN(m)->frames;
	uint64_t *at = f->pending, new;

	if (__builtin_expect(!at, 1))
		return;
	f->pending = 0;
	new = *at;
	if (new == f->old)
		return;
	if (new & PTE_P) {
		if (!may_map(f, new)) {
			*at = f->old;
			f->repaired++;
			return;
		}
		get_l1e(f, new);
	}
	if (f->old & PTE_P)
		put_l1e(f, f->old);
}

/* ---------------------------------------------------------------- what an instruction writes */

static unsigned modrm_bytes(const uint8_t *p)
{
	unsigned mod = *p >> 6, rm = *p & 7, n = 1;

	if (mod == 3)
		return 0;
	if (rm == 4) {
		n = 2;
		if (mod == 0 && (p[1] & 7) == 5)
			return 6;
	} else if (mod == 0 && rm == 5) {
		return 5;
	}
	return n + (mod == 1 ? 1 : mod == 2 ? 4 : 0);
}

static uint32_t immediate(const uint8_t *p, unsigned size)
{
	return size == 1 ? *p : size == 2 ? (uint32_t)(p[0] | p[1] << 8) : *(const uint32_t *)p;
}

static void decode(const uint8_t *p, struct recipe *r)
{
	unsigned wide = 4, n;

	for (;; p++) {
		if (*p == 0x66)
			wide = 2;
		else if (*p != 0xf0 && *p != 0xf2 && *p != 0xf3 && *p != 0x3e && *p != 0x26 && *p != 0x2e && *p != 0x36 && *p != 0x64 && *p != 0x65)
			break;
	}
	r->kind = UNKNOWN;
	r->size = *p & 1 ? wide : 1;
	r->reg = p[1] >> 3 & 7;
	switch (*p) {
	case 0x08: case 0x09: r->kind = OR_REGISTER; break;
	case 0x20: case 0x21: r->kind = AND_REGISTER; break;
	case 0x30: case 0x31: r->kind = XOR_REGISTER; break;
	case 0x86: case 0x87: case 0x88: case 0x89: r->kind = STORE_REGISTER; break;
	case 0xa2: case 0xa3: case 0xaa: case 0xab:
		r->kind = STORE_REGISTER;
		r->reg = 0;
		break;
	case 0xc6: case 0xc7:
		if ((n = modrm_bytes(p + 1)) && !r->reg) {
			r->kind = STORE_IMMEDIATE;
			r->immediate = immediate(p + 1 + n, r->size);
		}
		break;
	case 0x80: case 0x81: case 0x83:
		if ((n = modrm_bytes(p + 1))) {
			r->kind = r->reg == 1 ? OR_IMMEDIATE : r->reg == 4 ? AND_IMMEDIATE : r->reg == 6 ? XOR_IMMEDIATE : UNKNOWN;
			r->immediate = *p == 0x83 ? (uint32_t)(int8_t)p[1 + n] : immediate(p + 1 + n, r->size);
		}
		break;
	case 0x0f:
		r->reg = p[2] >> 3 & 7;
		r->size = wide;
		switch (p[1]) {
		case 0xab: r->kind = BIT_SET_REGISTER; break;
		case 0xb3: r->kind = BIT_RESET_REGISTER; break;
		case 0xb1: r->kind = COMPARE_EXCHANGE; break;
		case 0xba:
			if ((n = modrm_bytes(p + 2)) && (r->reg == 5 || r->reg == 6)) {
				r->kind = r->reg == 5 ? BIT_SET : BIT_RESET;
				r->immediate = p[2 + n];
			}
			break;
		case 0xc7:
			if (r->reg == 1) {
				r->kind = COMPARE_EXCHANGE_8;
				r->size = 8;
			}
			break;
		}
		break;
	}
}

/* The instruction that translated code at `ra` belongs to. EIP is not kept up inside a block, so libunicorn has to
 * look it up; what it restores is what the block goes on with anyway. */
static void look_up(struct machine *m, uint64_t ra, struct recipe *r)
{
	const struct xen *x = XEN(m);
	uint64_t eip = ENV64(m, ENV_EIP);
	uint8_t code[2 * LONGEST];

	r->ra = ra;
	r->kind = UNKNOWN;
	if (!(x->frames.restore_state(m->cpu, ra, 0) & 0xff))
		return;
	uint32_t va = (uint32_t)(ENV64(m, ENV_EIP) + SEGMENT(m, SEG_CS)->base);
	ENV64(m, ENV_EIP) = eip;
	for (unsigned i = 0; i < sizeof code; i++) {
		uint64_t at = i < LONGEST ? xen_walk(m, va + i, PTE_P) : NOWHERE;
		code[i] = at != NOWHERE ? x->ram[at] : 0;
	}
	decode(code, r);
}

static uint64_t reg(const struct machine *m, unsigned index, unsigned size)
{
	if (size == 1)
		return ENV32(m, ENV_EAX + 8 * (index & 3)) >> (index & 4 ? 8 : 0);
	return ENV32(m, ENV_EAX + 8 * index);
}

/* What becomes of `size` bytes that hold `old`; 0: not known. */
static int foresee(struct machine *m, const struct recipe *r, unsigned size, uint64_t old, uint64_t *value)
{
	uint64_t bits = 8 * size - 1;

	if (r->size != size)
		return 0;
	switch (r->kind) {
	case STORE_REGISTER: *value = reg(m, r->reg, size); return 1;
	case STORE_IMMEDIATE: *value = r->immediate; return 1;
	case AND_REGISTER: *value = old & reg(m, r->reg, size); return 1;
	case AND_IMMEDIATE: *value = old & r->immediate; return 1;
	case OR_REGISTER: *value = old | reg(m, r->reg, size); return 1;
	case OR_IMMEDIATE: *value = old | r->immediate; return 1;
	case XOR_REGISTER: *value = old ^ reg(m, r->reg, size); return 1;
	case XOR_IMMEDIATE: *value = old ^ r->immediate; return 1;
	case BIT_SET: *value = old | 1ull << (r->immediate & bits); return 1;
	case BIT_RESET: *value = old & ~(1ull << (r->immediate & bits)); return 1;
	case BIT_SET_REGISTER: *value = old | 1ull << (reg(m, r->reg, 4) & bits); return 1;
	case BIT_RESET_REGISTER: *value = old & ~(1ull << (reg(m, r->reg, 4) & bits)); return 1;
	case COMPARE_EXCHANGE:
		*value = old == (reg(m, 0, 4) & ((2ull << bits) - 1)) ? reg(m, r->reg, size) : old;
		return 1;
	case COMPARE_EXCHANGE_8:
		*value = old == (reg(m, 2, 4) << 32 | reg(m, 0, 4)) ? reg(m, 1, 4) << 32 | reg(m, 3, 4) : old;
		return 1;
	}
	return 0;
}

/* ---------------------------------------------------------------- TLB fills */

static int is_l1(const struct frames *f, uint64_t mfn)
{
	return mfn < f->total && f->owners[mfn] && (f->info[mfn] & FRAME_TYPE) == FRAME_L1 && f->counts[mfn];
}

/* Machine address of the entry of level 1 that maps `va`; NOWHERE: there is no such table. */
static uint64_t l1_entry(const struct machine *m, uint32_t va)
{
	const struct xen *x = XEN(m);
	uint64_t entry, at = (ENV64(m, CR3) & 0xffffffe0) + (va >> 30) * 8;

	for (int shift = 21; shift >= 12; shift -= 9) {
		if (at >= x->ram_size - 7 || !((entry = *quad(x, at)) & PTE_P))
			return NOWHERE;
		at = (entry & PTE_FRAME) + (va >> shift & 511) * 8;
		if (shift == 12 && entry & PTE_PS)
			return NOWHERE;
	}
	return at < x->ram_size - 7 ? at : NOWHERE;
}

/* The machine address that a write by the kernel goes to if it is to a page table; NOWHERE: it is not. */
static uint64_t table_byte(const struct machine *m, uint32_t va)
{
	uint64_t at = l1_entry(m, va), entry;

	if (at == NOWHERE)
		return NOWHERE;
	entry = *quad(XEN(m), at);
	if ((entry & (PTE_P | PTE_RW)) != PTE_P || !is_l1(&XEN(m)->frames, MFN(entry)))
		return NOWHERE;
	return MFN(entry) << 12 | (va & 4095);
}

int xen_writes_table(const struct machine *m, uint32_t va)
{
	return XEN(m)->frames.assists & WRITABLE_PAGETABLES && table_byte(m, va) != NOWHERE;
}

int xen_fill(struct machine *m, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra)
{
	struct frames *f = &XEN(m)->frames;

	xen_settle(m);
	if (access != ACCESS_WRITE || probe || (ENV32(m, ENV_HFLAGS) & HFLAGS_CPL) != RING1)
		return 0;
	if (!(f->assists & WRITABLE_PAGETABLES) || va >> 32 || size < 1 || size > 8 || va & (size - 1))
		return 0;
	uint64_t at = table_byte(m, (uint32_t)va);
	if (at == NOWHERE)
		return 0;

	uint64_t *entry = f->quads + (at >> 3), old = *entry, value;
	unsigned shift = (at & 7) * 8;
	uint64_t mask = size == 8 ? ~0ull : ((1ull << 8 * size) - 1) << shift;
	struct recipe *r = &f->recipes[ra >> CACHE_SHIFT & (RECIPES - 1)];
	if (r->ra != ra)
		look_up(m, ra, r);
	if (!foresee(m, r, size, (old & mask) >> shift, &value))
		return 0;
	value = (old & ~mask) | (value << shift & mask);
	if ((value & PTE_P && !may_map(f, value)) || frees(f, old))
		return 0;
	m->account(m, VECTOR_PF);	/* it is an exit all the same, and costs what the fault would */
	m->traps++;
	f->pending = entry;
	f->old = old;
	f->writes++;
	f->set_page(m->cpu, va, at, 3, mmu, 1);
	return 1;
}

/* ---------------------------------------------------------------- update_va_mapping */

int xen_update_va_mapping(struct machine *m, const uint32_t *args)
{
	struct frames *f = &XEN(m)->frames;
	uint32_t va = args[0], flags = args[3];
	uint64_t new = args[1] | (uint64_t)args[2] << 32;
	uint64_t at = l1_entry(m, va), old;

	if (at == NOWHERE || !is_l1(f, at >> 12) || m->executed[at >> 12])
		return 0;
	if (flags & ~(uint32_t)(UVMF_KIND | UVMF_ALL))	/* a bit map of CPUs */
		return 0;
	old = f->quads[at >> 3];
	if (frees(f, old))
		return 0;
	if (!(new & PTE_P)) {
		f->quads[at >> 3] = new;
		if (old & PTE_P)
			put_l1e(f, old);
	} else {
		if (!may_map(f, new))
			return 0;
		f->quads[at >> 3] = new;
		if ((old ^ new) & WEIGHTY) {
			get_l1e(f, new);
			if (old & PTE_P)
				put_l1e(f, old);
		}
	}
	if ((flags & UVMF_KIND) == UVMF_INVLPG) {
		f->flush_page(m->cpu, va);
	} else if ((flags & UVMF_KIND) == UVMF_TLB_FLUSH) {
		++*f->clock;
		m->tlb_flush(m->cpu);
	}
	return 1;
}
