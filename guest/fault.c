/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page faults: demand-zero pages, copy on write, and what is nobody's business. Kernel code that touches user
 * memory, an MSR or a doubtful selector has an entry in the exception table instead of a check beforehand.
 * Ref: Intel SDM vol. 3A, 4.7 (error code), 6.15 (#PF).
 */
#include "sched.h"

#define FAULT_PRESENT 1
#define FAULT_WRITE 2
#define FAULT_USER 4
#define FAULT_FETCH 16

struct exception_entry {
	u32 insn, fixup;
};
extern struct exception_entry ex_table[], ex_table_end[];

/* Entries stand in no order, and free ones are zero. */
bool fixup_exception(struct pt_regs *regs)
{
	const struct exception_entry *entry;

	for (entry = ex_table; entry < ex_table_end; entry++)
		if (entry->insn == regs->eip && entry->insn) {
			regs->eip = entry->fixup;
			return true;
		}
	return false;
}

/* Give a written page that others still use a copy of its own. */
static s32 copy_on_write(struct mm *mm, u32 address, const struct vma *vma, u64 *ptep)
{
	void *old = va(pte_val(*ptep) & PTE_ADDRESS), *page;

	if (va_to_page(old)->count == 1) {
		/* The last user just gets his right back. */
		set_pte_present(mm, address, ptep, pte_of(old, page_protection(vma->prot, true)));
		pte_update_defer(mm, address, ptep);
		flush_tlb_single(address);
		return 0;
	}
	page = get_page();
	if (!page)
		return -ENOMEM;
	memcpy(page, old, PAGE_SIZE);
	pte_clear(mm, address, ptep);
	flush_tlb_single(address);
	set_pte_at(mm, address, ptep, pte_of(page, page_protection(vma->prot, true)));
	put_page(old);
	return 0;
}

/* Make `address` accessible as asked. -EFAULT if the address space does not allow it. */
s32 handle_fault(struct mm *mm, u32 address, bool write, bool execute)
{
	struct vma *vma = find_vma(mm, address);
	u64 *ptep, pte;
	s32 error = 0;

	address = PAGE_DOWN(address);
	if (!vma || !vma->prot || (write && !(vma->prot & PROT_WRITE)) || (execute && nx_enabled && !(vma->prot & PROT_EXEC)))
		return -EFAULT;
	ptep = map_pte(mm, address, true);
	if (!ptep)
		return -ENOMEM;
	pte = pte_val(*ptep);
	if (!(pte & _PAGE_PRESENT)) {
		void *page = get_page();

		if (page)
			set_pte_at(mm, address, ptep, pte_of(page, page_protection(vma->prot, true)));
		else
			error = -ENOMEM;
	} else if (write && !(pte & _PAGE_RW)) {
		error = copy_on_write(mm, address, vma, ptep);
	} else {
		flush_tlb_single(address);	/* a stale translation */
	}
	unmap_pte(ptep);
	return error;
}

void do_page_fault(struct pt_regs *regs, u32 error);

void do_page_fault(struct pt_regs *regs, u32 error)
{
	u32 address = read_cr2();	/* before interrupts, whose handlers may fault */
	struct task *task = current;

	if (regs->eflags & X86_EFLAGS_IF)
		irq_enable();
	if (address < TASK_SIZE && task->mm) {
		bool user_code = user_mode(regs);

		if (!user_code && !(error & FAULT_WRITE) && error & FAULT_PRESENT)
			goto bad;
		if (!handle_fault(task->mm, address, error & FAULT_WRITE, error & FAULT_FETCH))
			return;
	}
bad:
	if (user_mode(regs)) {
		if (!signal_handled(SIGSEGV))
			printk("%s[%u]: segfault at %08x eip %08x error %x\n", task->name, task->pid, address,
			       regs->eip, error & (FAULT_PRESENT | FAULT_WRITE | FAULT_USER));
		force_signal(SIGSEGV, address);
		return;
	}
	if (fixup_exception(regs))
		return;
	if (address < PAGE_SIZE)
		printk("BUG: unable to handle kernel NULL pointer dereference at virtual address %08x\n", address);
	else
		printk("BUG: unable to handle kernel paging request at virtual address %08x\n", address);
	die("Oops", regs, error);
}

static bool access_ok(const void *pointer, u32 n)
{
	return (u32)pointer < TASK_SIZE && n <= TASK_SIZE - (u32)pointer;
}

/* A fault leaves in ECX what was not copied. */
static u32 copy_user(void *to, const void *from, u32 n)
{
	__asm__ volatile("1:\trep movsb\n2:\n\t.pushsection .ex_table,\"aw\"\n\t.long 1b, 2b\n\t.popsection"
			 : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return n;
}

u32 copy_from_user(void *to, const void *from, u32 n)
{
	return access_ok(from, n) ? copy_user(to, from, n) : n;
}

u32 copy_to_user(void *to, const void *from, u32 n)
{
	return access_ok(to, n) ? copy_user(to, from, n) : n;
}

/* Length of the string, -EFAULT, or -EINVAL if it does not fit with its zero byte. */
s32 string_from_user(char *to, const char *from, u32 room)
{
	u32 i;

	for (i = 0; i < room; i++) {
		if (copy_from_user(to + i, from + i, 1))
			return -EFAULT;
		if (!to[i])
			return (s32)i;
	}
	return -EINVAL;
}
