"""The first moment of a domain: registers as a real Xen leaves them.

Ref: values as seen on a 4.17; Xen public/xen.h (start of day).
"""

from __future__ import annotations

from paravirt.api import Segment, layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.builder import Builder
from paravirt_xen.platform.layout import PAGE, RING1_CS, RING1_DS, RING3_DS

EFER, EFER_NXE = 0xC0000080, 1 << 11
CR0, CR4 = 0x80050033, 0x620
EFLAGS = 0x246
SEGMENTS = (
    (layout.CS, RING1_CS, 0x00CFBB00), (layout.SS, RING1_DS, 0x00CFB300), (layout.DS, RING3_DS, 0x00CFF300),
    (layout.ES, RING3_DS, 0x00CFF300), (layout.FS, RING3_DS, 0x00CFF300), (layout.GS, RING3_DS, 0x00CFF300),
)  # fmt: skip


def start(builder: Builder) -> None:
    """Load the CPU. Memory is built."""
    domain, vcpu = builder.domain, builder.domain.vcpu
    vcpu.state.load()
    builder.hole.load()
    for index, selector, high in SEGMENTS:
        vcpu.set_segment(index, Segment(selector, 0, 0xFFFFFFFF, high), cpl=1 if index == layout.CS else None)
    for register in range(8):
        vcpu.set_reg(register, 0)
    stack = builder.plan.stack + PAGE
    vcpu.set_reg(layout.ESI, builder.plan.start_info)
    vcpu.esp, vcpu.eip = stack, builder.notes.entry
    vcpu.eflags = EFLAGS
    vcpu.state.store()
    vcpu.set_msr(EFER, EFER_NXE)
    vcpu.set_cr(4, CR4)
    vcpu.set_cr(3, domain.l3_mfn * PAGE)
    vcpu.set_cr(0, CR0)
    domain.traps.kernel_stack[0], domain.traps.kernel_stack[1] = RING1_DS, stack
    domain.set_shared_u8(abi.UPCALL_MASK, 1)
