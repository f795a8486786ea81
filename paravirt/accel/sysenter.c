// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * SYSENTER, the way into the kernel that system calls take: ring 0 with flat segments, where its registers say.
 * libunicorn leaves the instruction out and goes on behind it, so EIP is set two bytes short of the target.
 *
 * Ref: Intel SDM vol. 2B, SYSENTER (operation)
 */
#include "machine.h"

enum {
	SEGMENT_BYTES = 24, CS = 1, SS = 2, DS = 3, ES = 0,
	FLAT_CODE = 0x00cf9b00, FLAT_DATA = 0x00cf9300,	/* descriptor high words: ring 0, present, accessed, 4 GiB */
	HFLAGS_CS32 = 1 << 4, HFLAGS_SS32 = 1 << 5, HFLAGS_ADDSEG = 1 << 6,
	EFLAGS_RF = 1 << 16, SYSENTER_BYTES = 2, VECTOR_UD = 6,
};

struct segment { uint32_t selector, pad; uint64_t base; uint32_t limit, high; };

void pv_sysenter(void *uc, struct machine *m)
{
	/* sysenter_cs u32, sysenter_esp u64, sysenter_eip u64 of CPUX86State */
	uint32_t selector = *(uint32_t *)(m->env + m->sysenter) & 0xfffc, hflags = ENV32(m, ENV_HFLAGS);
	struct segment *segments = (struct segment *)(m->env + ENV_SEGS);

	if (m->platform && m->platform->sysenter) {
		if (m->platform->sysenter(m)) {
			ENV64(m, ENV_EIP) = (uint32_t)(ENV64(m, ENV_EIP) - SYSENTER_BYTES);
			return;
		}
	}
	if (!m->sysenter_here || !selector) {
		m->python_sysenter(uc, m);
		return;
	}
	segments[CS] = (struct segment){ selector, segments[CS].pad, 0, 0xffffffff, FLAT_CODE };
	segments[SS] = (struct segment){ selector + 8, segments[SS].pad, 0, 0xffffffff, FLAT_DATA };
	hflags = (hflags & ~(uint32_t)(HFLAGS_CPL | EFLAGS_VM | EFLAGS_RF)) | HFLAGS_CS32 | HFLAGS_SS32;
	if (!(segments[DS].base | segments[ES].base))
		hflags &= ~(uint32_t)HFLAGS_ADDSEG;
	ENV32(m, ENV_HFLAGS) = hflags;
	ENV32(m, ENV_EFLAGS) &= ~(uint32_t)(EFLAGS_VM | EFLAGS_RF | EFLAGS_IF);
	ENV64(m, ENV_ESP) = *(uint32_t *)(m->env + m->sysenter + 8);
	ENV64(m, ENV_EIP) = (uint32_t)(*(uint32_t *)(m->env + m->sysenter + 16) - SYSENTER_BYTES);
	m->sysenters++;
}

/* SYSCALL: libunicorn leaves it out, too. This CPU has none, whatever EFER says. */
void pv_syscall(void *uc, struct machine *m)
{
	(void)uc;
	m->raise_exception(m->env, VECTOR_UD, 0, 0);
}
