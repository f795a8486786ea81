// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * IN and OUT: the permission check that libunicorn leaves out, then a shortcut or Python.
 *
 * EIP and the flags are exact in these hooks, so #GP may be raised at the instruction; it leaves by
 * longjmp, hence from C only.
 *
 * Ref: Intel SDM vol. 1, 19.5 (I/O privilege level and permission bit map)
 */
#include "machine.h"

enum { VECTOR_GP = 13 };

static void check(struct machine *m, uint32_t port, int size)
{
	uint32_t eflags = ENV32(m, ENV_EFLAGS), cpl = ENV32(m, ENV_HFLAGS) & HFLAGS_CPL;

	if (cpl <= (eflags >> EFLAGS_IOPL_SHIFT & 3) && !(eflags & EFLAGS_VM))
		return;
	if (m->platform && m->platform->port && m->platform->port(m, port, size))
		return;
	if (m->port_check) {
		if (!m->port_check(port, size))
			m->raise_exception(m->env, VECTOR_GP, 0, 0);
		return;
	}
	m->check_io[size >> 1](m->env, port);
}

uint32_t pv_port_in(void *uc, uint32_t port, int size, struct machine *m)
{
	uint32_t value;

	check(m, port, size);
	if (pv_shortcut_in(m, port, size, &value))
		return value;
	return m->port_in(uc, port, size, m);
}

void pv_port_out(void *uc, uint32_t port, int size, uint32_t value, struct machine *m)
{
	check(m, port, size);
	if (pv_shortcut_out(m, port, size, value))
		return;
	m->port_out(uc, port, size, value, m);
}
