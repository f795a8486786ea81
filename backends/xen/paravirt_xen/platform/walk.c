// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's page tables, walked as the CPU does for ring 1. It reads them where they are: nothing can fault here.
 *
 * Ref: Intel SDM vol. 3A, 4.4 (PAE paging); domain.py (machine_address)
 */
#include "xen.h"

uint64_t xen_walk(const struct machine *m, uint32_t va, uint64_t need)
{
	const struct xen *x = XEN(m);
	uint64_t limit = x->ram_size - 7, dirty = need & PTE_RW ? PTE_A | PTE_D : PTE_A;
	uint64_t at = (ENV64(m, CR3) & 0xffffffe0) + (va >> 30) * 8;

	if (at >= limit || !(*quad(x, at) & PTE_P))
		return NOWHERE;
	at = (*quad(x, at) & PTE_FRAME) + (va >> 21 & 511) * 8;
	if (at >= limit || (*quad(x, at) & need) != need || *quad(x, at) & PTE_PS)
		return NOWHERE;
	*quad(x, at) |= PTE_A;
	at = (*quad(x, at) & PTE_FRAME) + (va >> 12 & 511) * 8;
	if (at >= limit || (*quad(x, at) & need) != need)
		return NOWHERE;
	*quad(x, at) |= dirty;
	at = (*quad(x, at) & PTE_FRAME) | (va & 4095);
	return at < x->ram_size ? at : NOWHERE;
}
