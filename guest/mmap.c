/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Areas of an address space that a program asks for: mmap without a file, munmap, mprotect. An area is split where
 * a request ends in its middle; areas are not joined again.
 * Ref: POSIX.1-2001, mmap; Linux 2.6.23, mm/mprotect.c for the order of ops (an entry is taken out, the ops hear
 * of it, a new one is set, and the TLB is flushed once at the end).
 */
#include "mm.h"

#define MAP_PRIVATE 2
#define MAP_FIXED 0x10
#define MAP_ANONYMOUS 0x20
#define MMAP_BASE 0x40000000

static bool bad_range(u32 start, u32 length)
{
	return start % PAGE_SIZE || !length || length > TASK_SIZE || start > TASK_SIZE - PAGE_ALIGN(length);
}

/* Two areas instead of one if `at` lies inside. */
static s32 split(struct mm *mm, u32 at)
{
	struct vma *vma = find_vma(mm, at);
	u32 end;

	if (!vma || vma->start == at)
		return 0;
	end = vma->end;
	if (add_vma(mm, at, end, vma->prot, vma->flags))
		return -ENOMEM;
	vma->end = at;
	return 0;
}

static s32 split_both(struct mm *mm, u32 start, u32 end)
{
	return split(mm, start) || split(mm, end) ? -ENOMEM : 0;
}

s32 do_munmap(struct mm *mm, u32 start, u32 length)
{
	u32 end = start + PAGE_ALIGN(length), i = 0;

	if (bad_range(start, length))
		return -EINVAL;
	if (split_both(mm, start, end))
		return -ENOMEM;
	while (i < mm->nr_vmas) {
		struct vma *vma = &mm->vmas[i];

		if (vma->start < start || vma->end > end) {
			i++;
			continue;
		}
		clear_range(mm, vma->start, vma->end, true);
		*vma = mm->vmas[--mm->nr_vmas];
	}
	return 0;
}

/* The lowest gap above MMAP_BASE, 0 without one. */
static u32 find_gap(const struct mm *mm, u32 length)
{
	u32 start = MMAP_BASE, i;

	if (length > STACK_TOP - STACK_SIZE - MMAP_BASE)
		return 0;
	for (i = 0; i < mm->nr_vmas; i++)
		if (mm->vmas[i].start < start + length && start < mm->vmas[i].end) {
			start = mm->vmas[i].end;
			i = ~0u;	/* areas stand in no order: look at all of them again */
		}
	return start <= STACK_TOP - STACK_SIZE - length ? start : 0;
}

s32 do_mmap(struct mm *mm, u32 start, u32 length, u32 prot, u32 flags)
{
	u32 room = PAGE_ALIGN(length);
	s32 error;

	if ((flags & (MAP_PRIVATE | MAP_ANONYMOUS)) != (MAP_PRIVATE | MAP_ANONYMOUS) || bad_range(0, length))
		return -EINVAL;
	if (flags & MAP_FIXED) {
		error = do_munmap(mm, start, length);
		if (error)
			return error;
	} else {
		start = find_gap(mm, room);
	}
	if (!start || add_vma(mm, start, start + room, prot & 7, VMA_COMPARABLE))
		return -ENOMEM;
	return (s32)start;
}

s32 do_mprotect(struct mm *mm, u32 start, u32 length, u32 prot)
{
	u32 end = start + PAGE_ALIGN(length), at, i;

	if (bad_range(start, length) || prot > 7)
		return -EINVAL;
	for (at = start; at < end;) {	/* without a hole */
		const struct vma *vma = find_vma(mm, at);

		if (!vma)
			return -ENOMEM;
		at = vma->end;
	}
	if (split_both(mm, start, end))
		return -ENOMEM;
	for (i = 0; i < mm->nr_vmas; i++) {
		struct vma *vma = &mm->vmas[i];

		if (vma->start < start || vma->end > end)
			continue;
		vma->prot = prot;
		protect_range(mm, vma);
	}
	flush_tlb_user();
	return 0;
}
