"""SYSENTER in Python: the portable form of accel/sysenter.c, and what a platform's table names for either.

Ref: Intel SDM vol. 2B, SYSENTER (operation). libunicorn leaves the instruction out.
"""

from __future__ import annotations

from paravirt.machine import layout
from paravirt.machine.vcpu import Segment, Vcpu

GP = 13
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = 0x174, 0x175, 0x176
EFLAGS_SYSENTER_CLEARS = 0x30200  # VM, RF, IF
FLAT_CODE, FLAT_DATA = 0x00CF9B00, 0x00CF9300  # descriptor high words: ring 0, present, accessed, 4 GiB


def sysenter(vcpu: Vcpu) -> None:
    """SYSENTER: into ring 0 with flat segments, where the three MSRs say; #GP if they say nothing."""
    selector = vcpu.msr(SYSENTER_CS) & 0xFFFC
    if not selector:
        vcpu.machine.raise_exception(GP, 0)
        return
    vcpu.set_segment(layout.CS, Segment(selector, 0, 0xFFFFFFFF, FLAT_CODE), cpl=0)
    vcpu.set_segment(layout.SS, Segment(selector + 8, 0, 0xFFFFFFFF, FLAT_DATA))
    vcpu.state.words[layout.EFLAGS] &= ~EFLAGS_SYSENTER_CLEARS
    vcpu.esp, vcpu.eip = vcpu.msr(SYSENTER_ESP), vcpu.msr(SYSENTER_EIP)
