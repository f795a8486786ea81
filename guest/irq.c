/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Interrupts by number, whoever delivers them: on bare hardware a pair of 8259As, elsewhere a platform that calls
 * do_IRQ with ~number in orig_eax.
 * Ref: Intel 8259A data sheet (ICW1-4, OCW1-3).
 */
#include "sched.h"

#define MASTER 0x20
#define SLAVE 0xa0
#define ICW1_INIT 0x11		/* edge triggered, cascade, ICW4 follows */
#define ICW4_8086 0x01
#define OCW2_EOI 0x60		/* specific; the level in bits 0-2 */
#define OCW3_READ_ISR 0x0b
#define CASCADE 2
#define FIRST_VECTOR 0x20
#define NR_IRQS 16

extern char irq_entries[];
static irq_handler handlers[NR_IRQS];
static u32 irq_mask = 0xffff & ~(1u << CASCADE);
static bool has_8259;
u32 spurious_interrupts;

static void write_mask(void)
{
	outb((u8)irq_mask, MASTER + 1);
	outb((u8)(irq_mask >> 8), SLAVE + 1);
}

/* A line that went away before it was acknowledged shows up as IRQ 7 or 15 without its in-service bit. */
static bool is_spurious(u32 irq)
{
	u16 port = irq < 8 ? MASTER : SLAVE;

	if (irq != 7 && irq != 15)
		return false;
	outb(OCW3_READ_ISR, port);
	if (inb(port) & 0x80)
		return false;
	if (irq == 15)
		outb(OCW2_EOI | CASCADE, MASTER);	/* the master did see the slave's request */
	return true;
}

static void end_of_interrupt(u32 irq)
{
	if (irq >= 8) {
		outb((u8)(OCW2_EOI | (irq & 7)), SLAVE);
		outb(OCW2_EOI | CASCADE, MASTER);
	} else {
		outb((u8)(OCW2_EOI | irq), MASTER);
	}
}

/* Interrupts stay off; the 8259 is told before the handler, which may take long. */
void do_IRQ(struct pt_regs *regs)
{
	u32 irq = ~regs->orig_eax;

	if (irq >= NR_IRQS)
		panic("interrupt %u does not exist", irq);
	if (has_8259) {
		if (is_spurious(irq)) {
			spurious_interrupts++;
			return;
		}
		end_of_interrupt(irq);
	}
	if (handlers[irq])
		handlers[irq](regs);
}

void request_irq(u32 irq, irq_handler handler)
{
	handlers[irq] = handler;
	irq_mask &= ~(1u << irq);
	if (has_8259)
		write_mask();
}

void native_init_IRQ(void);

/* Vectors 0x20 to 0x2f; every line masked until a handler asks for it. */
void native_init_IRQ(void)
{
	u32 irq;

	outb(0xff, MASTER + 1);
	outb(0xff, SLAVE + 1);
	outb_p(ICW1_INIT, MASTER);
	outb_p(FIRST_VECTOR, MASTER + 1);
	outb_p(1 << CASCADE, MASTER + 1);
	outb_p(ICW4_8086, MASTER + 1);
	outb_p(ICW1_INIT, SLAVE);
	outb_p(FIRST_VECTOR + 8, SLAVE + 1);
	outb_p(CASCADE, SLAVE + 1);
	outb_p(ICW4_8086, SLAVE + 1);
	has_8259 = true;
	write_mask();
	for (irq = 0; irq < NR_IRQS; irq++)
		set_gate(FIRST_VECTOR + irq, (void (*)(void))(irq_entries + 8 * irq), GATE_INTERRUPT, 0);
}
