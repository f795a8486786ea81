/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The console, through console_ops; the native one is the first serial port, polled.
 * Ref: National Semiconductor PC16550D data sheet (LSR bits 0 and 5).
 */
#include "kernel.h"

#define COM1 0x3f8
#define DATA 0
#define LSR 5
#define LSR_DATA_READY 0x01
#define LSR_TRANSMITTER_EMPTY 0x20

void native_console_write(const char *s, u32 length);
s32 native_console_read(char *buffer, u32 length);

void console_write(const char *s, u32 length)
{
	call_slot(console_ops[CONSOLE_WRITE], (u32)s, length);
}

s32 console_read(char *buffer, u32 length)
{
	return (s32)call_slot(console_ops[CONSOLE_READ], (u32)buffer, length);
}

static void send(char c)
{
	while (!(inb(COM1 + LSR) & LSR_TRANSMITTER_EMPTY))
		cpu_relax();
	outb((u8)c, COM1 + DATA);
}

/* A terminal wants CR LF. */
void native_console_write(const char *s, u32 length)
{
	u32 i;

	for (i = 0; i < length; i++) {
		if (s[i] == '\n')
			send('\r');
		send(s[i]);
	}
}

/* What is there, without waiting. */
s32 native_console_read(char *buffer, u32 length)
{
	u32 i;

	for (i = 0; i < length && inb(COM1 + LSR) & LSR_DATA_READY; i++)
		buffer[i] = (char)inb(COM1 + DATA);
	return (s32)i;
}
