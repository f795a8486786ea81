/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The native tick and the native measurement of the TSC, both by the 8254: channel 0 interrupts HZ times a second,
 * channel 2 counts a known time.
 * Ref: Intel 8254 data sheet (control word, modes 0 and 2); IBM PC/AT Technical Reference, port 61h.
 */
#include "sched.h"

#define PIT_HZ 1193182
#define CHANNEL0 0x40
#define CHANNEL2 0x42
#define CONTROL 0x43
#define CHANNEL0_MODE2 0x34	/* both bytes, rate generator */
#define CHANNEL2_MODE0 0xb0	/* both bytes, output goes high at the end of the count */
#define PORT_61 0x61
#define GATE2 1
#define SPEAKER 2
#define OUT2 0x20
#define CALIBRATE_MS 5
#define TIMER_IRQ 0

void native_time_init(void);
u32 native_get_cpu_khz(void);

void native_time_init(void)
{
	u32 latch = (PIT_HZ + HZ / 2) / HZ;

	outb_p(CHANNEL0_MODE2, CONTROL);
	outb_p((u8)latch, CHANNEL0);
	outb_p((u8)(latch >> 8), CHANNEL0);
	request_irq(TIMER_IRQ, timer_interrupt);
}

/* kHz, 0 if the channel never finishes. */
u32 native_get_cpu_khz(void)
{
	u32 count = PIT_HZ * CALIBRATE_MS / 1000, polls, i;
	u32 flags = irq_save();
	u64 start, end;

	outb((u8)((inb(PORT_61) & ~SPEAKER) | GATE2), PORT_61);
	outb(CHANNEL2_MODE0, CONTROL);
	outb((u8)count, CHANNEL2);
	outb((u8)(count >> 8), CHANNEL2);
	start = read_tsc();
	for (polls = 0; !(inb(PORT_61) & OUT2); polls++) {
		if (polls == 1000000) {
			restore_fl(flags);
			return 0;
		}
		for (i = 0; i < 100; i++)
			cpu_relax();
	}
	end = read_tsc();
	restore_fl(flags);
	return (u32)div64_32(end - start, CALIBRATE_MS, NULL);
}
