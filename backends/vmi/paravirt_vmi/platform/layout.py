"""Where things lie in the ROM and in the page behind it.

The ROM's first 4 KiB are code and tables and never change after VMI_Init. The page behind them is shared: the ROM's
code and the monitor both read and write it, and the guest may; nothing that the monitor trusts stands there.

Ref: VMI 3.0 ROM header, as Linux 2.6.32 arch/x86/kernel/vmi_32.c reads it (struct vrom_header).
"""

from __future__ import annotations

ROM_BYTES, PAGE_BYTES = 0x1000, 0x1000
AREA_FIRST, AREA_END, AREA_STEP = 0xC0000, 0xE0000, 0x800  # where guests look for option ROMs
DEFAULT_BASE = 0xD0000

# ROM
INIT_ENTRY, RELOCATION_ENTRY = 0x80, 0x88
PCI_DATA, PNP_HEADER, STRINGS = 0xA0, 0xE0, 0x120
SLOTS, SLOT_BYTES = 0x200, 8
HLT, RET, UD2, JMP = 0xF4, 0xC3, 0x0B0F, 0xE9
HLT_BYTES = 1

# Answers of GetRelocationInfo
NONE, CALL_REL, JUMP_REL, NOP = 0, 1, 2, 3

# Shared page: offsets from its start
TSS = 0x000  # what the CPU's TR points at: stack of ring 1, no I/O bit map
TSS_LIMIT = 0x67
WORDS = {
    "esp1": 0x00C, "ss1": 0x010,  # of the TSS
    "cr0": 0x080, "cr2": 0x088, "cr3": 0x08C, "cr4": 0x090,
    "flag": 0x0A0,  # the guest's interrupt flag, at EFLAGS's bit
    "pending": 0x0A4,  # a byte: an interrupt waits
    "queued": 0x0A5,  # a byte: deferred calls
    "iopl": 0x0A6,  # a byte: ring 3 has an IOPL, which the way there has to set; tested together with the one before
    "lazy": 0x0A8,
    "flag_before": 0x0AC,  # the flag before the last IRET
    "sysexit_cs": 0x0B0, "sysexit_ss": 0x0B4,
    "queue": 0x100,
}
QUEUE_ENTRIES, QUEUE_ENTRY_BYTES = 15, 16  # call number, EAX, EDX, unused

EFLAGS_IF, EFLAGS_IOPL = 0x200, 0x3000
GUEST_RING = 1
CYCLES_PER_SECOND = 1_000_000_000  # of RDTSC, and of the VMI counters
