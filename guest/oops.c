/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The end by an error: registers, code bytes and callers of a fault in the kernel, and panic. */
#include "sched.h"

#define CODE_BEFORE 8
#define CODE_BYTES 24
#define TRACE_DEPTH 16

extern char _text[], _etext[];

/* Frame pointers stay on one stack and rise. */
static void back_trace(u32 ebp)
{
	u32 base = ebp & ~(THREAD_SIZE - 1u), depth;

	printk("Call Trace:\n");
	for (depth = 0; depth < TRACE_DEPTH; depth++) {
		const u32 *frame = (const u32 *)ebp;

		if (ebp < base || ebp > base + THREAD_SIZE - 8 || ebp & 3 || ebp < PAGE_OFFSET)
			break;
		if (frame[1] < (u32)_text || frame[1] >= (u32)_etext)
			break;
		printk(" [<%08x>]\n", frame[1]);
		if (frame[0] <= ebp)
			break;
		ebp = frame[0];
	}
}

static void show_code(u32 eip)
{
	char line[CODE_BYTES * 5 + 1];
	u32 at, length = 0;

	if (eip < (u32)_text + CODE_BEFORE || eip >= (u32)_etext - CODE_BYTES) {
		printk("Code: bad EIP value\n");
		return;
	}
	for (at = eip - CODE_BEFORE; at < eip - CODE_BEFORE + CODE_BYTES; at++)
		length += (u32)snprintf(line + length, sizeof(line) - length, at == eip ? "<%02x> " : "%02x ",
					*(u8 *)at);
	printk("Code: %s\n", line);
}

static void show_regs(const struct pt_regs *regs)
{
	u32 esp = user_mode(regs) ? regs->esp : (u32)&regs->esp;

	printk("CPU: 0, pid %u (%s)\n", current->pid, current->name);
	printk("EIP: %04x:[<%08x>] EFLAGS: %08x\n", regs->cs & 0xffff, regs->eip, regs->eflags);
	printk("eax: %08x ebx: %08x ecx: %08x edx: %08x\n", regs->eax, regs->ebx, regs->ecx, regs->edx);
	printk("esi: %08x edi: %08x ebp: %08x esp: %08x\n", regs->esi, regs->edi, regs->ebp, esp);
	printk("ds: %04x es: %04x cr0: %08x cr3: %08x cr4: %08x\n", regs->ds & 0xffff, regs->es & 0xffff, read_cr0(),
	       read_cr3(), read_cr4_safe());
}

static void panic_at(const char *message, u32 eip, struct pt_regs *regs) noreturn;
static void panic_at(const char *message, u32 eip, struct pt_regs *regs)
{
	end_block_message(message, eip);
	printk("Kernel panic - not syncing: %s\n", message);
	if (command_line_has("panic=1")) /* Linux waits as many seconds and starts again */
		call_slot(machine_ops[MACHINE_EMERGENCY_RESTART], 0, 0);
	call_slot(machine_ops[MACHINE_CRASH_SHUTDOWN], (u32)regs, 0);
	call_slot(smp_ops[SMP_SEND_STOP], 0, 0);
	irq_disable();
	for (;;)
		halt();
}

void panic(const char *format, ...)
{
	char message[128];
	__builtin_va_list arguments;

	irq_disable();
	__builtin_va_start(arguments, format);
	vsnprintf(message, sizeof(message), format, arguments);
	__builtin_va_end(arguments);
	panic_at(message, (u32)__builtin_return_address(0), NULL);
}

void early_fault(const u32 *frame, u32 cr2);

/* Before cpu_init: error code or EIP first, nobody knows which vector. */
void early_fault(const u32 *frame, u32 cr2)
{
	panic("early exception: frame %08x %08x %08x, cr2 %08x", frame[0], frame[1], frame[2], cr2);
}

/* A fault of the kernel itself. Nothing it holds can be given back, so the machine ends with it. */
void die(const char *what, struct pt_regs *regs, u32 error)
{
	char message[128];

	irq_disable();
	printk("%s: %04x [#1]\n", what, error & 0xffff);
	show_regs(regs);
	show_code(regs->eip);
	back_trace(regs->ebp);
	snprintf(message, sizeof(message), "Fatal exception: %s", what);
	panic_at(message, regs->eip, regs);
}
