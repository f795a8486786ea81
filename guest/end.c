/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end block: what the run came to, for whoever looks at memory afterwards. Its address is in the note and its
 * layout an interface: version 1.
 */
#include "sched.h"

#define MAGIC 0x42455650 /* "PVEB" */
#define RESULTS 64
#define PROCESSES 32
#define SPACES 8
#define RANGES 16
#define RANGE_USER 8
#define RANGE_MAYBE_READ_ONLY 2	/* the platform may hold single pages of it read-only, page tables for example */

struct end_range {
	u32 start, end, prot, flags;	/* prot: R 1, W 2, X 4, user 8 */
};

struct end_block {
	u32 magic, version;
	char panic_message[128];
	u32 panic_eip;
	u32 nr_results;
	struct { char name[28]; u32 passed; } results[RESULTS];
	u32 nr_processes;
	struct { u32 pid, status, exited; } processes[PROCESSES];
	u32 nr_spaces;
	struct { u32 pid, pgd, nr_ranges; struct end_range ranges[RANGES]; } spaces[SPACES];
};

struct end_block end_block section(".data") = { .magic = MAGIC, .version = 1 };

extern char _text[], _etext[], _rodata_end[];

void end_block_message(const char *message, u32 eip)
{
	strncpy_end(end_block.panic_message, message, sizeof(end_block.panic_message));
	end_block.panic_eip = eip;
}

void end_block_result(const char *name, u32 passed)
{
	u32 i = end_block.nr_results;

	if (i == RESULTS)
		return;
	strncpy_end(end_block.results[i].name, name, sizeof(end_block.results[i].name));
	end_block.results[i].passed = passed;
	end_block.nr_results = i + 1;
}

/* At the start of a process and at its exit. In a full table the first one that is over makes room. */
void end_block_process(u32 pid, u32 status, u32 exited)
{
	u32 i, j;

	for (i = 0; i < end_block.nr_processes; i++)
		if (end_block.processes[i].pid == pid)
			break;
	if (i == PROCESSES) {
		for (i = 0; i < PROCESSES - 1 && !end_block.processes[i].exited; i++)
			;
		for (j = i; j < PROCESSES - 1; j++)
			end_block.processes[j] = end_block.processes[j + 1];
		i = --end_block.nr_processes;
	}
	if (i == end_block.nr_processes)
		end_block.nr_processes++;
	end_block.processes[i].pid = pid;
	end_block.processes[i].status = status;
	end_block.processes[i].exited = exited;
}

static void add_range(u32 space, u32 start, u32 end, u32 prot, u32 flags)
{
	u32 i = end_block.spaces[space].nr_ranges;

	if (i == RANGES || start >= end)
		return;
	end_block.spaces[space].ranges[i] = (struct end_range){ start, end, prot, flags };
	end_block.spaces[space].nr_ranges = i + 1;
}

/* Runs of present pages with equal rights. A page that a fork still shares is not writable yet. */
static void add_area(u32 space, struct mm *mm, const struct vma *vma, u32 executable)
{
	u32 address, start = vma->start, previous = 0;

	for (address = vma->start; address < vma->end; address += PAGE_SIZE) {
		const u64 *ptep = map_pte(mm, address, false);
		u64 pte = ptep ? pte_val(*ptep) : 0;
		u32 prot = 0;

		if (pte & _PAGE_PRESENT)
			prot = (vma->prot & ~(u32)PROT_WRITE) | (pte & _PAGE_RW ? PROT_WRITE : 0) | RANGE_USER | executable;
		if (prot == previous)
			continue;
		if (previous)
			add_range(space, start, address, previous, vma->flags);
		start = address;
		previous = prot;
	}
	if (previous)
		add_range(space, start, vma->end, previous, vma->flags);
}

/* The address spaces that are alive now: what user memory is mapped, and low memory by its rights. */
void end_block_spaces(void)
{
	u32 executable = nx_enabled ? 0 : PROT_EXEC;
	u32 i, j, space = 0;

	for (i = 0; i < NR_TASKS && space < SPACES; i++) {
		const struct task *task = &tasks[i];

		if (task->state == TASK_UNUSED || !task->mm)
			continue;
		end_block.spaces[space].pid = task->pid;
		end_block.spaces[space].pgd = (u32)task->mm->pgd;
		end_block.spaces[space].nr_ranges = 0;
		for (j = 0; j < task->mm->nr_vmas; j++)
			add_area(space, task->mm, &task->mm->vmas[j], executable);
		add_range(space, (u32)_text, PAGE_ALIGN(_etext), PROT_READ | PROT_EXEC, 0);
		add_range(space, PAGE_ALIGN(_etext), (u32)_rodata_end, PROT_READ | executable, 0);
		add_range(space, (u32)_rodata_end, PAGE_OFFSET + (max_low_pfn << PAGE_SHIFT),
			  PROT_READ | PROT_WRITE | executable, RANGE_MAYBE_READ_ONLY);
		space++;
	}
	end_block.nr_spaces = space;
}
