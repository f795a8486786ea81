/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Address spaces: made by exec and fork, taken down by exec and exit.
 * The ops hear of each turn in Linux's order: activate_mm before the first switch, dup_mmap at the end of a
 * fork, exit_mmap before the first page is unmapped.
 */
#include "sched.h"

#define NR_MM NR_TASKS

static struct mm address_spaces[NR_MM];
struct mm *active_mm = &init_mm;

struct mm *mm_alloc(void)
{
	u32 i;

	for (i = 0; i < NR_MM; i++) {
		struct mm *mm = &address_spaces[i];

		if (mm->pgd)
			continue;
		memset(mm, 0, sizeof(*mm));
		return pgd_alloc(mm) ? NULL : mm;
	}
	return NULL;
}

void mm_free(struct mm *mm)
{
	u32 i;

	if (active_mm == mm)
		switch_mm(&init_mm);
	arch_exit_mmap(mm);
	for (i = 0; i < mm->nr_vmas; i++)
		clear_range(mm, mm->vmas[i].start, mm->vmas[i].end, false);
	pgd_free(mm);
	if (mm->ldt)
		put_page(mm->ldt);
	mm->ldt = NULL;
	mm->ldt_entries = 0;
}

struct mm *mm_copy(struct mm *old)
{
	struct mm *mm = mm_alloc();
	s32 error = 0;
	u32 i;

	if (!mm)
		return NULL;
	mm->start_brk = old->start_brk;
	mm->brk = old->brk;
	if (old->ldt) {
		mm->ldt = get_page();
		if (mm->ldt) {
			memcpy(mm->ldt, old->ldt, PAGE_SIZE);
			mm->ldt_entries = old->ldt_entries;
		} else {
			error = -ENOMEM;
		}
	}
	for (i = 0; i < old->nr_vmas && !error; i++) {
		mm->vmas[mm->nr_vmas++] = old->vmas[i];
		error = copy_range(mm, old, &old->vmas[i]);
	}
	arch_dup_mmap(old, mm);
	flush_tlb_user();	/* the parent's own entries have become read-only */
	if (!error)
		return mm;
	mm_free(mm);
	return NULL;
}

s32 add_vma(struct mm *mm, u32 start, u32 end, u32 prot, u32 flags)
{
	if (mm->nr_vmas == NR_VMAS || start >= end || end > TASK_SIZE)
		return -ENOMEM;
	mm->vmas[mm->nr_vmas++] = (struct vma){ start, end, prot, flags };
	return 0;
}

struct vma *find_vma(struct mm *mm, u32 address)
{
	u32 i;

	for (i = 0; i < mm->nr_vmas; i++)
		if (mm->vmas[i].start <= address && address < mm->vmas[i].end)
			return &mm->vmas[i];
	return NULL;
}

/* Load another address space. A kernel thread runs on whatever is loaded, so it never comes here. */
void switch_mm(struct mm *next)
{
	struct mm *prev = active_mm;
	u32 flags;

	if (prev == next)
		return;
	flags = irq_save();
	active_mm = next;
	write_cr3(pa(next->pgd));
	if (prev->ldt != next->ldt)
		set_ldt(next->ldt, next->ldt_entries);
	restore_fl(flags);
}

/* Whether nothing else lies where the heap would be. */
static bool heap_fits(const struct mm *mm, u32 end)
{
	u32 i;

	for (i = 0; i < mm->nr_vmas; i++)
		if (mm->vmas[i].start > mm->start_brk && mm->vmas[i].start < end)
			return false;
	return end <= STACK_TOP - STACK_SIZE - PAGE_SIZE;
}

/* The new break; the old one if `brk` is out of bounds. The heap is an area of its own, empty at first. */
s32 set_brk(struct mm *mm, u32 brk)
{
	struct vma *heap = find_vma(mm, mm->start_brk);
	u32 end = PAGE_ALIGN(brk);

	if (brk < mm->start_brk || brk > TASK_SIZE || !heap_fits(mm, end))
		return (s32)mm->brk;
	if (end < PAGE_ALIGN(mm->brk))
		clear_range(mm, end, PAGE_ALIGN(mm->brk), true);
	if (heap && end == heap->start)
		*heap = mm->vmas[--mm->nr_vmas];
	else if (heap)
		heap->end = end;
	else if (end > mm->start_brk &&
		 add_vma(mm, mm->start_brk, end, PROT_READ | PROT_WRITE, VMA_COMPARABLE))
		return (s32)mm->brk;
	mm->brk = brk;
	return (s32)brk;
}
