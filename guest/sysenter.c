/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fast system call. A page at a fixed address holds the way into the kernel that this platform has; programs
 * learn its address from the auxiliary vector and call it without knowing which way it is.
 * Ref: Intel SDM vol. 2B, SYSENTER and SYSEXIT; Linux 2.6.23, arch/i386/kernel/sysenter.c.
 */
#include "sched.h"

#define MSR_SYSENTER_CS 0x174
#define MSR_SYSENTER_ESP 0x175
#define MSR_SYSENTER_EIP 0x176

extern void sysenter_entry(void);
extern u8 vsyscall_int80[], vsyscall_int80_end[], vsyscall_sysenter[], vsyscall_sysenter_return[],
	vsyscall_sysenter_end[];

u32 sysenter_return;	/* where SYSEXIT goes; entry.S puts it into the frame */
u32 sysenter_cs;	/* of every thread; 0: no sysenter */
u32 vsyscall_address;

static bool enable_sysenter(void)
{
	/* SYSENTER leads to ring 0, and a platform may have no way back. */
	if (!(cpu_features & FEATURE_SEP) || kernel_rpl || !paravirt_ops[PV_IRQ_ENABLE_SYSEXIT])
		return false;
	/* ESP: the end of the TSS, in which the entry finds the real stack. */
	if (write_msr(MSR_SYSENTER_ESP, (u32)(&cpu_tss + 1)) || write_msr(MSR_SYSENTER_EIP, (u32)sysenter_entry) ||
	    write_msr(MSR_SYSENTER_CS, __KERNEL_CS))
		return false;
	cpu_tss.ss1 = __KERNEL_CS;	/* load_esp0 remembers there what the MSR holds */
	sysenter_cs = init_task.thread.sysenter_cs = __KERNEL_CS;
	return true;
}

/* From check_bugs. Interrupts are on. */
void sysenter_init(void)
{
	u8 *page = get_page();

	if (!page)
		panic("no memory for the vsyscall page");
	vsyscall_address = fix_to_va(FIX_VSYSCALL);
	if (enable_sysenter()) {
		memcpy(page, vsyscall_sysenter, (u32)(vsyscall_sysenter_end - vsyscall_sysenter));
		sysenter_return = vsyscall_address + (u32)(vsyscall_sysenter_return - vsyscall_sysenter);
	} else {
		memcpy(page, vsyscall_int80, (u32)(vsyscall_int80_end - vsyscall_int80));
	}
	set_fixmap(FIX_VSYSCALL, pa(page), _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED);
}
