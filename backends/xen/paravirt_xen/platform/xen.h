/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the hypervisor's C and native.py share. Each file of it is a fast form of what Python does as well; where
 * something is not as usual it says so, changes nothing and leaves the exit to Python.
 */
#ifndef PARAVIRT_XEN_H
#define PARAVIRT_XEN_H

#include "frames.h"
#include "machine.h"

enum { ENV_ESI = 48, ENV_EDI = 56, ENV_CR = 424, CR2 = ENV_CR + 16, CR3 = ENV_CR + 24, SEGMENT_BYTES = 24 };
enum { SEG_ES, SEG_CS, SEG_SS, SEG_DS };
enum { PTE_P = 1, PTE_RW = 2, PTE_U = 4, PTE_A = 0x20, PTE_D = 0x40, PTE_PS = 0x80 };
#define PTE_FRAME 0xffffff000ull
#define NOWHERE (~0ull)

struct segment { uint32_t selector, pad; uint64_t base; uint32_t limit, high; };
#define SEGMENT(m, index) ((struct segment *)((m)->env + ENV_SEGS + SEGMENT_BYTES * (index)))

struct gate { uint32_t eip; uint16_t cs; uint8_t dpl, masks; };

/* One per domain, `platform_state` of its machine. native.py has the same fields in the same order. */
struct xen {
	uint8_t *ram;
	uint64_t ram_size;
	uint64_t vcpu_info;		/* machine address */
	uint64_t gdt_window;		/* machine address of the L1 entries that show the GDT: 16 pages */
	uint32_t *kernel_stack;		/* SS and ESP for entries from ring 3; traps.py's */
	uint32_t iopl_shown;		/* for the EFLAGS of a frame: the virtual IOPL with vm_assist type 4, else 0 */
	uint32_t ldt_window;		/* virtual address; what the guest finds above it is the hypervisor's */
	uint64_t hypervisor_start;	/* virtual address */
	struct gate gates[256], event;
	uint64_t (*read_eflags)(void *env);
	/* Python */
	uint32_t (*hypercall)(uint32_t number, uint32_t ebx, uint32_t ecx, uint32_t edx, uint32_t esi, uint32_t edi);
	/* An entry of a multicall at `list`, with `left` to do: the result (bit 32: the guest leaves behind it), or -1:
	   the multicall is over for now. */
	int64_t (*entry)(uint32_t number, uint32_t a, uint32_t b, uint32_t c, uint32_t d, uint32_t e, uint32_t list,
			 uint32_t left);
	void (*upcall)(void);		/* deliver it the slow way */
	void (*invalidate)(void *uc, uint64_t start, uint64_t end);	/* code made from machine memory */
	/* hypercalls.py's: calls by number, those in multicalls, multicalls by size; 0 in the last: Python sees all */
	uint64_t *direct, *inner, *batches, calls_here;
	struct frames frames;
};

#define XEN(m) ((struct xen *)(m)->platform_state)

static inline uint64_t *quad(const struct xen *x, uint64_t at)
{
	return (uint64_t *)(x->ram + at);
}

/* walk.c: machine address of a byte as ring 1 reaches it, or NOWHERE; `need` PTE_P, with PTE_RW for writing */
uint64_t xen_walk(const struct machine *m, uint32_t va, uint64_t need);

/* ptwrite.c */
int xen_fill(struct machine *m, uint64_t va, int size, int access, int mmu, int probe, uint64_t ra);
int xen_writes_table(const struct machine *m, uint32_t va);	/* whether a write of the kernel is to a page table */
void xen_settle(struct machine *m);	/* count what the last direct write has changed; before any table is walked */

int xen_update_va_mapping(struct machine *m, const uint32_t *args);	/* 1: done with success, 0: Python's */

/* tables.c; called by Python */
int xen_promote_l1(struct machine *m, uint64_t mfn);
int xen_demote_l1(struct machine *m, uint64_t mfn);

/* bounce.c */
int xen_exception(struct machine *m, uint32_t vector, int software);
void xen_deliver_upcall(struct machine *m);	/* behind every exit */
int xen_upcall_due(const struct machine *m);	/* events are pending, and not masked */

/* calls.c */
int xen_hypercall(struct machine *m);

#endif
