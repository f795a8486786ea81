/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory map. Natively it is the firmware's, handed over in the zero page; another platform's memory_setup
 * fills e820_map itself.
 * Ref: Linux/i386 boot protocol, zero page: count at 1e8h, entries of 20 bytes from 2d0h; ACPI spec. 15 (types).
 */
#include "mm.h"

#define ZERO_PAGE_COUNT 0x1e8
#define ZERO_PAGE_MAP 0x2d0

struct e820_entry e820_map[32];
u32 e820_count;

const char *native_memory_setup(void)
{
	u32 count = min((u32)boot_params[ZERO_PAGE_COUNT], (u32)ARRAY_SIZE(e820_map));

	memcpy(e820_map, boot_params + ZERO_PAGE_MAP, count * sizeof(e820_map[0]));
	e820_count = count;
	return "BIOS-e820";
}

static const char *type_name(u32 type)
{
	switch (type) {
	case E820_RAM:
		return "usable";
	case 3:
		return "ACPI data";
	case 4:
		return "ACPI NVS";
	default:
		return "reserved";
	}
}

void print_memory_map(const char *who)
{
	u32 i;

	printk("%s-provided physical RAM map:\n", strcmp(who, "BIOS-e820") ? who : "BIOS");
	for (i = 0; i < e820_count; i++)
		printk(" %s: %08x%08x - %08x%08x (%s)\n", who, (u32)(e820_map[i].start >> 32), (u32)e820_map[i].start,
		       (u32)((e820_map[i].start + e820_map[i].size) >> 32),
		       (u32)(e820_map[i].start + e820_map[i].size), type_name(e820_map[i].type));
}
