# mypy: disable-error-code=empty-body
"""Ops of the boot: platform set-up, memory map, interrupts, clock, init_mm's page tables, call-site patching.

Start_kernel calls each of them once, `patch` once a call site. None is recorded as a call site: the kernel
reads the slot at the time of the call.

Ref: Linux 2.6.23, include/asm-i386/paravirt.h; callers in init/main.c, arch/i386/kernel/setup.c,
arch/i386/mm/init.c, arch/i386/kernel/alternative.c.
"""

from __future__ import annotations

from paravirt.hookspecs._spec import op
from paravirt.hookspecs.types import U8, U16, U32, GuestAddr, GuestStr


@op(prototype="unsigned (*patch)(u8 site_type, u16 clobbers, void *buf, unsigned long address, unsigned length)")
def patch(site_type: U8, clobbers: U16, buf: GuestAddr, address: GuestAddr, length: U32) -> U32:
    """Generate the code of one call site.

    `buf` starts as a copy of the site. Afterwards it holds at most `length` bytes of code, and nothing else has
    changed; the caller fills the rest with NOPs and copies the buffer over the site. Called for every site by
    check_bugs, with interrupts off; from then on slots must not change any more.

    :param site_type: word index of the slot that the site calls.
    :param clobbers: registers the code may change: EAX 1, ECX 2, EDX 4.
    :param buf: where to write the code.
    :param address: where the code will run, for relative branches.
    :param length: bytes of the site.
    :returns: bytes written; `length` with an unchanged buffer leaves the site as it was.
    """


@op(prototype="void (*arch_setup)(void)")
def arch_setup() -> None:
    """Set the platform up.

    Afterwards the platform knows what it must know to serve the kernel, such as where to deliver events;
    natively nothing is left to do. Called by setup_arch, after the first cpuid and before the memory map is known.
    """


@op(prototype="char *(*memory_setup)(void)")
def memory_setup() -> GuestStr:
    """Fill the kernel's e820 map.

    Afterwards the map lists the RAM that the kernel may use, sorted and free of overlaps; nothing else changes.
    Called by setup_arch, which prints the map.

    :returns: who provided the map, such as ``BIOS-e820``; the string must outlive the boot.
    """


@op(prototype="void (*post_allocator_init)(void)", null="skipped")
def post_allocator_init() -> None:
    """Do what needs struct page.

    Afterwards the pages of init_mm's tables are marked as the platform wants them. Called by setup_arch after
    zone_sizes_init: struct page exists, but memory still comes from the boot allocator.
    """


@op(prototype="void (*init_IRQ)(void)")
def init_IRQ() -> None:
    """Set interrupt delivery up.

    Afterwards every interrupt source has its gate or event channel and is masked until a driver asks for it;
    the interrupt flag is still clear. Called by start_kernel after the exceptions' gates are in place.
    """


@op(prototype="void (*time_init)(void)")
def time_init() -> None:
    """Start the periodic clock.

    Afterwards the tick interrupt arrives HZ times a second. Called late, as late_time_init, after mem_init and
    with interrupts on, so that it may map memory and take interrupts.
    """


@op(prototype="void (*pagetable_setup_start)(pgd_t *base)", null="skipped")
def pagetable_setup_start(base: GuestAddr) -> None:
    """Prepare the construction of init_mm's page tables.

    Afterwards the directory may have mappings and CR3 another value; the kernel keeps every mapping that it
    finds. Called by pagetable_init before the first table is allocated.

    :param base: init_mm's page directory.
    """


@op(prototype="void (*pagetable_setup_done)(pgd_t *base)", null="skipped")
def pagetable_setup_done(base: GuestAddr) -> None:
    """Finish the construction of init_mm's page tables.

    Afterwards the tables are complete and known to the platform, and fixmap addresses may be mapped. Called by
    pagetable_init when all of low memory, the fixmaps and kmaps have their tables, before CR3 is loaded.

    :param base: init_mm's page directory.
    """


@op(prototype="void (*banner)(void)")
def banner() -> None:
    """Print what the kernel runs on.

    It leaves one line in the log, ``Booting paravirtualized kernel on`` and the table's name, and no other
    trace. A core initcall.
    """
