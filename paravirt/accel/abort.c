// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cpu_abort(): libunicorn's way out of a state that it cannot run, a task register that holds no TSS for
 * instance. It ends the process; a guest must not be able to. Here it ends the slice, with libunicorn's words
 * for the reason, which Python turns into the end of the guest.
 *
 * Ref: Unicorn 2.1.4 qemu/exec.c (cpu_abort), qemu/target/i386/seg_helper.c (its callers), qemu/accel/tcg/cpu-exec.c
 */
#include "machine.h"

enum { EXCP_INTERRUPT = 0x10000 };

void abort(void);

void pv_abort(void *cpu, const char *format, ...)
{
	struct machine *m = machine_of_cpu(cpu);
	unsigned i;

	if (!m)
		abort();
	for (i = 0; i < sizeof m->stopped - 1 && format[i]; i++)
		m->stopped[i] = format[i];
	m->stopped[i] = 0;
	*(int32_t *)(m->cpu + CPU_EXCEPTION_INDEX) = EXCP_INTERRUPT;
	m->emu_stop(m->uc);
	m->loop_exit(cpu);
}
