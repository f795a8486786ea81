"""A domain's first moment is what a real Xen's builder makes of the same kernel.

Kernels of all kinds rely on it before they can say a word: registers, the first mapping with what lies in it and in
which order, start_info, frames that are neither pfns nor one run. The values are those that a 4.17 was seen to give.
"""

from __future__ import annotations

import struct
from array import array

import pytest

from paravirt.api import ImageError, layout
from paravirt.machine.paging import lookup
from paravirt_xen.platform import abi
from paravirt_xen.platform.builder import machine_frames, reserved_memory
from paravirt_xen.plugin import Xen
from tests.xendomain import BASE, HYPERCALL_PAGE, MEMORY, MOD_START_PFN, TEXT, xen_guest

ENGINES = ["auto", "portable"]


def start_info(backend: Xen) -> tuple[int, ...]:
    return abi.START_INFO.unpack(backend.domain.read(backend.domain.vcpu.reg(layout.ESI), abi.START_INFO.size))[1:]


@pytest.mark.parametrize("engine", ENGINES)
def test_registers(engine: str) -> None:
    with xen_guest(engine=engine) as backend:
        vcpu = backend.domain.vcpu
        assert vcpu.eip == TEXT
        assert vcpu.eflags == 0x246
        assert [vcpu.segment(index).selector for index in range(6)] == [0xE033, 0xE019, 0xE021, 0xE033, 0xE033, 0xE033]
        assert vcpu.cpl == 1
        assert (vcpu.cr(0), vcpu.cr(4) & 0x20) == (0x80050033, 0x20)
        assert backend.domain.shared_u8(abi.UPCALL_MASK) == 1


@pytest.mark.parametrize("memory", [8 << 20, 16 << 20, (16 << 20) + 4096, 128 << 20, 1 << 30])
def test_frames_are_neither_pfns_nor_one_run(memory: int) -> None:
    frames = machine_frames(memory)
    assert len(frames) == memory // 4096 == len(set(frames))
    first, end = reserved_memory(memory) // 4096, (reserved_memory(memory) + memory) // 4096
    assert first <= min(frames) and max(frames) < end
    assert all(pfn != mfn for pfn, mfn in enumerate(frames))
    assert sum(1 for at in range(1, len(frames)) if frames[at] != frames[at - 1] + 1) >= len(frames) // 64 - 2


def test_the_machine_to_phys_table_inverts_the_list_of_frames() -> None:
    with xen_guest() as backend:
        domain = backend.domain
        mfn_list = start_info(backend)[9]
        given = array("I", domain.read(mfn_list, 4 * domain.nr_pages))
        assert given == domain.p2m
        for pfn, mfn in enumerate(given):
            assert domain.read_u32(0xF5800000 + 4 * mfn) == pfn


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_mapping(engine: str) -> None:
    """The tables are mapped read-only, everything else for writing; nothing is mapped above the boundary."""
    with xen_guest(engine=engine) as backend:
        domain, plan = backend.domain, backend.builder.plan
        tables = domain.vcpu.tables()
        for va in range(BASE, BASE + (4 << 20), 4096):
            leaf = lookup(domain.ram, tables, va)
            assert leaf is not None and not leaf.user
            assert leaf.physical >> 12 == domain.p2m[va - BASE >> 12]
            is_table = plan.tables <= va < plan.tables + 4096 * plan.nr_tables
            assert leaf.writable == (not is_table), hex(va)
        assert lookup(domain.ram, tables, BASE + (4 << 20)) is None
        m2p = lookup(domain.ram, tables, 0xF5800000)
        assert m2p is not None and not m2p.writable and m2p.span == 2 << 20
        assert lookup(domain.ram, tables, 0xFFFFF000) is None


def test_what_lies_behind_the_kernel() -> None:
    with xen_guest(command_line="a b", initrd=b"module", pages=3) as backend:
        nr_pages, shared, flags, _, store_port, _, console_port, tables, nr_tables, frames, module, size = \
            start_info(backend)
        domain, info = backend.domain, backend.domain.vcpu.reg(layout.ESI)
        assert (nr_pages, shared, flags) == (MEMORY // 4096, domain.shared_mfn * 4096, 0)
        assert (store_port, console_port) == (1, 2)
        assert (module, size) == (TEXT + 3 * 4096, 6)
        assert domain.read(module, 6) == b"module"
        assert frames == module + 4096
        assert info == frames + 4 * nr_pages
        assert tables == info + 3 * 4096
        assert nr_tables == 1 + 1 + 2  # the kernel and all of it below 4 MiB, in the top gigabyte
        assert domain.vcpu.esp == tables + (nr_tables + 1) * 4096
        assert domain.read(info + abi.CMD_LINE, 4) == b"a b\0"
        assert domain.read(info, 16) == b"xen-3.0-x86_32p\0"


def test_an_unmapped_module_lies_behind_the_first_mapping() -> None:
    with xen_guest(changed={MOD_START_PFN: 1}, initrd=b"x" * 5000) as backend:
        _, _, flags, *_, pfn, size = start_info(backend)
        assert (flags, size) == (abi.SIF_MOD_START_PFN, 5000)
        assert pfn << 12 == backend.builder.plan.end - BASE
        assert backend.domain.ram.read(backend.domain.p2m[pfn] * 4096, 4) == b"xxxx"


def test_the_hypercall_page() -> None:
    with xen_guest(changed={HYPERCALL_PAGE: TEXT + 4096}) as backend:
        page = backend.domain.read(TEXT + 4096, 4096)
        assert page[32 * 17 : 32 * 18] == bytes.fromhex("b811000000cd82c3").ljust(32, b"\xcc")
        assert page[32 * 23 : 32 * 24] == bytes.fromhex("50b817000000cd82").ljust(32, b"\xcc")


def test_descriptors_are_seen_through_the_window() -> None:
    with xen_guest() as backend:
        vcpu = backend.domain.vcpu
        for selector in (0xE019, 0xE021, 0xE02B, 0xE033):
            segment = vcpu.descriptor(selector)
            assert (segment.base, segment.limit) == (0, 0xFFFFFFFF)
            assert segment.high >> 13 & 3 == selector & 3


def test_a_kernel_that_does_not_fit_is_refused_in_one_sentence() -> None:
    with pytest.raises(ImageError, match="test-kernel: kernel, module and first page tables need"), \
            xen_guest(memory=2 << 20):
        pass


def test_a_long_command_line_is_cut() -> None:
    with xen_guest(command_line="x" * 3000) as backend:
        line = backend.domain.read(backend.domain.vcpu.reg(layout.ESI) + abi.CMD_LINE, 1024)
        assert line == b"x" * 1023 + b"\0"


def test_the_mapping_grows_with_its_own_tables() -> None:
    """A large module: the tables for it need room in the first mapping, which may need another table."""
    with xen_guest(memory=64 << 20, initrd=b"m" * (30 << 20)) as backend:
        plan = backend.builder.plan
        assert plan.end % (4 << 20) == 0
        assert plan.end - plan.stack - 4096 >= 512 << 10
        assert struct.unpack("<Q", backend.domain.ram.read(backend.domain.l3_mfn * 4096 + 24, 8))[0] & 1
