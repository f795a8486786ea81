/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time as the kernel keeps it: ticks, the time of day, delays, and the native scheduler clock, from the TSC. */
#include "sched.h"

#define NS_PER_SECOND 1000000000u
#define SCALE_SHIFT 10

volatile u32 jiffies;
u32 tsc_khz;
static u32 tsc_scale;		/* ns per cycle, << SCALE_SHIFT */
static u32 boot_seconds;
static u64 boot_clock;		/* sched_clock when boot_seconds was read */
static u32 loops_per_tick;

u64 native_sched_clock(void);
void timekeeping_init(u32 seconds);
void tsc_init(u32 khz);
void calibrate_delay(void);

/* 0 until the TSC's rate is known. */
u64 native_sched_clock(void)
{
	u64 cycles;

	if (!tsc_scale)
		return 0;
	cycles = read_tsc();
	/* The high word's part first: 32 x 32 bits each, and nothing overflows for centuries. */
	return (((cycles >> 32) * tsc_scale) << (32 - SCALE_SHIFT)) + (((u32)cycles * (u64)tsc_scale) >> SCALE_SHIFT);
}

void timekeeping_init(u32 seconds)
{
	boot_seconds = seconds;
	boot_clock = sched_clock();
}

void tsc_init(u32 khz)
{
	u64 before;

	if (!khz)
		panic("the rate of the time-stamp counter is unknown");
	before = sched_clock();
	tsc_khz = khz;
	tsc_scale = (u32)div64_32((u64)1000000 << SCALE_SHIFT, khz, NULL);
	boot_clock += sched_clock() - before;	/* a clock that only begins now has not jumped */
	printk("Detected %u MHz processor.\n", (khz + 500) / 1000);
}

/* Seconds since 1970. */
u32 current_seconds(void)
{
	return boot_seconds + (u32)div64_32(sched_clock() - boot_clock, NS_PER_SECOND, NULL);
}

/* Seconds and nanoseconds since 1970 (`clock` 0) or since the clock began. */
void current_time(u32 clock, u32 time[2])
{
	u64 now = sched_clock() - (clock ? 0 : boot_clock);

	time[0] = (u32)div64_32(now, NS_PER_SECOND, &time[1]) + (clock ? 0 : boot_seconds);
}

void udelay(u32 microseconds)
{
	u64 cycles = (u64)microseconds * tsc_khz, start = read_tsc();

	cycles = div64_32(cycles, 1000, NULL);
	while (read_tsc() - start < cycles)
		cpu_relax();
}

/* The TSC serves for delays, so there is nothing to measure. */
void calibrate_delay(void)
{
	u64 first = read_tsc();

	loops_per_tick = tsc_khz * (1000 / HZ);
	BUG_ON(read_tsc() < first);
	printk("Calibrating delay loop (skipped), the TSC serves.. %u BogoMIPS\n",
	       (loops_per_tick + 250000 / HZ) / (500000 / HZ));
}

/* The tick, 1/HZ seconds, from whatever interrupt brings it. */
void timer_interrupt(struct pt_regs *regs)
{
	jiffies = jiffies + 1;
	scheduler_tick(user_mode(regs));
}
