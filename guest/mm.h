/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory: pages, PAE page tables, address spaces.
 * Table entries are u64. What stands in a table has been through make_*; *_val turns it back, and only then its
 * address means anything to this kernel.
 * Ref: Intel SDM vol. 3A, 4.4 (PAE paging).
 */
#ifndef MM_H
#define MM_H

#include "kernel.h"

#define _PAGE_PRESENT 0x001
#define _PAGE_RW 0x002
#define _PAGE_USER 0x004
#define _PAGE_ACCESSED 0x020
#define _PAGE_DIRTY 0x040
#define _PAGE_GLOBAL 0x100
#define _PAGE_PROTNONE 0x100 /* without _PAGE_PRESENT: a page is kept here, and nobody may touch it */
#define _PAGE_NX (1ULL << 63)
#define _PAGE_TABLE 0x067
#define PTE_ADDRESS 0x0000000ffffff000ULL
#define PAGE_RW_BIT 1

#define PTRS_PER_PGD 4
#define PTRS_PER_PMD 512
#define PTRS_PER_PTE 512
#define PMD_SIZE 0x200000
#define USER_PGDS 3
#define KERNEL_PGD 3

#define TASK_SIZE PAGE_OFFSET
#define STACK_TOP 0xBFFFF000
#define STACK_SIZE 0x10000
#define LOWMEM_MAX (512u << 20)

#define pa(address) ((u32)(address) - PAGE_OFFSET)
#define va(physical) ((void *)((u32)(physical) + PAGE_OFFSET))
#define PAGE_ALIGN(x) (((u32)(x) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1u))
#define PAGE_DOWN(x) ((u32)(x) & ~(PAGE_SIZE - 1u))

/* One per frame of low memory. `next` is a frame number while the page is free. */
struct page {
	u16 count;
	u16 flags;	/* the platform's own: whether it holds the page as a page table, for example */
	u32 next;
};

enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4 };
#define VMA_COMPARABLE 1 /* the contents are the same in every run of every backend */
#define NR_VMAS 16

struct vma {
	u32 start, end, prot, flags;
};

/* Backends read `pgd`; it stays first. */
struct mm {
	u64 *pgd;
	u32 start_brk, brk;
	u32 nr_vmas;
	struct vma vmas[NR_VMAS];
	u64 *ldt;
	u32 ldt_entries;
};

/* Fixed virtual addresses, counted downwards from __FIXADDR_TOP, which a backend may lower before paging_init. */
enum { FIX_HOLE, FIX_VSYSCALL, FIX_PARAVIRT, FIX_WP_TEST, FIX_TEST, FIX_COUNT };
extern u32 __FIXADDR_TOP;
#define fix_to_va(index) (__FIXADDR_TOP - ((u32)(index) << PAGE_SHIFT))

/* e820.c */
#define E820_RAM 1
struct e820_entry {
	u64 start, size;
	u32 type;
} packed;
extern struct e820_entry e820_map[32];
extern u32 e820_count;
extern u8 boot_params[];
const char *native_memory_setup(void);
void print_memory_map(const char *who);

/* memory.c */
extern struct page *mem_map;
extern u32 max_low_pfn, free_pages, init_pg_tables_end;
void setup_memory(void);
void *early_page(void);
void zone_sizes_init(void);
void *get_page(void);	/* zeroed, or NULL */
void put_page(void *page);
static inline struct page *va_to_page(const void *address) { return &mem_map[pa(address) >> PAGE_SHIFT]; }
static inline void *page_address(struct page *page) { return va((u32)(page - mem_map) << PAGE_SHIFT); }
static inline u32 pfn(const void *address) { return pa(address) >> PAGE_SHIFT; }

/* paging.c: init_mm */
extern struct mm init_mm;
extern u64 swapper_pg_dir[];
extern bool nx_enabled;
extern u32 boot_identity;
void set_nx(void);
void reserve_top_address(u32 reserve);
u64 *kernel_pte(u32 address);
void pagetable_init(void);
void mem_init(void);
void mark_text_read_only(void);
u64 *fixmap_pte(u32 index);
void set_fixmap(u32 index, u32 physical, u64 flags);
void clear_fixmap(u32 index);

/* pagetable.c: one address space's tables */
u64 *lookup_pmd(struct mm *mm, u32 address);
u64 *map_pte(struct mm *mm, u32 address, bool create);
void unmap_pte(u64 *ptep);
void *native_kmap_atomic_pte(struct page *page, u32 type);
s32 pgd_alloc(struct mm *mm);
void pgd_free(struct mm *mm);
u64 page_protection(u32 prot, bool writable);
void clear_range(struct mm *mm, u32 start, u32 end, bool flush);
void protect_range(struct mm *mm, const struct vma *vma);
s32 copy_range(struct mm *to, struct mm *from, const struct vma *vma);

/* mm.c: address spaces */
extern struct mm *active_mm;
struct mm *mm_alloc(void);
void mm_free(struct mm *mm);
struct mm *mm_copy(struct mm *old);
s32 add_vma(struct mm *mm, u32 start, u32 end, u32 prot, u32 flags);
struct vma *find_vma(struct mm *mm, u32 address);
void switch_mm(struct mm *next);
s32 set_brk(struct mm *mm, u32 brk);

/* mmap.c */
s32 do_mmap(struct mm *mm, u32 start, u32 length, u32 prot, u32 flags);
s32 do_munmap(struct mm *mm, u32 start, u32 length);
s32 do_mprotect(struct mm *mm, u32 start, u32 length, u32 prot);

/* fault.c */
s32 handle_fault(struct mm *mm, u32 address, bool write, bool execute);
bool fixup_exception(struct pt_regs *regs);
u32 copy_from_user(void *to, const void *from, u32 n);	/* bytes not copied */
u32 copy_to_user(void *to, const void *from, u32 n);
s32 string_from_user(char *to, const char *from, u32 room);

static inline bool has_page(u64 pte) { return pte & (_PAGE_PRESENT | _PAGE_PROTNONE); }
static inline u64 pte_of(const void *page, u64 flags) { return make_pte(pa(page) | flags); }

#endif
