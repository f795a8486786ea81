/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * execve of the programs that are embedded in the kernel. One image may have several names.
 * Ref: System V ABI, Intel386 supplement: ELF32 program headers, the initial stack (argc, argv, envp, auxv).
 */
#include "sched.h"

#define PT_LOAD 1
#define PF_X 1
#define PF_W 2
#define AT_SYSINFO 32
#define AT_SYSINFO_EHDR 33

struct elf_header {
	u8 ident[16];
	u16 type, machine;
	u32 version, entry, phoff, shoff, flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct elf_segment {
	u32 type, offset, vaddr, paddr, filesz, memsz, flags, align;
};

extern const u8 init_elf[], true_elf[];

static const struct {
	const char *name;
	const u8 *image;
} programs[] = {
	{ "/init", init_elf },
	{ "/bench", init_elf },
	{ "/true", true_elf },
};

static const u8 *find_program(const char *name)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(programs); i++)
		if (!strcmp(programs[i].name, name))
			return programs[i].image;
	return NULL;
}

/* Fill pages of an address space that is not in use yet. Its own protection does not count. */
static s32 fill(struct mm *mm, u32 address, const void *data, u32 length, u32 prot)
{
	while (length) {
		u32 offset = address % PAGE_SIZE, n = min(length, PAGE_SIZE - offset);
		u64 *ptep = map_pte(mm, address, true);
		u8 *page;

		if (!ptep)
			return -ENOMEM;
		if (pte_val(*ptep) & _PAGE_PRESENT) {
			page = va(pte_val(*ptep) & PTE_ADDRESS);
		} else {
			page = get_page();
			if (!page)
				return -ENOMEM;
			set_pte_at(mm, PAGE_DOWN(address), ptep, pte_of(page, page_protection(prot, true)));
		}
		memcpy(page + offset, data, n);
		unmap_pte(ptep);
		data = (const u8 *)data + n;
		address += n;
		length -= n;
	}
	return 0;
}

static s32 load_segment(struct mm *mm, const u8 *image, const struct elf_segment *segment)
{
	u32 start = PAGE_DOWN(segment->vaddr), end = PAGE_ALIGN(segment->vaddr + segment->memsz);
	u32 prot = PROT_READ | (segment->flags & PF_W ? PROT_WRITE : 0) | (segment->flags & PF_X ? PROT_EXEC : 0);
	s32 error = add_vma(mm, start, end, prot, VMA_COMPARABLE);

	if (!error)
		error = fill(mm, segment->vaddr, image + segment->offset, segment->filesz, prot);
	mm->start_brk = mm->brk = max(mm->brk, end);
	return error;
}

/*
 * argc, argv[0..1], NULL, no environment, AT_SYSINFO, AT_SYSINFO_EHDR; the strings lie above. Returns ESP, 0 without
 * memory.
 */
static u32 push_arguments(struct mm *mm, const char *name, const char *argument)
{
	u32 name_at, argument_at, esp = STACK_TOP;
	u32 argc = *argument ? 2 : 1;
	u32 words[12] = { 0 };
	u32 *next = words;

	esp -= strlen(argument) + 1;
	argument_at = esp;
	esp -= strlen(name) + 1;
	name_at = esp;
	esp = (esp & ~15u) - 48;
	*next++ = argc;
	*next++ = name_at;
	if (argc == 2)
		*next++ = argument_at;
	next += 2;	/* the ends of argv and of the environment */
	*next++ = AT_SYSINFO;
	*next++ = vsyscall_address;
	*next++ = AT_SYSINFO_EHDR;
	*next = vdso_at;
	if (fill(mm, argument_at, argument, strlen(argument) + 1, PROT_READ | PROT_WRITE) ||
	    fill(mm, name_at, name, strlen(name) + 1, PROT_READ | PROT_WRITE) ||
	    fill(mm, esp, words, sizeof(words), PROT_READ | PROT_WRITE))
		return 0;
	return esp;
}

static s32 load_image(struct mm *mm, const u8 *image, u32 *entry)
{
	const struct elf_header *header = (const void *)image;
	const struct elf_segment *segments = (const void *)(image + header->phoff);
	u32 i;
	s32 error;

	if (memcmp(header->ident, "\177ELF\1\1", 6) || header->machine != 3)
		return -ENOEXEC;
	*entry = header->entry;
	for (i = 0; i < header->phnum; i++) {
		if (segments[i].type != PT_LOAD || !segments[i].memsz)
			continue;
		error = load_segment(mm, image, &segments[i]);
		if (error)
			return error;
	}
	return add_vma(mm, STACK_TOP - STACK_SIZE, STACK_TOP, PROT_READ | PROT_WRITE, 0);
}

/* Replace the current task's program. After success the old one is gone, and `regs` start the new one. */
s32 do_execve(struct pt_regs *regs, const char *name, const char *argument)
{
	struct task *task = current;
	struct mm *mm, *old = task->mm;
	const u8 *image = find_program(name);
	u32 entry = 0, esp = 0;
	s32 error;

	if (!image)
		return -ENOENT;
	mm = mm_alloc();
	if (!mm)
		return -ENOMEM;
	error = load_image(mm, image, &entry);
	if (!error) {
		esp = push_arguments(mm, name, argument);
		error = esp ? 0 : -ENOMEM;
	}
	if (error) {
		mm_free(mm);
		return error;
	}
	activate_mm(active_mm, mm);
	task->mm = mm;
	switch_mm(mm);
	if (old)
		mm_free(old);

	if (!old)
		files_of_first_program(task);
	signals_of_new_program(task);
	fpu_drop(task);
	memset(task->thread.tls, 0, sizeof(task->thread.tls));
	load_tls(&task->thread, 0);
	__asm__ volatile("movl %0, %%fs\n\tmovl %0, %%gs" : : "r"(0));
	memset(regs, 0, sizeof(*regs));
	regs->ds = regs->es = regs->ss = __USER_DS;
	regs->cs = __USER_CS;
	regs->eip = entry;
	regs->esp = esp;
	regs->eflags = X86_EFLAGS_IF | 2 | task->thread.iopl;
	strncpy_end(task->name, *argument ? argument : name + 1, sizeof(task->name));
	end_block_process(task->pid, 0, 0);
	return 0;
}
