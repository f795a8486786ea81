"""The calls that tell, register or refuse: vcpu_op, xen_version, physdev_op, callback_op, set_callbacks, nmi_op.

What must hold: each subcommand answers what a Xen 4.17 answers to a domU of one vcpu, in the 32-bit layout, and stores
what it says it stores and no byte more; what belongs to control domains is refused with Xen's error; bad addresses are
EFAULT and unknown commands ENOSYS. A vcpu_info that has moved is the one that is used.

Ref: public/vcpu.h, version.h, physdev.h, callback.h, nmi.h.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from paravirt.machine.outcome import End
from paravirt_xen.platform import physdev, sched, vcpuop, version
from paravirt_xen.platform.errors import (
    EEXIST,
    EFAULT,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOSPC,
    ENOSYS,
    ENXIO,
    EOPNOTSUPP,
    EPERM,
    ESRCH,
)
from paravirt_xen.platform.frames import L1
from paravirt_xen.platform.layout import PAGE, RING1_CS
from tests.xenservices import ARGUMENT, UNMAPPED, Caller, calling


@pytest.fixture
def guest() -> Iterator[Caller]:
    with calling() as caller:
        yield caller


# ---------------------------------------------------------------------- vcpu_op


def test_the_only_vcpu(guest: Caller) -> None:
    assert guest.call("vcpu_op", 3, 0, 0) == 1
    assert guest.call("vcpu_op", 0, 0, ARGUMENT - 0xF00) == -EEXIST
    assert guest.call("vcpu_op", 0, 0, UNMAPPED) == -EFAULT
    assert guest.call("vcpu_op", 1, 0, 0) == 0
    for command in range(14):
        assert guest.call("vcpu_op", command, 1, ARGUMENT) == -ENOENT
    assert guest.call("vcpu_op", 99, 0, 0) == -ENOSYS
    assert guest.call("vcpu_op", 12, 0, ARGUMENT) == -EINVAL
    assert guest.call("vcpu_op", 11, 0, ARGUMENT) == -EINVAL
    assert guest.call("vcpu_op", 11, 0, 0) == 0


def test_the_last_vcpu_going_down_is_the_end(guest: Caller) -> None:
    assert guest.ended("vcpu_op", 2, 0, 0).end is End.POWEROFF


def test_a_vcpu_info_that_moves(guest: Caller) -> None:
    domain = guest.domain
    frame = domain.p2m[0x200]
    domain.ram.write(frame * PAGE, b"\xee" * PAGE)
    moved: list[int] = []
    domain.on_vcpu_info = moved.append
    assert guest.call("vcpu_op", 10, 0, guest.put("QII", frame, 128, 0)) == 0
    assert domain.vcpu_info == frame * PAGE + 128 == moved[0]
    assert guest.flags == (1, 1, 0xFFFFFFFF), "the mask is kept; everything is to be looked at"
    assert domain.ram.read(frame * PAGE, 128) == b"\xee" * 128
    assert domain.ram.read(frame * PAGE + 192, 100) == b"\xee" * 100
    guest.clear()
    port = guest.bind_ipi()
    guest.evtchn(4, "I", port)
    assert guest.flags == (1, 1, 1)
    assert domain.ram.bytes[domain.shared] == 0, "the old one is no more"
    assert guest.call("vcpu_op", 10, 0, guest.put("QII", frame, 0, 0)) == -EINVAL, "once"
    assert guest.call("sched_op", 1, 0) == 0
    assert guest.flags == (1, 0, 1) and not domain.sched.blocked


@pytest.mark.parametrize(("frame", "offset", "error"), [
    (0x200, 4096 - 60, ENXIO), (0x200, 2, ENXIO), (0x200, 0xFFFFFFF0, ENXIO), (None, 0, EINVAL), ("table", 0, EINVAL)])
def test_a_vcpu_info_where_it_cannot_be(guest: Caller, frame: int | str | None, offset: int, error: int) -> None:
    domain = guest.domain
    mfn = 0x12345678 if frame is None else domain.l3_mfn if isinstance(frame, str) else domain.p2m[frame]
    assert guest.call("vcpu_op", 10, 0, guest.put("QII", mfn, offset, 0)) == -error
    assert domain.vcpu_info == domain.shared


def test_the_frame_of_a_vcpu_info_stays_writable(guest: Caller) -> None:
    """It must never become a page table: the hypervisor writes it without asking."""
    frame = guest.domain.p2m[0x200]
    guest.domain.ram.write(frame * PAGE, bytes(PAGE))
    guest.call("vcpu_op", 10, 0, guest.put("QII", frame, 0, 0))
    for mfn in (frame, guest.domain.store_mfn, guest.domain.console_mfn):
        assert guest.domain.frames.get_type(mfn, L1) != 0


@pytest.mark.parametrize("command", [4, 5, 6, 8, 10, 13])
def test_vcpu_op_with_bad_addresses(guest: Caller, command: int) -> None:
    assert guest.call("vcpu_op", command, 0, UNMAPPED) == -EFAULT


# ---------------------------------------------------------------------- xen_version


def test_version(guest: Caller) -> None:
    assert guest.call("xen_version", 0, 0) == 0x40011
    assert guest.call("xen_version", 7, 0) == 4096
    assert guest.call("xen_version", 7, ARGUMENT) == -EINVAL
    assert guest.call("xen_version", 10, 0) == -EPERM
    assert guest.call("xen_version", 11, 0) == -ENOSYS


@pytest.mark.parametrize(("command", "size", "begin"), [
    (1, 16, b".7\0"), (2, 144, b"paravirt\0"), (3, 1024, b"xen-3.0-x86_32p \0"), (4, 64, b"unavailable\0"),
    (5, 4, b"\0\0\x80\xf5"), (8, 16, b""), (9, 9, b"<denied>\0")])
def test_what_version_stores(guest: Caller, command: int, size: int, begin: bytes) -> None:
    guest.domain.write(ARGUMENT, b"\xee" * 1100)
    assert guest.call("xen_version", command, ARGUMENT) == 0
    data = guest.domain.read(ARGUMENT, 1100)
    assert data.startswith(begin)
    assert data[size:] == b"\xee" * (1100 - size)
    assert data[size - 1 : size] != b"\xee"
    assert guest.call("xen_version", command, UNMAPPED) == -EFAULT


def test_features(guest: Caller) -> None:
    guest.domain.vm_assist = 1 << 3
    assert guest.with_structure("xen_version", 6, "II", 0, 0) == 0
    assert guest.get("II") == (0, 0x220F0), "as a 4.17 says to a domain with extended CR3"
    guest.domain.vm_assist = 0
    guest.with_structure("xen_version", 6, "II", 0, 0)
    assert guest.get("II") == (0, 0x220E0)
    assert guest.with_structure("xen_version", 6, "II", 1, 0) == -EINVAL


# ---------------------------------------------------------------------- physdev_op


def test_iopl(guest: Caller) -> None:
    assert guest.with_structure("physdev_op", 6, "I", 3) == 0
    assert guest.domain.traps.iopl == 0x3000
    assert guest.with_structure("physdev_op", 6, "I", 4) == -EINVAL
    assert guest.call("physdev_op", 6, UNMAPPED) == -EFAULT
    guest.put("II8x", 6, 1)
    assert guest.call("physdev_op_compat", ARGUMENT) == 0
    assert guest.domain.traps.iopl == 0x1000


def test_iobitmap(guest: Caller) -> None:
    assert guest.with_structure("physdev_op", 7, "II", ARGUMENT, 1024) == 0
    assert guest.domain.traps.io_bitmap == (ARGUMENT, 1024)
    assert guest.with_structure("physdev_op", 7, "II", ARGUMENT, 65537) == -EINVAL
    assert guest.with_structure("physdev_op", 7, "II", 0xF5800000 - 8191, 8) == -EINVAL
    assert guest.domain.traps.io_bitmap == (ARGUMENT, 1024)


@pytest.mark.parametrize(("command", "layout", "fields", "answer"), [
    (4, "I", (0,), 0), (5, "II", (4, 0), 0), (5, "II", (1 << 16, 0), -EINVAL), (8, "III", (0, 0, 0), -EPERM),
    (9, "III", (0, 0, 0), -EPERM), (10, "II", (1, 0), -EPERM), (12, "I", (4,), -EINVAL),
    (13, "HxxiiiiiiQ", (0x7FF0, 1, 4, -1, 0, 0, 0, 0), -EPERM), (13, "HxxiiiiiiQ", (9, 1, 4, -1, 0, 0, 0, 0), -ESRCH),
    (14, "Hxxi", (0x7FF0, 4), -EPERM), (15, "BB", (0, 0), -EPERM), (17, "I", (5,), -EINVAL),
    (19, "BB", (0, 0), -ENODEV),
    (21, "iBBxx", (4, 0, 0), -EPERM), (21, "iBBxx", (-1, 0, 0), -EINVAL), (23, "iI", (1, 0), -ENOSPC),
    (24, "I", (0,), -EPERM), (25, "I", (0,), -EOPNOTSUPP), (29, "I", (0,), -EPERM), (30, "HBB", (0, 0, 0), -EPERM),
    (22, "I", (0,), -ENOSYS), (11, "I", (0,), -ENOSYS), (99, "I", (0,), -ENOSYS),
])  # fmt: skip
def test_physdev_answers(guest: Caller, command: int, layout: str, fields: tuple[int, ...], answer: int) -> None:
    assert guest.with_structure("physdev_op", command, layout, *fields) == answer


def test_an_interrupt_that_is_asked_about_needs_an_eoi(guest: Caller) -> None:
    guest.with_structure("physdev_op", 5, "II", 4, 0)
    assert guest.get("II") == (4, 1)


@pytest.mark.parametrize("command", [5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 17, 19, 20, 21, 23, 27, 28, 30, 31])
def test_physdev_op_with_bad_addresses(guest: Caller, command: int) -> None:
    assert guest.call("physdev_op", command, UNMAPPED) == -EFAULT
    assert guest.call("physdev_op_compat", UNMAPPED) == -EFAULT


# ---------------------------------------------------------------------- callbacks


def test_callbacks(guest: Caller) -> None:
    traps = guest.domain.traps

    def register(kind: int, flags: int, cs: int, eip: int) -> int:
        return guest.with_structure("callback_op", 0, "HHII", kind, flags, cs, eip)

    assert register(0, 0, 0xE019, 0xC0001000) == 0
    assert (traps.event.cs, traps.event.eip, traps.event.masks) == (0xE019, 0xC0001000, True)
    assert register(0, 0, 0xE018, 0xC0002000) == 0
    assert traps.event.cs == 0xE019, "ring 0 becomes ring 1"
    assert register(1, 0, 0x61, 0xC0003000) == 0
    assert (traps.failsafe.cs, traps.failsafe.eip, traps.failsafe.masks) == (0x61, 0xC0003000, False)
    assert register(1, 1, 0x61, 0xC0003000) == 0
    assert traps.failsafe.masks
    assert register(4, 0, 0, 0xC0004000) == 0
    assert (traps.gates[2].cs, traps.gates[2].eip, traps.gates[2].masks) == (RING1_CS, 0xC0004000, True)
    assert [register(kind, 0, 0xE019, 1) for kind in (5, 7)] == [0, 0]
    assert [register(kind, 0, 0xE019, 1) for kind in (2, 3, 6, 8, 0xFFFF)] == [-ENOSYS] * 5
    assert guest.call("callback_op", 0, UNMAPPED) == -EFAULT
    assert guest.call("callback_op", 2, ARGUMENT) == -EINVAL


def test_unregistering(guest: Caller) -> None:
    def unregister(kind: int) -> int:
        return guest.with_structure("callback_op", 1, "HH", kind, 0)

    guest.with_structure("callback_op", 0, "HHII", 4, 0, 0, 0xC0004000)
    assert unregister(4) == 0
    assert guest.domain.traps.gates[2].eip == 0
    assert [unregister(kind) for kind in (0, 1, 5, 7)] == [-EINVAL] * 4
    assert [unregister(kind) for kind in (2, 3, 9)] == [-ENOSYS] * 3


def test_set_callbacks_and_nmi_op(guest: Caller) -> None:
    traps = guest.domain.traps
    assert guest.call("set_callbacks", 0x60, 0xC0001000, 0x61, 0xC0002000) == 0
    assert (traps.event.cs, traps.event.eip) == (0x61, 0xC0001000)
    assert (traps.failsafe.cs, traps.failsafe.eip, traps.failsafe.masks) == (0x61, 0xC0002000, False)
    assert guest.call("nmi_op", 0, guest.put("II", 0xC0003000, 0)) == 0
    assert traps.gates[2].eip == 0xC0003000
    assert guest.call("nmi_op", 1, 0) == 0
    assert traps.gates[2].eip == 0
    assert guest.call("nmi_op", 2, 0) == -ENOSYS
    assert guest.call("nmi_op", 0, UNMAPPED) == -EFAULT


# ---------------------------------------------------------------------- the tables


@pytest.mark.parametrize("table", [physdev.COMMANDS, sched.COMMANDS, vcpuop.COMMANDS, version.COMMANDS])
def test_every_command_has_a_number_of_its_own(table: dict[int, object]) -> None:
    assert all(0 <= number < 64 for number in table)


def test_state_is_plain_and_tells_changes(guest: Caller) -> None:
    """It goes into the state hash."""
    def state() -> str:
        return json.dumps(guest.domain.machine.device_state(), default=lambda value: value.hex(), sort_keys=True)

    before = state()
    assert before == state()
    guest.bind_ipi()
    assert before != (after := state())
    guest.domain.store.write("/local/domain/1/data/x", "1")
    assert after != state()
