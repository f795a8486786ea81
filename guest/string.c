/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory and strings. In assembly, because the compiler turns a C loop that copies into a call of memcpy. */
#include "kernel.h"

void *memcpy(void *to, const void *from, size_t n)
{
	void *d = to;
	u32 words = n >> 2;

	__asm__ volatile("rep movsl\n\tmovl %[rest], %%ecx\n\trep movsb"
			 : "+D"(d), "+S"(from), "+c"(words) : [rest] "r"(n & 3) : "memory");
	return to;
}

void *memmove(void *to, const void *from, size_t n)
{
	u8 *d = to;
	const u8 *s = from;

	if (d <= s || d >= s + n)
		return memcpy(to, from, n);
	d += n - 1;
	s += n - 1;
	__asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(d), "+S"(s), "+c"(n) : : "memory");
	return to;
}

void *memset(void *to, int value, size_t n)
{
	void *d = to;
	u32 words = n >> 2;

	__asm__ volatile("rep stosl\n\tmovl %[rest], %%ecx\n\trep stosb"
			 : "+D"(d), "+c"(words) : "a"((value & 0xff) * 0x01010101u), [rest] "r"(n & 3) : "memory");
	return to;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *p = a, *q = b;

	for (; n; n--, p++, q++)
		if (*p != *q)
			return *p - *q;
	return 0;
}

size_t strlen(const char *s)
{
	const char *end = s;

	while (*end)
		end++;
	return (size_t)(end - s);
}

int strcmp(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return (u8)*a - (u8)*b;
}

/* Copy as much as fits, always with a zero byte at the end; returns `to`. */
char *strncpy_end(char *to, const char *from, size_t room)
{
	size_t i;

	for (i = 0; i + 1 < room && from[i]; i++)
		to[i] = from[i];
	if (room)
		to[i] = 0;
	return to;
}
