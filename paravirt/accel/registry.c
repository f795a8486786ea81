// SPDX-License-Identifier: GPL-2.0-or-later
/* The machines of this process, by the CPU pointer that libunicorn hands to its callbacks. */
#include "machine.h"

struct machine *pv_machines[MAX_MACHINES];

/* Called with the GIL held; a slot is published by one pointer store, so readers need no lock. */
int pv_register(struct machine *m)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (!pv_machines[i]) {
			pv_machines[i] = m;
			return 0;
		}
	return -1;
}

void pv_unregister(struct machine *m)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (pv_machines[i] == m)
			pv_machines[i] = 0;
}

/* By one of the two pointers, the other NULL. */
struct machine *pv_other_machine(const void *cpu, const void *uc)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (pv_machines[i] && (pv_machines[i]->cpu == cpu || pv_machines[i]->uc == uc))
			return pv_machines[i];
	return 0;
}

uint64_t pv_machine_size(void)
{
	return sizeof(struct machine);
}
