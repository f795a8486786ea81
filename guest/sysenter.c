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
	vsyscall_sysenter_end[], vdso_image[], vdso_image_end[], vdso_entry[], vdso_sigreturn[], vdso_rt_sigreturn[];

u32 sysenter_return;	/* where SYSEXIT goes; entry.S puts it into the frame */
u32 sysenter_cs;	/* of every thread; 0: no sysenter */
u32 vsyscall_address, vdso_at, vdso_sigreturn_at, vdso_rt_sigreturn_at;	/* where programs see them */

static bool enable_sysenter(void)
{
	if (!(cpu_features & FEATURE_SEP) || !paravirt_ops[PV_IRQ_ENABLE_SYSEXIT]) /* there may be no way back */
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
	u8 *page = get_page(), *entry;

	if (!page)
		panic("no memory for the vsyscall page");
	memcpy(page, vdso_image, (u32)(vdso_image_end - vdso_image));
	vdso_at = fix_to_va(FIX_VSYSCALL);
	vsyscall_address = vdso_at + (u32)(vdso_entry - vdso_image);
	vdso_sigreturn_at = vdso_at + (u32)(vdso_sigreturn - vdso_image);
	vdso_rt_sigreturn_at = vdso_at + (u32)(vdso_rt_sigreturn - vdso_image);
	entry = page + (vdso_entry - vdso_image);
	if (enable_sysenter()) {
		memcpy(entry, vsyscall_sysenter, (u32)(vsyscall_sysenter_end - vsyscall_sysenter));
		sysenter_return = vsyscall_address + (u32)(vsyscall_sysenter_return - vsyscall_sysenter);
	} else {
		memcpy(entry, vsyscall_int80, (u32)(vsyscall_int80_end - vsyscall_int80));
	}
	set_fixmap(FIX_VSYSCALL, pa(page), _PAGE_PRESENT | _PAGE_USER | _PAGE_ACCESSED);
}
