"""A multiboot kernel finds what the specification promises, and a header that cannot be followed is refused.

Many small kernels and CPU test suites start by multiboot alone. What must hold: the kernel runs from the right
addresses, whether an ELF file's or its header's, with the registers and the information of the specification; other
protocols of the same file go first where they are ours; and whatever a header says, the plan lies in RAM, overlaps
nothing, or is refused in one sentence.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.errors import ImageError
from paravirt.guest import KernelInfo
from paravirt.image import FlatImage, load_image
from paravirt.image.elf import load_elf
from paravirt.image.linux import BootPlan, pc_e820
from paravirt.image.multiboot import HEADER_RANGE, MultibootHeader, find_multiboot
from paravirt.image.multiboot_plan import INFO, plan_multiboot
from paravirt.options import BootOptions
from paravirt.record import Record
from tests.commandline import paravirt
from tests.elfmaker import Load, make_elf, make_paravirt_kernel
from tests.kernels import kernel, linked

MIB = 1 << 20
KERNEL = Path("kernel")
MAGIC, LOADER = 0x1BADB002, 0x2BADB002
ADDRESSES = 0x10000
CR0_PE, IF, VM = 1, 0x200, 0x20000


def header(flags: int = 0, *addresses: int) -> bytes:
    return struct.pack(f"<{3 + len(addresses)}I", MAGIC, flags, -(MAGIC + flags) & 0xFFFFFFFF, *addresses)


def elf(*loads: Load, entry: int = 0x100010) -> bytes:
    """An ELF kernel whose first segment begins with a header."""
    first = loads[0] if loads else Load(0x100000, b"", 0x100000)
    return make_elf([Load(first.vaddr, header() + bytes(64) + first.data, first.paddr, first.memsz, first.flags),
                     *loads[1:]], entry=entry)


def plan(data: bytes, *, memory: int = 64 * MIB, command_line: str = "", initrd: bytes | None = None) -> BootPlan:
    found = find_multiboot(data)
    assert found is not None
    image = load_elf(KERNEL, data) if data[:4] == b"\x7fELF" else FlatImage(KERNEL, data)
    return plan_multiboot(image, found, memory=memory, command_line=command_line, initrd=initrd)


def refused(data: bytes, message: str, **options: Any) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        plan(data, **options)
    assert str(caught.value).startswith("kernel: ") and "\n" not in str(caught.value)


# ---------------------------------------------------------------------- the header


def test_the_header_is_found_where_it_may_be() -> None:
    assert find_multiboot(bytes(64) + header(3)) == MultibootHeader(64, 3)
    assert find_multiboot(bytes(HEADER_RANGE - 12) + header() + bytes(100)) == MultibootHeader(HEADER_RANGE - 12, 0)
    assert find_multiboot(header(ADDRESSES, 5, 4, 3, 2, 1)) == MultibootHeader(0, ADDRESSES, 5, 4, 3, 2, 1)
    wrong = struct.pack("<3I", MAGIC, 0, 7)
    assert find_multiboot(wrong + header(2)) == MultibootHeader(12, 2), "the first one's checksum is wrong"


@pytest.mark.parametrize("data", [
    b"", header()[:8], bytes(2) + header(), bytes(HEADER_RANGE - 8) + header(), bytes(HEADER_RANGE) + header(),
    header(ADDRESSES, 1, 2, 3, 4), bytes(HEADER_RANGE - 16) + header(ADDRESSES, 1, 2, 3, 4, 5),
], ids=["empty", "cut", "odd", "half-outside", "outside", "addresses-cut", "addresses-outside"])
def test_what_is_no_header(data: bytes) -> None:
    assert find_multiboot(data) is None


def test_which_protocol_goes_first(tmp_path: Path) -> None:
    """The reference kernel's note, then multiboot, then Linux's protocol."""
    noted_bytes = bytearray(make_paravirt_kernel())
    noted = load_elf(KERNEL, bytes(noted_bytes))
    at = noted.data.index(noted.segments[0].data) + 0x800
    noted_bytes[at : at + 12] = header()
    assert find_multiboot(bytes(noted_bytes)) is not None
    assert KernelInfo.of(load_elf(KERNEL, bytes(noted_bytes))).multiboot is None
    assert KernelInfo.of(load_elf(KERNEL, elf())).multiboot is not None
    assert KernelInfo.of(load_elf(KERNEL, make_elf([Load(0x100000, b"x", 0x100000)]))).multiboot is None
    flat = tmp_path / "flat"
    flat.write_bytes(header(ADDRESSES, 0x100000, 0x100000, 0, 0, 0x100000))
    assert isinstance(load_image(flat), FlatImage)
    flat.write_bytes(header())
    with pytest.raises(ImageError, match=r"a multiboot header without addresses \(flag 16\)"):
        load_image(flat)


# ---------------------------------------------------------------------- the plan


def test_entry_of_an_elf_kernel() -> None:
    high = Load(0xC0100000, b"", 0x100000)
    assert plan(elf(high, entry=0xC0100010)).entry == 0x100010
    assert plan(elf(high, entry=0x100010)).entry == 0x100010
    refused(elf(high, entry=0x200000), "e_entry 0x200000 lies in no loadable segment")


def test_kernels_below_1_mib_push_the_loader_away() -> None:
    assert plan(elf(Load(0x8000, b"", 0x8000), entry=0x8010)).ebx < 0xA0000
    over = plan(elf(Load(INFO, b"", INFO), entry=INFO + 0x10), initrd=b"module")
    assert over.ebx >= MIB
    assert over.initrd is not None and over.initrd[0] > over.ebx
    for address in (0x400, 0x9F000, 0xB8000, 0xFF000):
        refused(elf(Load(address, bytes(0x1800), address), entry=address + 0x10), "the firmware's or a device's")


@pytest.mark.parametrize(("flags", "addresses", "message"), [
    (0x8, (), "flags 0x8: the kernel cannot do without 0x8"),
    (0x8003, (), "cannot do without 0x8000"),
    (ADDRESSES, (0x100000, 0x100004, 0, 0, 0x100004), "load_addr 0x100004"),
    (ADDRESSES, (0x100004, 0x100000, 0, 0, 0x100004), "load_addr 0x100000: the header at 0x0"),
    (ADDRESSES, (0x100000, 0x100000, 0xFFFFF, 0, 0x100004), "load_end_addr 0xfffff"),
    (ADDRESSES, (0x100000, 0x100000, 0xFFFFFFFF, 0, 0x100004), "load_end_addr 0xffffffff"),
    (ADDRESSES, (0x100000, 0x100000, 0, 0x100001, 0x100004), "bss_end_addr 0x100001"),
    (ADDRESSES, (0x100000, 0x100000, 0, 0xFFFFFFFF, 0x100004), "memory: the kernel needs 4096 MiB, .* has 64"),
    (ADDRESSES, (0x100000, 0x100000, 0, 0, 0x100400), "entry_addr 0x100400"),
    (ADDRESSES, (0xFFFFFFF0, 0xFFFFFFF0, 0, 0, 0xFFFFFFF0), "memory: the kernel needs"),
])
def test_headers_that_cannot_be_followed(flags: int, addresses: tuple[int, ...], message: str) -> None:
    refused(header(flags, *addresses) + bytes(64), message)


def test_flags_that_a_loader_may_leave_alone() -> None:
    """A wish for a video mode, and the upper sixteen: none of them keeps a kernel from being started."""
    assert plan(header(0xFFFF0007, 0x100000, 0x100000, 0, 0, 0x100000)).entry == 0x100000


def test_room_for_command_line_and_module() -> None:
    refused(elf(Load(0x100000, b"", 0x100000, 63 * MIB + 1)), "memory: the kernel needs 65 MiB, the machine has 64")
    tight = elf(Load(0x100000, b"", 0x100000, 63 * MIB))
    assert plan(tight).initrd is None
    with pytest.raises(ImageError, match="kernel, command line and initrd need 65 MiB"):
        plan(tight, initrd=b"module")
    long = plan(elf(), command_line="x" * MIB)
    assert long.ebx >= MIB, "a text for which there is no room low lies behind the kernel"
    with pytest.raises(ImageError, match="command line: it contains a NUL"):
        plan(elf(), command_line="a\0b")


def check(made: BootPlan, size: int, memory: int) -> None:
    """A plan in RAM whose writes do not overlap and are not larger than what they are made of."""
    spans = sorted((at, at + len(piece)) for at, piece in made.writes)
    assert spans[-1][1] <= memory
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(len(piece) for _, piece in made.writes) <= size + 0x1000
    assert made.entry < memory


WORDS = st.sampled_from(
    [0, 1, 4, 0x500, INFO, 0x9FC00, 0xA0000, 0x100000, 0x100010, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS | st.integers(0, 0xFFFFFFFF) | st.integers(0x100000, 0x101000), min_size=5, max_size=5),
       st.integers(0, 0xFFFFFFFF) | st.just(0), st.integers(0, 2000), st.integers(0, 200))
def test_any_addresses(addresses: list[int], flags: int, before: int, after: int) -> None:
    data = bytes(before * 4) + header(flags & 0xFFFF0007 | ADDRESSES, *addresses) + bytes(after)
    try:
        check(plan(data, initrd=b"initrd"), len(data), 64 * MIB)
    except ImageError as problem:
        assert str(problem).startswith("kernel: ")


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_damaged_elf_kernels(draws: st.DataObject) -> None:
    data = bytearray(elf(Load(0x100000, bytes(64), 0x100000), Load(0x102000, b"data", 0x102000, 0x3000)))
    for _ in range(draws.draw(st.integers(1, 3))):
        struct.pack_into("<I", data, draws.draw(st.integers(0, 180)), draws.draw(WORDS))
    try:
        if find_multiboot(bytes(data)) is not None:
            check(plan(bytes(data), initrd=b"initrd"), len(data), 64 * MIB)
    except ImageError as problem:
        assert str(problem).startswith("kernel: ")


# ---------------------------------------------------------------------- a kernel


def guest(path: Path, *, flat: bool) -> Path:
    """tests/guests/multiboot.S as an ELF file, or as what its header's addresses describe, with something before."""
    image = linked("multiboot")
    entry = image.symbols.address("entry")
    assert entry is not None
    data = bytearray(image.data)
    if flat:
        path.write_bytes(b"anything" + b"".join(segment.data for segment in image.segments))
        return path
    found = find_multiboot(image.data)
    assert found is not None
    data[found.offset : found.offset + 12] = header(3)
    struct.pack_into("<I", data, 24, entry)
    path.write_bytes(data)
    return path


