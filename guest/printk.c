/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Messages. Each line begins with the scheduler clock's time, 0 until that clock runs.
 * Conversions: %d %u %x %c %s %p %%, with a width, `0` and `-`; `l` is accepted and changes nothing.
 */
#include "kernel.h"

struct output {
	char *next, *end;	/* `end` has room for the zero byte */
	u32 length;		/* without limit */
};

static void put(struct output *out, char c)
{
	if (out->next < out->end)
		*out->next++ = c;
	out->length++;
}

static void put_padded(struct output *out, const char *s, u32 length, u32 width, char pad, bool left)
{
	u32 i;

	for (i = length; !left && i < width; i++)
		put(out, pad);
	for (i = 0; i < length; i++)
		put(out, s[i]);
	for (i = length; left && i < width; i++)
		put(out, ' ');
}

static void put_number(struct output *out, u32 value, u32 base, bool negative, u32 width, char pad, bool left)
{
	char digits[12], *p = digits + sizeof(digits);

	do
		*--p = "0123456789abcdef"[value % base];
	while (value /= base);
	if (negative) {
		if (pad == '0' && width) {
			put(out, '-');
			width--;
		} else {
			*--p = '-';
		}
	}
	put_padded(out, p, (u32)(digits + sizeof(digits) - p), width, pad, left);
}

/* Returns what the length would be with room enough. */
int vsnprintf(char *buffer, size_t room, const char *format, __builtin_va_list arguments)
{
	struct output out = { buffer, buffer + (room ? room - 1 : 0), 0 };

	for (; *format; format++) {
		u32 width = 0;
		char pad = ' ';
		bool left = false;
		const char *s;
		s32 number;

		if (*format != '%') {
			put(&out, *format);
			continue;
		}
		format++;
		if (*format == '-') {
			left = true;
			format++;
		}
		if (*format == '0')
			pad = '0';
		while (*format >= '0' && *format <= '9')
			width = width * 10 + (u32)(*format++ - '0');
		while (*format == 'l')
			format++;
		switch (*format) {
		case 'd':
			number = __builtin_va_arg(arguments, s32);
			put_number(&out, number < 0 ? 0 - (u32)number : (u32)number, 10, number < 0, width, pad, left);
			break;
		case 'u':
			put_number(&out, __builtin_va_arg(arguments, u32), 10, false, width, pad, left);
			break;
		case 'p':
			width = 8;
			pad = '0';
			/* fall through */
		case 'x':
			put_number(&out, __builtin_va_arg(arguments, u32), 16, false, width, pad, left);
			break;
		case 'c':
			put(&out, (char)__builtin_va_arg(arguments, int));
			break;
		case 's':
			s = __builtin_va_arg(arguments, const char *);
			if (!s)
				s = "(null)";
			put_padded(&out, s, strlen(s), width, ' ', left);
			break;
		case '%':
			put(&out, '%');
			break;
		default:	/* ours to know better: show it */
			put(&out, '%');
			format--;
		}
	}
	if (room)
		*out.next = 0;
	return (int)out.length;
}

int snprintf(char *buffer, size_t room, const char *format, ...)
{
	__builtin_va_list arguments;
	int length;

	__builtin_va_start(arguments, format);
	length = vsnprintf(buffer, room, format, arguments);
	__builtin_va_end(arguments);
	return length;
}

static bool inside_line;

/* Interrupts are off, so that lines do not mix. */
void printk(const char *format, ...)
{
	char text[320], stamp[24];
	u32 flags = irq_save(), length, start, end;
	__builtin_va_list arguments;

	__builtin_va_start(arguments, format);
	length = min((u32)vsnprintf(text, sizeof(text), format, arguments), (u32)sizeof(text) - 1);
	__builtin_va_end(arguments);
	for (start = 0; start < length; start = end) {
		for (end = start; end < length && text[end] != '\n'; end++)
			;
		if (!inside_line) {
			u32 ns, seconds = (u32)div64_32(sched_clock(), 1000000000, &ns);

			console_write(stamp, (u32)snprintf(stamp, sizeof(stamp), "[%5u.%06u] ", seconds, ns / 1000));
		}
		inside_line = end == length;
		if (!inside_line)
			end++;
		console_write(text + start, end - start);
	}
	restore_fl(flags);
}
