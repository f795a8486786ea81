"""The option ROM is what a guest of VMI expects, whoever reads it and wherever it lies.

What must hold: header, PCI and PnP data, licence and checksum are as Linux 2.6.32 reads them; GetRelocationInfo answers
every number, before and behind VMI_Init and at any base, and a number that there is not with NONE; the table says where
a call is answered, and rom.S agrees; each defect that a guest refuses is refused by `paravirt inspect` with the reason,
and by the reference kernel, which then runs as on bare hardware.

Ref: struct vrom_header of Linux 2.6.32 arch/x86/include/asm/vmi.h; PCI Local Bus Specification 2.2, 6.3.1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.errors import ImageError
from paravirt.options import BootOptions
from paravirt_vmi.inspection import defect, inspect
from paravirt_vmi.platform.calls import ABSENT, CALLS, DEFERRED, NOTHING, ROM, TRAP
from paravirt_vmi.platform.layout import CALL_REL, CYCLES_PER_SECOND, JUMP_REL, NONE, NOP, ROM_BYTES
from paravirt_vmi.rom import ATTENTION, build, slot
from tests.commandline import paravirt
from tests.vmimachine import CODE, KERNEL_CS, vmi

EAX, ECX, EDX = 0, 1, 2


def test_the_header_is_as_linux_reads_it() -> None:
    rom = build(virtual_top=0xFC000000).image
    assert len(rom) == ROM_BYTES and not sum(rom) & 0xFF
    assert rom[:2] == b"\x55\xaa" and rom[2] * 512 == ROM_BYTES
    assert rom[8:12] == b"cVmi" and rom[0x0D] == 3
    assert struct.unpack_from("<I", rom, 0x10) == (0xFC000000,)
    licence, pci, pnp = struct.unpack_from("<HHH", rom, 0x16)
    assert rom[licence:].split(b"\0")[0] in (b"GPL", b"GPL v2")
    assert pci % 4 == 0 and rom[pci : pci + 4] == b"PCIR"
    assert struct.unpack_from("<HH", rom, pci + 4) == (0x15AD, 0x0801)
    assert rom[pnp : pnp + 4] == b"$PnP" and not sum(rom[pnp : pnp + 32]) & 0xFF
    names = [rom[place:].split(b"\0")[0] for place in struct.unpack_from("<HH", rom, pnp + 0x0E)]
    assert names == [b"paravirt", b"VMI monitor"]
    assert rom[0x80:0x83] == b"\x0f\x0b\xc3" and rom[0x88] == 0xE9


def test_the_table_and_the_code_agree() -> None:
    rom = build()
    for call in CALLS:
        assert (call.name in rom.symbols) == (call.home in (ROM, DEFERRED)), call.name
    assert [call.number for call in CALLS] == list(range(74))
    assert {call.number for call in CALLS if call.home is ABSENT} == {42, 43, 72}
    assert [call.name for call in CALLS if call.home is NOTHING] == ["IODelay"]
    assert rom.answers[34] == JUMP_REL and rom.answers[33] == CALL_REL and rom.answers[65] == NOP


@pytest.mark.parametrize("options", [{}, {"trap": "all"}, {"none": "SetPxELong,41"}, {"deferral": False}])
@pytest.mark.parametrize("base", [0xC0000, 0xD0000, 0xDE000])
def test_every_answer_before_and_behind_init(options: dict[str, Any], base: int) -> None:
    with vmi(active=False, base=base, **options) as guest:
        for _ in ("before", "behind"):
            for number in [*range(74), 74, 4096, 0xFFFFFFFF]:
                code = b"\xb8" + struct.pack("<I", number) + b"\xe8" + struct.pack("<i", base + 0x88 - CODE - 10)
                guest.run_code(code)
                eax, edx = guest.result()
                if number > 73:
                    assert (eax, edx) == (0, NONE)
                    continue
                rom = guest.monitor.rom
                assert edx == rom.answers[number]
                reached = edx in (CALL_REL, JUMP_REL)
                assert eax == (base + rom.entries[CALLS[number].name] if reached else 0)
            if not guest.monitor.active:
                assert guest.initialise() == 0


def test_answers_follow_the_options() -> None:
    rom = build(none=("SetPxELong",), deferral=False, trap_all=True)
    assert rom.answers[39] == NONE and rom.answers[73] == NOP
    assert all(rom.entries[call.name] == slot(call.number) for call in CALLS)
    assert rom.image[slot(33)] == 0xF4 and rom.image[slot(33) + 1] == 0xE9, "behind the exit IRET is the CPU's own"
    assert [call.name for call in CALLS if call.home is TRAP][:3] == ["WRMSR", "RDMSR", "SetGDT"]


def test_what_waits_has_its_places() -> None:
    rom = build()
    attention = [at for at, what in rom.traps.items() if what == ATTENTION]
    assert len(attention) == 4 and all(rom.image[at] == 0xF4 for at in attention)
    assert CYCLES_PER_SECOND.to_bytes(4, "little") in rom.image


@given(st.integers(0, 0xFFFFF000))
def test_fix_ups_are_all_that_depends_on_the_base(base: int) -> None:
    rom = build()
    moved = rom.at(base)
    assert not sum(moved) & 0xFF
    changed = {at for at in range(ROM_BYTES - 1) if moved[at] != rom.image[at]}
    assert changed <= {place + byte for place in rom.fixups for byte in range(4)}
    for place in rom.fixups:
        before, after = (struct.unpack_from("<I", data, place)[0] for data in (rom.image, moved))
        assert (after - before) & 0xFFFFFFFF == base and ROM_BYTES <= before < 2 * ROM_BYTES


def _put(at: int, data: bytes) -> Callable[[bytearray], None]:
    def change(rom: bytearray) -> None:
        rom[at : at + len(data)] = data
    return change


DEFECTS = {
    "ROM signature": (_put(0, b"\0"), "the ROM signature is 0xaa00, not 0xaa55", ""),
    "VMI signature": (_put(8, b"CVMI"), "the VMI signature is b'CVMI', not b'cVmi'", ""),
    "API major": (_put(0x0D, b"\x02"), "speaks version 2.0 of the API, and guests speak 3", "ROM speaks version 2.0"),
    "PCI offset": (_put(0x18, b"\0\0"), "has no PCI data: the offset is 0", "ROM has no PCI data"),
    "no licence": (_put(0x16, b"\0\0"), "names no licence: the offset is 0", "licence is not GPL"),
    "licence": (_put(0x120, b"Proprietary\0"), "its licence is 'Proprietary', not one of 'GPL', 'GPL v2'",
                "licence is not GPL"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_refused_by_inspect_and_by_the_guest(name: str, tmp_path: Path) -> None:
    change, reason, printed = DEFECTS[name]
    rom = bytearray(build().image)
    change(rom)
    path = tmp_path / "bad.rom"
    path.write_bytes(rom)
    with pytest.raises(ImageError, match="guests refuse this VMI ROM") as refused:
        inspect(bytes(rom), path)
    assert reason in str(refused.value)
    output = bytearray()
    options = BootOptions(backend="vmi", options={"rom": str(path)}, append="noselftest init=/none panic", timeout=60)
    boot(None, options, Console(output.extend))
    text = output.decode()
    assert "Booting paravirtualized kernel on bare hardware" in text and printed in text


def test_a_good_rom_is_described(tmp_path: Path) -> None:
    path = tmp_path / "vmi.rom"
    done = paravirt("vmi", "rom", "--output", path, "-o", "virtual_top=0xfc000000")
    assert done.returncode == 0, done.stderr
    assert b"33  IRET                CALL_REL" in done.stdout and b"VMI_Init" in done.stdout
    shown = paravirt("inspect", path)
    assert shown.returncode == 0, shown.stderr
    for words in (b"VMI option ROM", b"paravirt VMI monitor, version 1.0", b"checksum right", b"from 0xfc000000 on"):
        assert words in shown.stdout
    assert paravirt("vmi", "rom", "-o", "none=IRET").stderr.strip().endswith(b"no guest can do without IRET")
    path.write_bytes(b"\x55\xaa" + bytes(100))
    shown = paravirt("inspect", path)
    assert shown.returncode == 2 and b"and the header alone 144" in shown.stderr


@given(st.binary(max_size=400))
def test_any_bytes_are_judged(data: bytes) -> None:
    assert isinstance(defect(data), str)
    assert isinstance(defect(b"\x55\xaa\x08" + bytes(5) + b"cVmi\0\x03" + data), str)


def test_ring_0_is_left_behind() -> None:
    with vmi() as guest:
        assert guest.vcpu.segment(1).selector == KERNEL_CS | 1
        assert guest.vcpu.eflags & 0x3200 == 0x200, "the CPU's flag is set, and IOPL is 0"
        assert not guest.monitor.flag, "the guest's was clear"
