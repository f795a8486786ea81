"""Where things lie: machine memory, and the hypervisor's part of the guest's address space.

Ref: Xen public/arch-x86/xen-x86_32.h (HYPERVISOR_VIRT_START_PAE, FLAT_RING1_CS), arch/x86/include/asm/config.h
(reserved GDT entries).
"""

PAGE = 4096

# Machine memory: the hypervisor's own frames, the machine-to-phys table, room to
# exchange frames, then the domain's.
HEAP_FIRST, HEAP_END = 0x10, 0x200  # frames; 64 KiB at 0 stay empty, so that a machine address of 0 is nobody's
M2P_MACHINE = 0x200000  # the guest sees it through large pages
M2P_PAGE = 2 << 20
SPARE_MEMORY = 4 << 20  # bytes that are nobody's at the start: what a domain exchanges its frames for

# Virtual addresses that belong to the hypervisor in every address space.
HYPERVISOR_START = 0xF5800000  # the machine-to-phys table stands here
STUB_WINDOW = 0xFBE00000  # code behind the op slots of a kernel that is looked at
GDT_WINDOW = 0xFBC00000  # 16 pages: the guest's 14 descriptor frames and the hypervisor's own two

# The hypervisor's descriptors, behind the guest's 14 pages of them.
GUEST_GDT_FRAMES = 14
GUEST_GDT_ENTRIES = GUEST_GDT_FRAMES * PAGE // 8
RING1_CS, RING1_DS, RING3_CS, RING3_DS = 0xE019, 0xE021, 0xE02B, 0xE033

CHUNK = 64  # frames of the domain that lie together in machine memory