def run(path: Path, engine: str, **options: Any) -> tuple[Record, bytes]:
    output = bytearray()
    record = boot(path, BootOptions(engine=engine, memory=16 * MIB, max_instructions=1_000_000,
                                    **options),
                  Console(output.extend))
    assert (record.outcome.kind, record.exit_code) == ("debug-exit", 7)
    assert record.outcome.reason == "the guest wrote 0x1234507 to the debug-exit port"
    return record, bytes(output)


@pytest.mark.parametrize("flat", [False, True], ids=["elf", "addresses"])
@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_a_kernel_finds_what_the_specification_promises(tmp_path: Path, engine: str, flat: bool) -> None:
    path = guest(tmp_path / "kernel.bin", flat=flat)
    module = tmp_path / "a module"
    module.write_bytes(b"contents")
    _, output = run(path, engine, append="one two", initrd=module)
    eax, ebx, cs, ds, ss, eflags, cr0, ebp, blank = struct.unpack_from("<9I", output)
    assert (eax, ebp, blank) == (LOADER, 0, 0)
    assert cs & 0xFFFF != 0 and ds & 0xFFFF == ss & 0xFFFF != 0
    assert not eflags & (IF | VM) and cr0 & 0x80000001 == CR0_PE
    info = struct.unpack_from("<22I", output, 36)
    assert info[:4] == (0b1001001101, 639, 15 * 1024, 0), "memory, command line, modules, map, loader; no boot device"
    assert (info[5], info[11], info[13:16]) == (1, 24 * 4, (0, 0, 0))
    assert ebx % 4 == 0
    rest = output[36 + 88 :]
    entries = tuple(struct.unpack_from("<IQQI", rest, 24 * n) for n in range(4))
    assert entries == tuple((20, *entry) for entry in pc_e820(16 * MIB))
    command_line, name, rest = rest[24 * 4 :].split(b"\0", 2)
    assert (command_line, name) == (f"{path} one two".encode(), b"paravirt")
    start, end, text, reserved = struct.unpack_from("<4I", rest)
    assert (start % 4096, end - start, reserved) == (0, 8, 0) and text != 0
    assert rest[16:] == f"{module}\0contents".encode()


