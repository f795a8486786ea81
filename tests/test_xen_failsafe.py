"""Data segments that cannot be loaded any more when a vcpu gets the CPU back.

A kernel may change its descriptors while a segment register still holds one of them. Xen loads DS, ES, FS and GS
anew whenever a vcpu is scheduled in: one that fails becomes null, and the kernel hears of it by its failsafe callback,
whose frame has all four selectors as they were below EIP. Registers that can be loaded show the new descriptors.

Ref: Xen arch/x86/domain.c (load_segments), public/xen.h (failsafe callback).
"""

from __future__ import annotations

import struct

import pytest

from paravirt.api import GuestExit, Segment, layout
from paravirt_xen.platform import abi
from paravirt_xen.platform.domain import Domain
from paravirt_xen.platform.layout import RING1_CS, RING1_DS, RING3_DS
from paravirt_xen.platform.traps import Gate
from tests.xendomain import TEXT, xen_guest

HANDLER = TEXT + 0x20
GDT = TEXT + 0x1000
DATA, CODE_ONLY, NOT_PRESENT = 0x00CFB3000000FFFF, 0x00CFB9000000FFFF, 0x00CF33000000FFFF
SELECTOR = 0x19
ENGINES = ["auto", "portable"]


def gdt(domain: Domain, descriptor: int) -> None:
    """Let the GDT have `descriptor` at SELECTOR."""
    call = domain.dispatcher.call
    mfn = domain.machine_address(GDT) >> 12
    domain.write(GDT + 0x18, struct.pack("<Q", descriptor))
    domain.write(TEXT + 0x800, struct.pack("<I", mfn))
    assert call(14, [GDT, mfn << 12 | 1, 0, abi.UVMF_INVLPG, 0]) == 0
    assert call(2, [TEXT + 0x800, 4, 0, 0, 0]) == 0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("descriptor", [0, CODE_ONLY, NOT_PRESENT])
def test_a_segment_that_is_gone(descriptor: int, masks: bool, engine: str) -> None:
    with xen_guest(engine=engine) as backend:
        domain, vcpu, traps = backend.domain, backend.domain.vcpu, backend.domain.traps
        gdt(domain, descriptor)
        traps.failsafe = Gate(RING1_CS, HANDLER, masks=masks)
        domain.events.upcall_mask = False
        vcpu.set_segment(layout.GS, Segment(SELECTOR, 0, 0xFFFFFFFF, DATA >> 32))
        vcpu.set_segment(layout.FS, Segment(0, 0, 0, 0))
        esp, eip, eflags = vcpu.esp, vcpu.eip, vcpu.eflags
        traps.reload_segments()
        assert vcpu.eip == HANDLER and vcpu.esp == esp - 28
        frame = struct.unpack("<7I", domain.read(vcpu.esp, 28))
        assert frame == (RING3_DS, RING3_DS, 0, SELECTOR, eip, RING1_CS, eflags | 0x200)
        assert vcpu.segment(layout.GS) == Segment(0, 0, 0, 0)
        assert vcpu.segment(layout.DS).selector == RING3_DS
        assert domain.events.upcall_mask == masks


@pytest.mark.parametrize("engine", ENGINES)
def test_a_segment_that_has_changed(engine: str) -> None:
    with xen_guest(engine=engine) as backend:
        domain, vcpu = backend.domain, backend.domain.vcpu
        gdt(domain, 0x10CFB3005678FFFF)
        eip = vcpu.eip
        vcpu.set_segment(layout.GS, Segment(SELECTOR, 0, 0xFFFFFFFF, DATA >> 32))
        domain.traps.reload_segments()
        assert vcpu.eip == eip
        assert vcpu.segment(layout.GS).base == 0x10005678


def test_without_a_callback_the_domain_ends() -> None:
    with xen_guest() as backend:
        domain, vcpu = backend.domain, backend.domain.vcpu
        vcpu.set_segment(layout.ES, Segment(SELECTOR, 0, 0xFFFFFFFF, DATA >> 32))
        with pytest.raises(GuestExit, match="the failsafe callback, and the guest has no handler for it"):
            domain.traps.reload_segments()


def test_flat_segments_are_left_alone() -> None:
    with xen_guest() as backend:
        domain, vcpu = backend.domain, backend.domain.vcpu
        before = [vcpu.segment(index) for index in range(6)]
        domain.traps.reload_segments()
        assert [vcpu.segment(index) for index in range(6)] == before
        assert before[layout.SS].selector == RING1_DS
