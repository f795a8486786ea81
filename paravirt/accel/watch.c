// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Breakpoints of the debug registers on data. libunicorn asks at each TLB fill, and at each access to a
 * page so marked, whether somebody watches it; but the functions that it asks are empty. Here they are not.
 *
 * A data breakpoint is a trap: the instruction ends, then #DB comes. The access leaves the block and has its
 * instruction run again in a block of its own; at the boundary behind it #DB is raised.
 * Behind MOV SS it comes one instruction later; if that one faults, DR6 alone tells of it. (A CPU raises it in the
 * first instruction of the handler, which hypervisors and kernels take pains to ignore.)
 * Breakpoints on instructions are libunicorn's own.
 *
 * Ref: Intel SDM vol. 3B, 17.2.4, 17.2.5 (DR7, breakpoint fields), 17.3.1.2 (data breakpoints).
 * Unicorn 2.1.4 qemu/exec.c (cpu_check_watchpoint), qemu/accel/tcg/cputlb.c (TLB_WATCHPOINT)
 */
#include "machine.h"

enum { DATA_WRITE = 1, DATA_ACCESS = 3, MEM_READ = 1, MEM_WRITE = 2, BREAKPOINTS = 4, ONE_INSTRUCTION = 1 };
enum { VECTOR_DB = 1, ENV_DR = 5400, DR6 = 6, DR7 = 7 };
enum { CPU_NEXT_CFLAGS = 24, INTERRUPT_WATCH = 8 };	/* CPU_INTERRUPT_TGT_EXT_0, which nobody else has a use for */

/* The machine, if it wants its breakpoints: others of this process go on without. */
static struct machine *machine_that_watches(const void *cpu)
{
	struct machine *m = machine_of_cpu(cpu);

	return m && m->loop_exit_restore ? m : 0;
}

/* Which of the breakpoints an access of `length` bytes hits, one bit each. */
static uint32_t watching(const struct machine *m, uint64_t address, uint64_t length, int flags)
{
	uint32_t dr7 = (uint32_t)ENV64(m, ENV_DR + 8 * DR7), hit = 0;

	for (int i = 0; i < BREAKPOINTS; i++) {
		uint32_t type = dr7 >> (16 + 4 * i) & 3, size = (dr7 >> (18 + 4 * i) & 3) + 1;
		uint64_t start = (uint32_t)ENV64(m, ENV_DR + 8 * i) & ~(uint64_t)(size - 1);

		if (!(dr7 >> 2 * i & 3) || size == 3)
			continue;
		if (!(type == DATA_ACCESS || (type == DATA_WRITE && flags & MEM_WRITE)))
			continue;
		if (address < start + size && start < address + length)
			hit |= 1u << i;
	}
	return hit;
}

/* cpu_watchpoint_insert(): the translations of the page may say by now that nobody watches it. */
int pv_watch_insert(void *cpu, uint64_t address, uint64_t length, int flags, void **watchpoint)
{
	struct machine *m = machine_that_watches(cpu);

	if (m)
		m->tlb_flush(cpu);
	return 0;
}

/* cpu_watchpoint_address_matches(): the kinds of access to a page that are watched. */
int pv_watch_matches(void *cpu, uint64_t address, uint64_t length)
{
	struct machine *m = machine_that_watches(cpu);

	if (!m || !((uint32_t)ENV64(m, ENV_DR + 8 * DR7) & 0xff))
		return 0;
	return (watching(m, address, 4096, MEM_READ) ? MEM_READ : 0) | (watching(m, address, 4096, MEM_WRITE) ? MEM_WRITE : 0);
}

/* cpu_check_watchpoint(): an access to a page that is watched, before it is made. */
void pv_watch_check(void *cpu, uint64_t address, uint64_t length, uint32_t attributes, int flags, uint64_t ra)
{
	struct machine *m = machine_that_watches(cpu);
	uint32_t hit = m ? watching(m, address, length, flags) : 0;

	if (!hit)
		return;
	if (!m->watch_again) {
		m->watch_again = 1;
		*(uint32_t *)(m->cpu + CPU_NEXT_CFLAGS) = ONE_INSTRUCTION;
		m->loop_exit_restore(cpu, ra);
	}
	m->watch_hit |= hit;
	*(uint32_t *)(m->cpu + CPU_INTERRUPT_REQUEST) |= INTERRUPT_WATCH;
	*(uint16_t *)(m->env + ENV_EXIT_REQUEST + 2) = 0xffff;
}

/* What was hit goes to DR6. */
static void take(struct machine *m)
{
	ENV64(m, ENV_DR + 8 * DR6) = (ENV64(m, ENV_DR + 8 * DR6) & ~(uint64_t)0xf) | m->watch_hit;
	m->watch_hit = m->watch_again = 0;
	*(uint32_t *)(m->cpu + CPU_INTERRUPT_REQUEST) &= ~(uint32_t)INTERRUPT_WATCH;
}

/* An exception: the instruction that was to be done again, or that #DB waited for, is not done. */
void pv_watch_forget(struct machine *m)
{
	m->watch_again = 0;
	if (m->watch_hit)
		take(m);
}

/* At a block boundary: #DB for what was hit in the instruction before. Leaves by longjmp. */
void pv_watch_trap(struct machine *m)
{
	take(m);
	m->raise_exception(m->env, VECTOR_DB, 0, 0);
}
