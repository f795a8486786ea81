/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 64-bit division. The compiler's run-time library takes its arguments on the stack, but this kernel is compiled
 * with regparm(3); these have the same flags as their callers.
 */
#include "kernel.h"

/* `divisor` is not 0. Two DIVs: the high word's remainder is the high word of the second dividend. */
u64 div64_32(u64 value, u32 divisor, u32 *remainder)
{
	u32 high = (u32)(value >> 32), low = (u32)value, quotient_high = high / divisor, rest = high % divisor;

	__asm__("divl %[divisor]" : "+a"(low), "+d"(rest) : [divisor] "r"(divisor) : "cc");
	if (remainder)
		*remainder = rest;
	return (u64)quotient_high << 32 | low;
}

static u64 divide(u64 value, u64 divisor, u64 *remainder)
{
	u64 quotient = 0, rest = 0;
	int bit;

	for (bit = 63; bit >= 0; bit--) {
		rest = rest << 1 | (value >> bit & 1);
		if (rest >= divisor) {
			rest -= divisor;
			quotient |= 1ULL << bit;
		}
	}
	*remainder = rest;
	return quotient;
}

u64 __udivdi3(u64 value, u64 divisor);
u64 __umoddi3(u64 value, u64 divisor);

u64 __udivdi3(u64 value, u64 divisor)
{
	u64 rest;

	return divisor >> 32 ? divide(value, divisor, &rest) : div64_32(value, (u32)divisor, NULL);
}

u64 __umoddi3(u64 value, u64 divisor)
{
	u64 rest;
	u32 small;

	if (divisor >> 32) {
		divide(value, divisor, &rest);
		return rest;
	}
	div64_32(value, (u32)divisor, &small);
	return small;
}
