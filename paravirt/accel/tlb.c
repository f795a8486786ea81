// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fast stores. libunicorn keeps a page on its slow store path for as long as the TLB entry of that
 * page may also be fetched from. Here an entry loses its fetch side until something is executed from
 * the page; the first fetch marks the page and flushes, so that every alias of it is slow again and
 * self-modifying code stays exact. A page that holds no translated code any more loses the mark at
 * the next fill (never inside the store that found it out).
 *
 * Ref: Unicorn 2.1.4 qemu/accel/tcg/cputlb.c (notdirty_write, tlb_set_page), translate-all.c (page_find)
 */
#include "machine.h"

struct tlb_desc { uint64_t mask; uint8_t *table; };
struct tlb_entry { uint64_t read, write, code, physical, addend; };
struct page_desc { uint64_t first_tb; uint64_t *bitmap; uint32_t writes; };

#define NO_FETCH ((uint64_t)-1)
/* An address that matches no page, yet is not -1: keeps the entry on the slow store path. */
#define SLOW_ALIAS ((uint64_t)0x800)

/* uc_struct's radix tree of pages: size, shift and levels of its first level lie beside its root. */
enum { UC_L1_MAP = 0x2e0, UC_L1_SIZE = 0x2f0, UC_L1_SHIFT = 0x2f4, UC_L2_LEVELS = 0x2f8, L2_BITS = 10 };

/* The original of the function below, for every engine of the process; set once. */
void (*pv_invalidate_original)(void *uc, void *pages, uint64_t start, int length, uint64_t ra);

static int has_code(uint8_t *uc, uint64_t page)
{
	uint64_t size = *(uint32_t *)(uc + UC_L1_SIZE);
	int shift = *(int *)(uc + UC_L1_SHIFT), level = *(int *)(uc + UC_L2_LEVELS);
	uint64_t *slot = *(uint64_t **)(uc + UC_L1_MAP) + ((page >> shift) & (size - 1));

	for (int bits = level * L2_BITS; level > 0; level--, bits -= L2_BITS) {
		uint64_t *table = (uint64_t *)*slot;
		if (!table)
			return 0;
		slot = table + ((page >> bits) & ((1 << L2_BITS) - 1));
	}
	uint8_t *leaf = (uint8_t *)*slot;
	if (!leaf)
		return 0;
	return ((struct page_desc *)(leaf + sizeof(struct page_desc) * (page & ((1 << L2_BITS) - 1))))->first_tb != 0;
}

static __attribute__((noinline, cold)) void forget_pending(struct machine *m)
{
	for (uint64_t i = 0; i < m->nr_pending; i++)
		if (!has_code(m->uc, m->pending[i]))
			m->executed[m->pending[i]] = 0;
	m->nr_pending = 0;
	m->tlb_flush(m->cpu);
}

/* CPUClass.tlb_fill. For the end of an access that wraps, `va` is 2^32: its entry must be of that address, though
 * it is translated as 0, or the access would go to the host's memory 4 GiB behind the page. */
int pv_tlb_fill(void *cpu, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra)
{
	struct machine *m = machine_of_cpu(cpu);

	if (__builtin_expect(m->nr_pending != 0, 0))
		forget_pending(m);
	if (m->platform && m->platform->fill && m->platform->fill(m, va, size, access, mmu, probe & 0xff, ra))
		return 1;
	int ok = m->tlb_fill(cpu, va, size, access, mmu, probe & 0xff, ra);
	if (!(ok & 0xff))
		return ok;

	struct tlb_desc *desc = (struct tlb_desc *)(m->env + ENV_TLB_FAST) + mmu;
	struct tlb_entry *entry = (struct tlb_entry *)(desc->table + ((va >> 6) & desc->mask));
	uint64_t page = entry->physical >> 12;

	m->fills++;
	if (page >= m->pages)
		return ok;
	if (access == ACCESS_FETCH) {
		if (!m->executed[page]) {
			m->executed[page] = 1;
			m->tlb_flush(cpu);
			return m->tlb_fill(cpu, va, size, access, mmu, probe & 0xff, ra);
		}
	} else if (!m->executed[page]) {
		entry->code = NO_FETCH;
	} else if (entry->code == NO_FETCH) {
		entry->code = SLOW_ALIAS;
	}
	return ok;
}

/* tb_invalidate_phys_page_fast: a slow store to a page without code queues the page to become fast. */
void pv_invalidate(void *uc, void *pages, uint64_t start, int length, uint64_t ra)
{
	struct machine *m = machine_of_uc(uc);
	uint64_t page = start >> 12;

	if (m && m->executed && page < m->pages && !has_code(uc, page)) {
		if (m->executed[page] && m->nr_pending < MAX_PENDING)
			m->pending[m->nr_pending++] = page;
		return;
	}
	pv_invalidate_original(uc, pages, start, length, ra);
}

/* The original of the function below. */
void (*pv_reset_dirty_original)(void *cpu, uint64_t start, uint64_t length);

/* tlb_reset_dirty_by_vaddr: searches all of the TLB, at each translation of a block, for entries of its pages that
 * are fast to write to. Here there is none: the fetch has marked the page and flushed, and an entry that was made
 * since then keeps a code side. */
void pv_reset_dirty(void *cpu, uint64_t start, uint64_t length)
{
	struct machine *m = machine_of_cpu(cpu);

	if (!m || !m->executed)
		pv_reset_dirty_original(cpu, start, length);
}

/* uc_struct.memory_mapping, asked at each access that leaves the fast path: RAM is one region from address 0 and
 * stays it, so it is searched for once. */
void *pv_region(void *uc, uint64_t physical)
{
	struct machine *m = machine_of_uc(uc);

	if (physical >= m->ram_bytes)
		return m->find_region(uc, physical);
	if (!m->ram_region)
		m->ram_region = m->find_region(uc, physical);
	return m->ram_region;
}
