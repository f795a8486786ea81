// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Exceptions and interrupts that the guest's own IDT takes: libunicorn's delivery, called from C only.
 *
 * A fault inside do_interrupt() leaves by longjmp, so no Python frame may lie between it and
 * libunicorn; it comes back here as the next exception. old_exception stays set over such a fault
 * (that is how a double fault is recognised) and is cleared once delivery has succeeded: libunicorn
 * never clears it by itself. Nor does it set EXT in the error code of such a fault; that is done here.
 *
 * Ref: Unicorn 2.1.4 qemu/target/i386/seg_helper.c, excp_helper.c; Intel SDM vol. 3A, 6.13 (EXT)
 */
#include "machine.h"

enum { GATE_VECTOR = 0x83, STUB_BYTES = 8, VECTOR_BP = 3, VECTOR_OF = 4, VECTOR_UD = 6, VECTOR_TS = 10, VECTOR_GP = 13 };
enum { ERROR_EXT = 1, USER_RING = 3 };

static int delivered_here(const struct machine *m, uint32_t vector)
{
	return m->native[vector >> 6 & 3] >> (vector & 63) & 1;
}

void pv_spend(struct machine *m, int64_t ns)
{
	*m->budget -= ns;
	m->charged += ns;
	if (*m->budget < 0)	/* faults for ever without entering a block: no block hook would stop it */
		m->emu_stop(m->uc);
}

/* A handler that faults before its first instruction, and whose delivery never fails, goes on for ever. */
static int is_storm(struct machine *m)
{
	int64_t instructions = m->end - *m->budget - m->charged;

	if (instructions != m->storm_at) {
		m->storm_at = instructions;
		m->storm = 0;
	}
	if (++m->storm < m->storm_limit)
		return 0;
	m->emu_stop(m->uc);
	return 1;
}

/* An exception that is about to be delivered: it counts and costs time. 1: it is one too many, the run ends. */
int pv_account(struct machine *m, uint32_t vector)
{
	m->exceptions[vector]++;
	m->recent = m->recent << 8 | vector;
	if (is_storm(m))
		return 1;
	pv_spend(m, m->exception_ns);
	return 0;
}

/* Through the guest's own IDT. A fault of the delivery leaves by longjmp. */
void pv_deliver(struct machine *m, uint32_t vector, int software)
{
	if (pv_account(m, vector))
		return;
	if (software)	/* EIP is past the instruction already; a fault of the delivery is a fault at its start */
		ENV64(m, ENV_EIP) = (uint32_t)(ENV64(m, ENV_NEXT_EIP) - (vector == VECTOR_BP || vector == VECTOR_OF ? 1 : 2));
	m->external = !software;
	m->do_interrupt(m->cpu);
	m->external = 0;
	ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
}

/* A stub of the gate page: most host functions are called with what they take, and give back what they return. */
static void call_host(struct machine *m, uint32_t stub)
{
	const struct leaf *leaf = m->leaves ? &m->leaves[stub] : 0;
	uint64_t result;

	if (!leaf || !leaf->function) {
		m->gate(stub);
		return;
	}
	m->traps++;
	result = leaf->function(ENV32(m, ENV_EAX), ENV32(m, ENV_EDX), ENV32(m, ENV_ECX), ENV32(m, ENV_ESP));
	if (m->leaf_failed) {
		m->leaf_failed = 0;
		return;
	}
	if (leaf->words > 0)
		ENV64(m, ENV_EAX) = (uint32_t)result;
	if (leaf->words > 1)
		ENV64(m, ENV_EDX) = result >> 32;
}

void pv_intr(void *uc, uint32_t vector, struct machine *m)
{
	uint32_t is_int = ENV32(m, ENV_IS_INT);
	uint64_t eip = ENV64(m, ENV_EIP);

	vector &= 0xff;
	pv_watch_forget(m);
	if (m->external && vector >= VECTOR_TS && vector <= VECTOR_GP)
		ENV32(m, ENV_ERROR_CODE) |= ERROR_EXT;
	m->external = 0;
	if (vector == GATE_VECTOR && is_int && eip > m->gate_start && eip <= m->gate_end
	    && (ENV32(m, ENV_HFLAGS) & HFLAGS_CPL) != USER_RING) {
		ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
		if (eip < m->gate_free)
			pv_spend(m, m->gate_ns);
		call_host(m, (uint32_t)(eip - m->gate_start) / STUB_BYTES);
		return;
	}
	if (m->platform && m->platform->exception && m->platform->exception(m, vector, is_int != 0))
		return;
	if (delivered_here(m, vector)) {
		pv_deliver(m, vector, is_int != 0);
		return;
	}
	ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
	m->intr(uc, vector, m);
}

/* #UD alone does not reach the INTR hook. */
int pv_invalid(void *uc, struct machine *m)
{
	*(int32_t *)(m->cpu + CPU_EXCEPTION_INDEX) = VECTOR_UD;
	ENV32(m, ENV_ERROR_CODE) = 0;
	ENV32(m, ENV_IS_INT) = 0;
	pv_intr(uc, VECTOR_UD, m);
	return 1;
}

static uint32_t flags(const struct machine *m)
{
	return m->interrupt_flag ? *m->interrupt_flag : ENV32(m, ENV_EFLAGS);
}

/* An interrupt, by the platform or through the guest's IDT. */
static void take(struct machine *m, int vector)
{
	m->interrupts++;
	pv_spend(m, m->exception_ns);
	if (m->platform && m->platform->interrupt && m->platform->interrupt(m, vector))
		return;
	m->external = 1;
	m->do_hardirq(m->env, vector, 1);
	m->external = 0;
	ENV32(m, ENV_OLD_EXCEPTION) = (uint32_t)-1;
}

/*
 * CPUClass.cpu_exec_interrupt: called at a block boundary while an interrupt is requested.
 * The vector is asked for at the moment of delivery, as the INTA cycle does.
 */
int pv_exec_interrupt(void *cpu, int request)
{
	struct machine *m = machine_of_cpu(cpu);
	int vector;

	if (ENV32(m, ENV_HFLAGS) & HFLAGS_SHADOW && (m->watch_hit || request & (INTERRUPT_HARD | INTERRUPT_NMI))) {
		/* The shadow is one instruction long, and the block with it goes on without coming back here. */
		if (*m->budget > 1) {
			m->end -= *m->budget - 1;
			*m->budget = 1;
		}
		return 0;
	}
	if (m->watch_hit)
		pv_watch_trap(m);
	if (request & INTERRUPT_NMI && !(ENV32(m, ENV_HFLAGS2) & HFLAGS2_NMI)) {
		*(uint32_t *)(m->cpu + CPU_INTERRUPT_REQUEST) &= ~(uint32_t)INTERRUPT_NMI;
		ENV32(m, ENV_HFLAGS2) |= HFLAGS2_NMI;
		take(m, VECTOR_NMI);
		return 1;
	}
	if (!(request & INTERRUPT_HARD))
		return m->exec_interrupt(cpu, request);
	const struct platform *p = m->platform;
	if (!(p && p->interruptible ? p->interruptible(m) : (flags(m) & EFLAGS_IF) != 0))
		return 0;
	*(uint32_t *)(m->cpu + CPU_INTERRUPT_REQUEST) &= ~(uint32_t)INTERRUPT_HARD;
	if (!m->acknowledge) {
		m->window = 1;
		m->emu_stop(m->uc);
		return 0;
	}
	vector = m->acknowledge();
	if (vector < 0)
		return 0;
	take(m, vector);
	return 1;
}
