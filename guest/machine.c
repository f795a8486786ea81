/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the machine ends, through machine_ops, and the native answers; the native answers of smp_ops, too: this
 * kernel has one CPU.
 * Ref: IBM PC/AT Technical Reference (8042 command FEh pulses the reset line); ACPI spec. 4.8.3 (PM1 control:
 * SLP_EN is bit 13), at the port of QEMU's PIIX4; QEMU isa-debug-exit.
 */
#include "kernel.h"

#define I8042_COMMAND 0x64
#define PULSE_RESET 0xfe
#define PM1_CONTROL 0x604
#define SLEEP_ENABLE_S5 0x2000
#define DEBUG_EXIT 0xf4

static void stop(void) noreturn;
static void stop(void)
{
	irq_disable();
	for (;;)
		halt();
}

void machine_power_off(void)
{
	end_block_spaces();
	printk("Power down.\n");
	call_slot(machine_ops[MACHINE_POWER_OFF], 0, 0);
	panic("machine_power_off came back");
}

void machine_restart(void)
{
	end_block_spaces();
	printk("Restarting system.\n");
	call_slot(machine_ops[MACHINE_RESTART], 0, 0);
	panic("machine_restart came back");
}

void machine_halt(void)
{
	end_block_spaces();
	printk("System halted.\n");
	call_slot(machine_ops[MACHINE_HALT], 0, 0);
	panic("machine_halt came back");
}

/* Something failed. Where nobody listens to the port, it is a crash. */
void debug_exit(u32 status)
{
	end_block_spaces();
	printk("Exit with status %u.\n", status);
	outb((u8)status, DEBUG_EXIT);
	panic("exit status %u", status);
}

void native_machine_restart(char *command);
void native_machine_halt(void);
void native_machine_power_off(void);
void native_machine_shutdown(void);
void native_machine_crash_shutdown(struct pt_regs *regs);
void native_machine_emergency_restart(void);

void native_machine_emergency_restart(void)
{
	outb(PULSE_RESET, I8042_COMMAND);
	stop();
}

void native_machine_restart(char *command)
{
	(void)command;
	call_slot(machine_ops[MACHINE_SHUTDOWN], 0, 0);
	native_machine_emergency_restart();
}

void native_machine_halt(void)
{
	stop();
}

void native_machine_power_off(void)
{
	outw(SLEEP_ENABLE_S5, PM1_CONTROL);
	stop();
}

/* Both 8259As as the firmware leaves them: everything masked. */
void native_machine_shutdown(void)
{
	outb(0xff, 0x21);
	outb(0xff, 0xa1);
}

/* Nothing to quieten: interrupts are off already, and there is nobody to tell. */
void native_machine_crash_shutdown(struct pt_regs *regs)
{
	(void)regs;
}

void native_smp_prepare_boot_cpu(void);
void native_smp_prepare_cpus(u32 max_cpus);
s32 native_cpu_up(u32 cpu);
void native_smp_cpus_done(u32 max_cpus);
void native_smp_send_stop(void);
void native_smp_send_reschedule(s32 cpu);
s32 native_smp_call_function_mask(const u32 *mask, void (*function)(void *), void *info, s32 wait);

void native_smp_prepare_boot_cpu(void) { }
void native_smp_prepare_cpus(u32 max_cpus) { (void)max_cpus; }
s32 native_cpu_up(u32 cpu) { (void)cpu; return -ENOSYS; }
void native_smp_cpus_done(u32 max_cpus) { (void)max_cpus; }
void native_smp_send_stop(void) { }
void native_smp_send_reschedule(s32 cpu) { (void)cpu; }
s32 native_smp_call_function_mask(const u32 *mask, void (*function)(void *), void *info, s32 wait)
{
	(void)mask, (void)function, (void)info, (void)wait;
	return 0;
}
