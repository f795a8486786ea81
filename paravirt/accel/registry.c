// SPDX-License-Identifier: GPL-2.0-or-later
/* The machines of this process, by the CPU pointer that libunicorn hands to its callbacks. */
#include "machine.h"

#define MAX_MACHINES 256

static struct machine *machines[MAX_MACHINES];

/* Called with the GIL held; a slot is published by one pointer store, so readers need no lock. */
int pv_register(struct machine *m)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (!machines[i]) {
			machines[i] = m;
			return 0;
		}
	return -1;
}

void pv_unregister(struct machine *m)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (machines[i] == m)
			machines[i] = 0;
}

struct machine *machine_of_cpu(const void *cpu)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (machines[i] && machines[i]->cpu == cpu)
			return machines[i];
	return 0;
}

struct machine *machine_of_uc(const void *uc)
{
	for (int i = 0; i < MAX_MACHINES; i++)
		if (machines[i] && machines[i]->uc == uc)
			return machines[i];
	return 0;
}

uint64_t pv_machine_size(void)
{
	return sizeof(struct machine);
}
