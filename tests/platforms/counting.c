// SPDX-License-Identifier: GPL-2.0-or-later
/* A platform that answers INT 0x40 in C, asks Python about #UD, and counts what else it is asked. */
#include "machine.h"

struct counting {
	uint64_t fills, interrupts;
	uint32_t (*invalid)(uint32_t eip);
};

enum { VECTOR_UD = 6, CALL = 0x40 };

static int exception(struct machine *m, uint32_t vector, int software)
{
	struct counting *state = m->platform_state;

	if (vector == CALL && software) {
		ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
		m->spend(m, 1000);
		m->traps++;
		ENV64(m, ENV_EAX) = (uint32_t)(ENV64(m, ENV_EAX) * 2);
		return 1;
	}
	if (vector == VECTOR_UD) {
		if (m->account(m, vector))
			return 1;
		ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
		ENV64(m, ENV_EIP) = state->invalid((uint32_t)ENV64(m, ENV_EIP));
		return 1;
	}
	return 0;
}

static int interrupt(struct machine *m, int vector)
{
	(void)vector;
	((struct counting *)m->platform_state)->interrupts++;
	return 0;
}

static int fill(struct machine *m, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra)
{
	(void)va, (void)size, (void)access, (void)mmu, (void)probe, (void)ra;
	((struct counting *)m->platform_state)->fills++;
	return 0;
}

const struct platform paravirt_platform = {
	.machine_size = sizeof(struct machine),
	.exception = exception,
	.interrupt = interrupt,
	.fill = fill,
};