def test_a_kernel_without_module_and_command_line(tmp_path: Path) -> None:
    path = guest(tmp_path / "kernel.bin", flat=True)
    first, output = run(path, "auto")
    info = struct.unpack_from("<22I", output, 36)
    assert (info[0] >> 3 & 1, info[5]) == (1, 0), "no module, which is said"
    assert output[36 + 88 + 96 :] == str(path).encode() + b"\0paravirt\0"
    again, _ = run(path, "auto")
    assert again.state_hash == first.state_hash


@pytest.mark.parametrize("engine", ["auto", "portable"])
def test_what_is_printed_on_two_ports_stays_in_order(engine: str) -> None:
    """The serial port may gather what it sends (test_shortcuts.py); a byte on the debug port must not overtake it."""
    output = bytearray()
    boot(kernel("ends", "prints_twice"), BootOptions(engine=engine, memory=16 * MIB), Console(output.extend))
    assert output == b"abcd"


def test_inspect_shows_the_header_and_a_bad_one_is_one_line(tmp_path: Path) -> None:
    path = guest(tmp_path / "kernel.bin", flat=True)
    shown = paravirt("inspect", str(path))
    assert shown.returncode == 0
    assert "header at 0x8, flags 0x10003, aligned modules, memory sizes" in shown.stdout.decode()
    assert "a multiboot kernel" in shown.stdout.decode()
    path.write_bytes(header(ADDRESSES | 8, 0x100000, 0x100000, 0, 0, 0x100000))
    failed = paravirt("boot", str(path), "--quiet")
    assert failed.returncode == 2
    assert failed.stderr.decode() == (f"paravirt: {path}: multiboot flags 0x10008: the kernel cannot do without 0x8, "
                                      "which this loader does not know\n")
