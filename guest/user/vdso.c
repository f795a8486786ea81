/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the C library would look for in the kernel's page: the note that tells whether segments may reach beyond
 * 4 GiB (a platform that cuts them short sets the bit of "nosegneg").
 */
#include "user.h"

#define PT_NOTE 4
#define NOTE_CAPABILITIES 2

static u16 half(const u8 *at) { return *(const u16 *)at; }
static u32 word(const u8 *at) { return *(const u32 *)at; }

/* The note's contents: number of capabilities, mask, then bit number and name of each. */
static const u8 *find_note(const u8 *image)
{
	const u8 *header = image + word(image + 28);
	u32 i;

	for (i = 0; i < half(image + 44); i++, header += 32)
		if (word(header) == PT_NOTE) {
			const u8 *note = image + word(header + 4);

			if (word(note) == 4 && word(note + 8) == NOTE_CAPABILITIES && word(note + 12) == 0x554e47)
				return note + 16;
		}
	return 0;
}

void test_vdso(char **argv)
{
	const u8 *image = (const u8 *)auxiliary(argv, AT_SYSINFO_EHDR);
	const u8 *note = image && word(image) == 0x464c457f ? find_note(image) : 0;

	check("vdso: image", image != 0, 1);
	check("vdso: note", note != 0, 1);
	check("vdso: entry", (u32)image + (image ? word(image + 24) : 0), vsyscall);
	if (note) {
		check("vdso: capability", word(note) == 1 && same((const char *)note + 9, "nosegneg"), 1);
		print("vdso: nosegneg ");
		print(word(note + 4) >> note[8] & 1 ? "set\n" : "clear\n");
	}
	passed("vdso");
}
