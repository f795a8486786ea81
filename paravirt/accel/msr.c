// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Model-specific registers: those that the CPU has, and #GP for all others.
 *
 * libunicorn reads every unknown register as zero. Its RDMSR and WRMSR helpers begin with a check for nested
 * virtualisation, which is called through its PLT: here that call decides. What libunicorn does right
 * (SYSENTER, EFER, PAT, MISC_ENABLE) goes on in it; what it does not have is done here, and the instruction is
 * left behind it.
 *
 * Ref: Intel SDM vol. 4, table 2-3 (P6) and 2.2 (architectural MSRs); vol. 2B, RDMSR, WRMSR.
 * Unicorn 2.1.4 qemu/target/i386/misc_helper.c (helper_rdmsr), svm_helper.c (cpu_svm_check_intercept_param)
 */
#include "machine.h"

enum { SVM_EXIT_MSR = 0x7c, VECTOR_GP = 13, INSTRUCTION_BYTES = 2, EXCP_INTERRUPT = 0x10000 };

enum {
	MSR_TSC = 0x10, MSR_PLATFORM_ID = 0x17, MSR_APIC_BASE = 0x1b, MSR_EBL_CR_POWERON = 0x2a, MSR_BIOS_SIGN_ID = 0x8b,
	MSR_SYSENTER_CS = 0x174, MSR_SYSENTER_ESP = 0x175, MSR_SYSENTER_EIP = 0x176, MSR_MISC_ENABLE = 0x1a0,
	MSR_DEBUGCTL = 0x1d9, MSR_PAT = 0x277,
};
#define MSR_EFER 0xc0000080u
#define APIC_BASE_ENABLE 0x800u
#define APIC_BASE_DISABLED 0xfee00100u	/* the boot CPU, the enable bit clear: CPUID has no APIC */

void (*pv_intercept_original)(void *env, uint32_t type, uint64_t write, uint64_t ra);

static struct machine *machine_of_env(const uint8_t *env)
{
	return machine_of_cpu(env - CPU_TO_ENV);
}

/* Go on behind RDMSR or WRMSR, without libunicorn's part. EIP and the flags are exact in its helpers. */
static void skip(struct machine *m)
{
	ENV64(m, ENV_EIP) = (uint32_t)(ENV64(m, ENV_EIP) + INSTRUCTION_BYTES);
	*(int32_t *)(m->cpu + CPU_EXCEPTION_INDEX) = -1;
	m->loop_exit(m->cpu);
}

static void answer(struct machine *m, uint64_t value)
{
	ENV64(m, ENV_EAX) = (uint32_t)value;
	ENV64(m, ENV_EDX) = value >> 32;
	skip(m);
}

/* cpu_svm_check_intercept_param(): for RDMSR and WRMSR of our engines only; everything else as it was. */
void pv_intercept(void *env, uint32_t type, uint64_t write, uint64_t ra)
{
	struct machine *m = type == SVM_EXIT_MSR ? machine_of_env(env) : 0;

	if (m && m->msrs) {
		uint64_t value = (uint32_t)ENV64(m, ENV_EAX) | (uint64_t)(uint32_t)ENV64(m, ENV_EDX) << 32;
		uint64_t now;

		*m->budget -= m->rdtsc_ns;	/* as long as RDTSC takes: loops that poll must pass time */
		m->charged += m->rdtsc_ns;
		now = (uint64_t)(m->end - *m->budget);
		switch ((uint32_t)ENV64(m, ENV_ECX)) {
		case MSR_TSC:
			if (!write)
				answer(m, now + m->tsc_offset);
			m->tsc_offset = value - now;
			skip(m);
			break;
		case MSR_APIC_BASE:
			if (!write)
				answer(m, m->apic_base ? m->apic_base : APIC_BASE_DISABLED);
			if (m->apic_base)	/* the page stays where it is */
				m->apic_base = APIC_BASE_DISABLED | (value & APIC_BASE_ENABLE);
			skip(m);
			break;
		case MSR_PLATFORM_ID:
		case MSR_EBL_CR_POWERON:
		case MSR_BIOS_SIGN_ID:
		case MSR_DEBUGCTL:
			if (!write)
				answer(m, 0);
			skip(m);
			break;
		case MSR_SYSENTER_CS:
		case MSR_SYSENTER_ESP:
		case MSR_SYSENTER_EIP:
		case MSR_MISC_ENABLE:
		case MSR_PAT:
		case MSR_EFER:
			break;
		default:
			m->raise_exception(env, VECTOR_GP, 0, ra);
		}
	}
	pv_intercept_original(env, type, write, ra);
}
