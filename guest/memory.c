/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who has which page frame. Until zone_sizes_init pages are taken upwards from the end of the kernel, in memory
 * that the boot page tables map; after that every frame of low memory has a struct page and a free list holds
 * what nobody uses. All memory is low memory: what lies above LOWMEM_MAX is left alone.
 */
#include "mm.h"

#define LEGACY_END 0x100000 /* below 1 MiB: firmware tables, video memory, ROMs */

struct page *mem_map;
u32 max_low_pfn, free_pages;
static u32 early_next, early_limit, free_list;
static u32 initrd_start, initrd_end;

static bool is_ram(u32 frame)
{
	u64 address = (u64)frame << PAGE_SHIFT;
	u32 i;

	for (i = 0; i < e820_count; i++)
		if (e820_map[i].type == E820_RAM && e820_map[i].start <= address &&
		    e820_map[i].start + e820_map[i].size >= address + PAGE_SIZE)
			return true;
	return false;
}

/* Find out how much low memory there is. After memory_setup. */
void setup_memory(void)
{
	u32 i;

	for (i = 0; i < e820_count; i++) {
		u64 end = e820_map[i].start + e820_map[i].size;

		if (e820_map[i].type == E820_RAM)
			max_low_pfn = max(max_low_pfn, (u32)(min(end, (u64)LOWMEM_MAX) >> PAGE_SHIFT));
	}
	if (max_low_pfn << PAGE_SHIFT <= init_pg_tables_end)
		panic("no usable memory behind the kernel");
	early_next = PAGE_ALIGN(init_pg_tables_end);
	early_limit = max_low_pfn << PAGE_SHIFT;
	memcpy(&initrd_start, boot_params + 0x218, 4);	/* ramdisk_image, ramdisk_size of the zero page */
	memcpy(&initrd_end, boot_params + 0x21c, 4);
	initrd_end = initrd_end ? initrd_start + initrd_end : 0;
	printk("%uMB LOWMEM available.\n", max_low_pfn >> (20 - PAGE_SHIFT));
}

/* A zeroed page, for good. Faults if the boot page tables do not reach it. */
void *early_page(void)
{
	void *page;

	do {
		page = va(early_next);
		early_next += PAGE_SIZE;
	} while (pa(page) < initrd_end && pa(page) >= PAGE_DOWN(initrd_start));
	if (early_next > early_limit)
		panic("out of memory while the page tables are made");
	return memset(page, 0, PAGE_SIZE);
}

/* Give every frame its struct page and put the free ones on the list, lowest first. All low memory is mapped. */
void zone_sizes_init(void)
{
	u32 frame, size = PAGE_ALIGN(max_low_pfn * sizeof(struct page));

	if (PAGE_DOWN(read_cr3()) != PAGE_DOWN(pa(swapper_pg_dir)))
		panic("init_mm's page tables were built and are not in use");

	if (early_next < initrd_end && early_next + size > initrd_start)
		early_next = PAGE_ALIGN(initrd_end);
	mem_map = va(early_next);
	early_next += size;
	if (early_next > early_limit)
		panic("no room for mem_map");
	for (frame = max_low_pfn; frame-- > 0;) {
		u32 address = frame << PAGE_SHIFT;
		bool used = address < early_next || (address < initrd_end && address >= PAGE_DOWN(initrd_start));

		mem_map[frame] = (struct page){ .count = 1 };
		if (used || address < LEGACY_END || !is_ram(frame))
			continue;
		mem_map[frame].count = 0;
		mem_map[frame].next = free_list;
		free_list = frame;
		free_pages++;
	}
	printk("Zone ranges: Normal 0 -> %u\n", max_low_pfn);
}

void *get_page(void)
{
	u32 flags = irq_save();
	u32 frame = free_list;

	if (frame) {
		free_list = mem_map[frame].next;
		mem_map[frame].count = 1;
		free_pages--;
	}
	restore_fl(flags);
	return frame ? memset(va(frame << PAGE_SHIFT), 0, PAGE_SIZE) : NULL;
}

/* Give up one use of a page. */
void put_page(void *address)
{
	struct page *page = va_to_page(address);
	u32 flags = irq_save();

	BUG_ON(!page->count);
	if (!--page->count) {
		page->next = free_list;
		free_list = (u32)(page - mem_map);
		free_pages++;
	}
	restore_fl(flags);
}
