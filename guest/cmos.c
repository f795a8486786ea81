/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The native wall clock: the MC146818 of every PC.
 * Ref: Motorola MC146818A data sheet (registers A and B); register 32h is the century by convention, and ignored.
 */
#include "kernel.h"

#define INDEX 0x70
#define DATA 0x71
#define SECONDS 0
#define MINUTES 2
#define HOURS 4
#define DAY 7
#define MONTH 8
#define YEAR 9
#define REGISTER_A 10
#define REGISTER_B 11
#define UPDATE_IN_PROGRESS 0x80
#define SET 0x80
#define BINARY 0x04
#define HOURS_24 0x02

u32 native_get_wallclock(void);
s32 native_set_wallclock(u32 seconds);

static u8 cmos_read(u8 index)
{
	outb(index, INDEX);
	return inb(DATA);
}

static void cmos_write(u8 index, u8 value)
{
	outb(index, INDEX);
	outb(value, DATA);
}

static u32 from_bcd(u32 value) { return (value >> 4) * 10 + (value & 15); }
static u32 to_bcd(u32 value) { return value / 10 << 4 | value % 10; }

/* Days since 1970-01-01, proleptic Gregorian; a year begins in March, so that the leap day is its last. */
static u32 days_from_date(u32 year, u32 month, u32 day)
{
	if (month < 3) {
		month += 12;
		year--;
	}
	return 365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + day - 1 - 719468;
}

u32 native_get_wallclock(void)
{
	static const u8 index[6] = { SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR };
	u32 now[6], again, i, hours_pm = 0;
	u8 mode;

	do {	/* the registers change while we read: take them when the second is the same before and after */
		while (cmos_read(REGISTER_A) & UPDATE_IN_PROGRESS)
			cpu_relax();
		for (i = 0; i < 6; i++)
			now[i] = cmos_read(index[i]);
		again = cmos_read(SECONDS);
	} while (again != now[0]);
	mode = cmos_read(REGISTER_B);
	if (!(mode & HOURS_24)) {
		hours_pm = now[2] & 0x80;
		now[2] &= 0x7f;
	}
	if (!(mode & BINARY))
		for (i = 0; i < 6; i++)
			now[i] = from_bcd(now[i]);
	if (!(mode & HOURS_24))
		now[2] = now[2] % 12 + (hours_pm ? 12 : 0);
	now[5] += now[5] < 70 ? 2000 : 1900;
	return ((days_from_date(now[5], now[4], now[3]) * 24 + now[2]) * 60 + now[1]) * 60 + now[0];
}

s32 native_set_wallclock(u32 seconds)
{
	u32 days = seconds / 86400, rest = seconds % 86400, year = 1970 + days / 366, month = 1, value[6], i;
	static const u8 index[6] = { SECONDS, MINUTES, HOURS, DAY, MONTH, YEAR };
	u8 mode = cmos_read(REGISTER_B);

	while (days_from_date(year + 1, 1, 1) <= days)
		year++;
	while (month < 12 && days_from_date(year, month + 1, 1) <= days)
		month++;
	value[0] = rest % 60;
	value[1] = rest / 60 % 60;
	value[2] = rest / 3600;
	value[3] = days - days_from_date(year, month, 1) + 1;
	value[4] = month;
	value[5] = year % 100;
	mode |= HOURS_24;
	cmos_write(REGISTER_B, mode | SET);	/* no update while we write */
	for (i = 0; i < 6; i++)
		cmos_write(index[i], (u8)(mode & BINARY ? value[i] : to_bcd(value[i])));
	cmos_write(REGISTER_B, mode & (u8)~SET);
	return 0;
}
