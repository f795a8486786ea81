/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Exceptions other than page faults. In user mode they end the process, in the kernel the exception table is
 * asked first, then the kernel ends.
 * Ref: Intel SDM vol. 3A, 6.15 (exceptions), 6.11 (gates).
 */
#include "sched.h"

#define GATE_TASK 5
#define DOUBLE_FAULT_VECTOR 8
#define SYSCALL_VECTOR 0x80
#define DR6_REASONS 0xe00f

void set_gate(u32 vector, void (*handler)(void), u32 type, u32 dpl)
{
	u32 address = (u32)handler;

	write_idt_entry(idt_table, vector, (__KERNEL_CS | kernel_rpl) << 16 | (address & 0xffff),
			(address & 0xffff0000) | 0x8000 | dpl << 13 | type << 8);
}

static void trap(struct pt_regs *regs, u32 error, u32 signal, const char *what)
{
	if (user_mode(regs)) {
		struct task *task = current;

		if (!signal_handled(signal))
			printk("%s[%u]: %s at eip %08x error %x\n", task->name, task->pid, what, regs->eip, error);
		force_signal(signal, regs->eip);
		return;
	}
	if (!fixup_exception(regs))
		die(what, regs, error);
}

/* An interrupt gate may have been used: a fault inside the kernel keeps the flag as it was. */
#define TRAP(name, signal, what)                                                                                       \
	void do_##name(struct pt_regs *regs, u32 error);                                                               \
	void do_##name(struct pt_regs *regs, u32 error) { trap(regs, error, signal, what); }

TRAP(divide_error, SIGFPE, "divide error")
TRAP(nmi, SIGKILL, "non-maskable interrupt")
TRAP(int3, SIGTRAP, "breakpoint")
TRAP(overflow, SIGSEGV, "overflow")
TRAP(bounds, SIGSEGV, "bounds")
TRAP(invalid_op, SIGILL, "invalid opcode")
TRAP(coprocessor_segment_overrun, SIGFPE, "coprocessor segment overrun")
TRAP(invalid_tss, SIGSEGV, "invalid TSS")
TRAP(segment_not_present, SIGSEGV, "segment not present")
TRAP(stack_segment, SIGSEGV, "stack segment")
TRAP(general_protection, SIGSEGV, "general protection fault")
TRAP(spurious_interrupt_bug, SIGKILL, "exception 15")
TRAP(coprocessor_error, SIGFPE, "floating-point error")
TRAP(alignment_check, SIGSEGV, "alignment check")
TRAP(machine_check, SIGKILL, "machine check")
TRAP(simd_coprocessor_error, SIGFPE, "SIMD floating-point error")

void do_debug(struct pt_regs *regs, u32 error);
void do_device_not_available(struct pt_regs *regs, u32 error);
void do_iret_error(struct pt_regs *regs, u32 error);

/* DR6 says why; the CPU never clears it. No more breakpoints until the program asks again. */
void do_debug(struct pt_regs *regs, u32 error)
{
	u32 condition = get_debugreg(6);

	(void)error;
	set_debugreg(6, 0);
	set_debugreg(7, 0);
	trap(regs, condition & DR6_REASONS, SIGTRAP, "debug exception");
}

void do_device_not_available(struct pt_regs *regs, u32 error)
{
	if (!user_mode(regs))
		die("the kernel used the FPU", regs, error);
	math_state_restore();
}

/* The return to user mode itself was refused: a selector in the frame is bad. */
void do_iret_error(struct pt_regs *regs, u32 error)
{
	struct task *task = current;

	(void)error;
	printk("%s[%u]: bad frame for the return to eip %08x\n", task->name, task->pid, regs->eip);
	irq_enable();
	do_exit(SIGSEGV);
}

void trap_init(void)
{
	extern void divide_error(void), debug(void), nmi(void), int3(void), overflow(void), bounds(void),
		invalid_op(void), device_not_available(void), coprocessor_segment_overrun(void), invalid_tss(void),
		segment_not_present(void), stack_segment(void), general_protection(void), page_fault(void),
		spurious_interrupt_bug(void), coprocessor_error(void), alignment_check(void), machine_check(void),
		simd_coprocessor_error(void), system_call(void);

	set_gate(0, divide_error, GATE_TRAP, 0);
	set_gate(1, debug, GATE_INTERRUPT, 0);
	set_gate(2, nmi, GATE_INTERRUPT, 0);
	set_gate(3, int3, GATE_INTERRUPT, 3);
	set_gate(4, overflow, GATE_TRAP, 3);
	set_gate(5, bounds, GATE_TRAP, 3);
	set_gate(6, invalid_op, GATE_TRAP, 0);
	set_gate(7, device_not_available, GATE_TRAP, 0);
	write_idt_entry(idt_table, DOUBLE_FAULT_VECTOR, DOUBLEFAULT_SELECTOR << 16, 0x8000 | GATE_TASK << 8);
	set_gate(9, coprocessor_segment_overrun, GATE_TRAP, 0);
	set_gate(10, invalid_tss, GATE_TRAP, 0);
	set_gate(11, segment_not_present, GATE_TRAP, 0);
	set_gate(12, stack_segment, GATE_TRAP, 0);
	set_gate(13, general_protection, GATE_TRAP, 0);
	set_gate(14, page_fault, GATE_INTERRUPT, 0);	/* CR2 must be read before another fault */
	set_gate(15, spurious_interrupt_bug, GATE_TRAP, 0);
	set_gate(16, coprocessor_error, GATE_TRAP, 0);
	set_gate(17, alignment_check, GATE_TRAP, 0);
	set_gate(18, machine_check, GATE_TRAP, 0);
	set_gate(19, simd_coprocessor_error, GATE_TRAP, 0);
	fpu_init();
	set_gate(SYSCALL_VECTOR, system_call, GATE_TRAP, 3);
}
