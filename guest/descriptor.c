/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptor tables: the CPU's own, and what processes may put into them (TLS in the GDT, a whole LDT).
 * Ref: Intel SDM vol. 3A, 3.4.5 (segment descriptors), 7.2 (TSS); struct user_desc of Linux's modify_ldt(2).
 */
#include "sched.h"

#define CR4_VME 1
#define CR4_PVI 2
#define CR4_TSD 4
#define CR4_DE 8
#define DESCRIPTOR_TSS 0x89
#define LDT_MAX (PAGE_SIZE / 8)
#define IO_BITMAP_NONE 0x8000 /* behind the TSS's limit: no port is allowed */

extern void double_fault_entry(void);
u64 idt_table[256] aligned(8) section(".bss.page_aligned");
static struct tss double_fault_tss aligned(128);
static u8 double_fault_stack[4096] aligned(16);

struct user_desc {
	u32 entry_number, base, limit;
	u32 seg_32bit : 1, contents : 2, read_exec_only : 1, limit_in_pages : 1, seg_not_present : 1, useable : 1;
};

static void write_tss(u32 entry, struct tss *tss)
{
	u32 base = (u32)tss;

	tss->io_bitmap = IO_BITMAP_NONE;
	write_gdt_entry(cpu_gdt_table, entry, base << 16 | (offsetof(struct tss, io_bitmap) + 1),
			(base & 0xff000000) | DESCRIPTOR_TSS << 8 | (base >> 16 & 0xff));
}

void cpu_init(void)
{
	struct descriptor_table idt = { sizeof(idt_table) - 1, (u32)idt_table };
	struct descriptor_table gdt = { sizeof(u64) * GDT_ENTRIES - 1, (u32)cpu_gdt_table };
	struct tss *df = &double_fault_tss;

	printk("Initializing CPU#0\n");
	write_cr4(read_cr4() & ~(u32)(CR4_VME | CR4_PVI | CR4_TSD | CR4_DE));
	load_idt(&idt);
	load_gdt(&gdt);
	cpu_tss.ss0 = __KERNEL_DS | kernel_rpl;
	load_esp0(&cpu_tss, &current->thread);
	write_tss(GDT_ENTRY_TSS, &cpu_tss);
	load_tr_desc();
	set_ldt(NULL, 0);

	/* A double fault is taken on a stack and page tables that are good whatever happened to the others. */
	df->cr3 = pa(swapper_pg_dir);
	df->eip = (u32)double_fault_entry;
	df->eflags = 2;
	df->esp = (u32)double_fault_stack + sizeof(double_fault_stack);
	df->cs = __KERNEL_CS | kernel_rpl;
	df->ss = __KERNEL_DS | kernel_rpl;
	df->ds = df->es = __USER_DS;
	write_tss(GDT_ENTRY_DOUBLEFAULT_TSS, df);

	set_debugreg(0, 0);
	set_debugreg(1, 0);
	set_debugreg(2, 0);
	set_debugreg(3, 0);
	set_debugreg(6, 0);
	set_debugreg(7, 0);
}

void double_fault(void);

/* The other task's TSS holds the registers at the fault. No task is current here: the stack is nobody's. */
void double_fault(void)
{
	struct descriptor_table gdt;

	store_gdt(&gdt);
	printk("PANIC: double fault, gdt at %08x [%u bytes]\n", gdt.base, gdt.limit + 1u);
	printk("eip = %08x, esp = %08x, eflags = %08x, cr2 = %08x\n", cpu_tss.eip, cpu_tss.esp, cpu_tss.eflags,
	       read_cr2());
	printk("eax = %08x, ebx = %08x, ecx = %08x, edx = %08x\n", cpu_tss.eax, cpu_tss.ebx, cpu_tss.ecx, cpu_tss.edx);
	printk("esi = %08x, edi = %08x, ebp = %08x\n", cpu_tss.esi, cpu_tss.edi, cpu_tss.ebp);
	panic("double fault");
}

static bool is_empty(const struct user_desc *d)
{
	return !d->base && !d->limit && !d->contents && d->read_exec_only && !d->seg_32bit && !d->limit_in_pages &&
	       d->seg_not_present && !d->useable;
}

/* A data or code segment of ring 3. */
static u64 to_descriptor(const struct user_desc *d)
{
	u32 low, high;

	if (is_empty(d))
		return 0;
	low = d->base << 16 | (d->limit & 0xffff);
	high = (d->base & 0xff000000) | (d->base >> 16 & 0xff) | (d->limit & 0xf0000) |
	       (d->read_exec_only ^ 1u) << 9 | (u32)d->contents << 10 | (d->seg_not_present ^ 1u) << 15 |
	       (u32)d->seg_32bit << 22 | (u32)d->limit_in_pages << 23 | (u32)d->useable << 20 | 0x7000;
	return (u64)high << 32 | low;
}

s32 sys_set_thread_area(void *pointer)
{
	struct thread *thread = &current->thread;
	struct user_desc d;
	u32 entry;

	if (copy_from_user(&d, pointer, sizeof(d)))
		return -EFAULT;
	entry = d.entry_number;
	if (entry == 0xffffffff) {	/* any free one, and tell which */
		for (entry = GDT_ENTRY_TLS_MIN; entry <= GDT_ENTRY_TLS_MAX; entry++)
			if (!thread->tls[entry - GDT_ENTRY_TLS_MIN])
				break;
		if (entry > GDT_ENTRY_TLS_MAX)
			return -ESRCH;
		if (copy_to_user(pointer, &entry, sizeof(entry)))
			return -EFAULT;
	}
	if (entry < GDT_ENTRY_TLS_MIN || entry > GDT_ENTRY_TLS_MAX)
		return -EINVAL;
	thread->tls[entry - GDT_ENTRY_TLS_MIN] = to_descriptor(&d);
	load_tls(thread, 0);
	return 0;
}

/* What there is, from the first entry on; behind it lie zeroes. The bytes of the whole answer. */
static s32 read_ldt(const struct mm *mm, void *pointer, u32 size)
{
	size = min(size, mm->ldt_entries * 8);
	return copy_to_user(pointer, mm->ldt, size) ? -EFAULT : (s32)size;
}

/* Function 0 reads, function 17 writes one entry. */
s32 sys_modify_ldt(u32 function, void *pointer, u32 size)
{
	struct mm *mm = current->mm;
	struct user_desc d;
	u64 descriptor;

	if (!function)
		return read_ldt(mm, pointer, size);
	if (function != 17)
		return -ENOSYS;
	if (size != sizeof(d))
		return -EINVAL;
	if (copy_from_user(&d, pointer, sizeof(d)))
		return -EFAULT;
	if (d.entry_number >= LDT_MAX)
		return -EINVAL;
	if (!mm->ldt) {
		mm->ldt = get_page();
		if (!mm->ldt)
			return -ENOMEM;
		mm->ldt_entries = LDT_MAX;
		set_ldt(mm->ldt, mm->ldt_entries);
	}
	descriptor = to_descriptor(&d);
	write_ldt_entry(mm->ldt, d.entry_number, (u32)descriptor, (u32)(descriptor >> 32));
	return 0;
}

/* The level is in the frame for this return, and in the thread for the next switches. */
s32 sys_iopl(struct pt_regs *regs, u32 level)
{
	if (level > 3)
		return -EINVAL;
	current->thread.iopl = level << 12;
	regs->eflags = (regs->eflags & ~0x3000u) | level << 12;
	set_iopl_mask(level << 12);
	return 0;
}
