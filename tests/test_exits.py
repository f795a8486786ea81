"""What leaves the guest arrives at its handler once, in full, and the guest goes on as on the real thing.

What must hold, on every form of the engine: IN and OUT are allowed or raise #GP(0) exactly as IOPL and the TSS's bit
map say, and a refused one has no effect at all; memory that is not RAM goes to the MMIO bus with its address, size and
value; addresses that nobody claims read as ones, drop writes, and end the run with a sentence when executed; CPUID is
answered from the machine's table; SYSENTER and SYSEXIT change rings; each exit costs its fixed time; what a handler
raises comes out of `Machine.run` as it is.

Ref: Intel SDM vol. 1, 19.5 (I/O permission); vol. 2A CPUID; vol. 2B SYSENTER, SYSEXIT.
"""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from paravirt.machine import cpuid, layout
from paravirt.machine.callbacks import RDTSC_NS
from paravirt.machine.engine import EXCEPTION_NS
from paravirt.machine.exits import CPUID_NS, MMIO_NS, PORT_NS, Exit, IncompleteTable, Kind
from paravirt.machine.outcome import End, crash
from paravirt.pc import PC_EXITS
from tests.snippet import (
    BLOCK_CLOCK,
    ENGINES,
    KERNEL_CS,
    KERNEL_DS,
    MEMORY,
    TSS_STACK,
    USER_CS,
    USER_STACK,
    Guest,
    each_engine,
    start,
)

GP, UD, EFLAGS_IOPL = 13, 6, 0x3000
DEVICE = 0xFED00000
MSRS = 3  # the three SYSENTER registers
ONES = 0xFFFFFFFF


class Wide:
    """Answers 8 bytes or what is asked of them; keeps what was written."""

    def __init__(self, content: int = 0x8877665544332211) -> None:
        self.content = content
        self.log: list[tuple[str, int, int, int]] = []

    def read_wide(self, offset: int, size: int) -> int:
        value = self.content >> 8 * offset & (1 << 8 * size) - 1
        self.log.append(("read", offset, size, value))
        return value

    def write_wide(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size, value))

    def state(self) -> Mapping[str, object]:
        return {}

    def reset(self) -> None:
        self.log.clear()


@each_engine
def test_ports(engine: str) -> None:
    with start("ports", engine) as guest:
        low, high = Wide(0xABCD), Wide(0x12345678)
        guest.machine.ports.claim(0x10, 2, low, "low")
        guest.machine.ports.claim(0x1234, 4, high, "high")
        guest.finish()
        assert low.log[:4] == [("write", 0, 1, 0x11), ("write", 0, 2, 0x2222), ("read", 0, 1, 0xCD),
                               ("read", 0, 2, 0xABCD)]
        assert high.log == [("write", 0, 4, 0x33333333), ("read", 0, 4, 0x12345678),
                            *(("write", 0, 1, byte) for byte in b"abc"), *[("read", 0, 4, 0x12345678)] * 2]
        assert guest.results(3) == [0x333333CD, 0x3333ABCD, 0x12345678], "IN changes no more of EAX than its width"
        assert guest.result(3) == 0
        assert guest.results(7)[5:] == [0x12345678] * 2

        # Ring 3: one byte out and in at port 10h, and no trace of what was refused.
        assert low.log[4:] == [("write", 0, 1, 0x44), ("read", 0, 1, 0xCD)]
        assert guest.result(8) == 0xCD55, "port 11h was refused after port 10h had been read"
        log = guest.log()
        labels = ("forbidden_out", "forbidden_in", "wide_out", "last_out", "beyond_out", "string_out")
        assert [(r.vector, r.error, r.eip, r.cs) for r in log if r.vector == GP] == [
            (GP, 0, guest.symbol(label), USER_CS) for label in (*labels, "short_tss")]
        by_iopl = log[-2]
        assert (by_iopl.vector, by_iopl.eflags & EFLAGS_IOPL) == (UD, EFLAGS_IOPL)
        assert guest.result(9) == 0x77777777, "a refused IN leaves EAX"
        assert 0x80 not in guest.machine.engine.exceptions(), "nothing behind a refused IN may happen"
        assert guest.result(11) == 0
        assert guest.result(10) == guest.symbol("bytes"), "a refused OUTS leaves ESI"
        # 5 + 3 OUT, 3 + 2 IN in ring 0; 1 + 1 at 10h, 1 at 7fh, 1 by IOPL in ring 3. Refused ones are no port I/O.
        assert guest.machine.port_io == guest.machine.traps == 3 + 3 + 3 + 2 + 4


def test_port_io_leaves_the_same_state_on_every_engine() -> None:
    states = {}
    for engine in ENGINES:
        with start("ports", engine) as guest:
            states[engine] = guest.finish().left()
    assert set(states.values()) == {states["fast"]}, states


@each_engine
def test_memory_mapped_io(engine: str) -> None:
    with start("exits", engine, arguments=[DEVICE]) as guest:
        device = Wide()
        guest.machine.mmio.claim(DEVICE, 16, device, "device")
        guest.finish()
        accesses = [entry for entry in device.log if entry[2] < 8][:8]
        assert accesses == [
            ("read", 0, 4, 0x44332211), ("read", 1, 1, 0x22), ("read", 2, 2, 0x4433), ("write", 4, 4, 0x11223344),
            ("write", 9, 1, 0x55), ("write", 10, 2, 0x6677), ("read", 0, 4, 0x44332211), ("write", 0, 4, 0x44332212)]
        assert guest.results(3) == [0x44332211, 0x22, 0x4433]
        assert guest.results(6)[3:] == [ONES] * 3, "nobody's addresses read as ones, and drop writes"
        assert (guest.result(6), guest.result(7)) == (0x44332211, 0x88776655), "an access of eight bytes"


@each_engine
def test_unclaimed_memory_is_no_memory(engine: str) -> None:
    """Right behind RAM, at the top of the address space, and where a board might be."""
    for address in (MEMORY, 0xA0000000, 0xFFFFE000):
        with start("exits", engine, arguments=[address]) as guest:
            guest.finish()
            assert guest.results(8) == [ONES, 0xFF, 0xFFFF, ONES, ONES, ONES, ONES, ONES], hex(address)


@each_engine
def test_executing_unclaimed_memory_is_a_crash(engine: str) -> None:
    with start("fatal", engine, arguments=[5]) as guest:
        outcome = guest.run()
        assert (outcome.end, outcome.exit_code, outcome.eip) == (End.CRASH, 70, 0xFEE00000)
        assert outcome.reason == "the guest executes code where there is no memory"


@each_engine
def test_cpuid(engine: str) -> None:
    leaves = [0, 1, 2, 3, *range(0x80000000, 0x80000005), 0x80000006, 0x80000008, 0x4000, 0x40000000, 0x80000009]
    with start("exits", engine, arguments=[DEVICE]) as guest:
        guest.finish()
        answers = [tuple(guest.results(8 + 4 * 14)[8 + 4 * i : 12 + 4 * i]) for i in range(len(leaves))]
    assert answers == [cpuid.cpuid(leaf, 0) for leaf in leaves]
    by_leaf = dict(zip(leaves, answers, strict=True))
    assert by_leaf[0] == (2, 0x756E6547, 0x6C65746E, 0x49656E69)  # "Genu" "ntel" "ineI"
    _, _, features_c, features = by_leaf[1]
    assert by_leaf[1][0] >> 8 & 15 == 6
    present = {"FPU": 0, "DE": 2, "PSE": 3, "TSC": 4, "MSR": 5, "PAE": 6, "CX8": 8, "SEP": 11, "PGE": 13, "CMOV": 15,
               "MMX": 23, "FXSR": 24, "SSE": 25, "SSE2": 26}
    absent = {"VME": 1, "MCE": 7, "APIC": 9, "MTRR": 12, "MCA": 14, "ACPI": 22, "HTT": 28}
    assert all(features >> bit & 1 for bit in present.values())
    assert not any(features >> bit & 1 for bit in absent.values())
    assert not features_c >> 31, "no hypervisor is told of"
    assert by_leaf[0x80000001][3] == 1 << 20, "NX, and no long mode"
    brand = b"".join(word.to_bytes(4, "little") for i in (2, 3, 4) for word in by_leaf[0x80000000 + i])
    assert brand == b"Genuine Intel(R) CPU           T2600  @ 1.00GHz\0"
    assert by_leaf[3] == by_leaf[0x4000] == by_leaf[0x40000000] == by_leaf[2], "unknown: the highest basic one"


@each_engine
def test_sysenter_and_sysexit(engine: str) -> None:
    with start("exits", engine, arguments=[DEVICE]) as guest:
        guest.finish()
        refused, absent, back = guest.log()
        assert (refused.vector, refused.error, refused.eip) == (GP, 0, guest.symbol("bad_sysenter"))
        assert (absent.vector, absent.eip) == (UD, guest.symbol("bad_syscall"))
        flags, esp, cs, ss, ecx, edx, in_user = guest.results(71)[64:]
        assert not flags & 0x200, "SYSENTER clears IF"
        assert (esp, cs, ss) == (TSS_STACK - 64, KERNEL_CS, KERNEL_DS)
        assert (ecx, edx) == (0x1111, 0x2222)
        assert (back.vector, back.cs, back.esp, back.ss) == (0x80, USER_CS, USER_STACK - 16, 0x23)
        assert in_user == USER_CS


@each_engine
def test_what_exits_cost(engine: str) -> None:
    """Virtual time is instructions plus the charges; every exit is in the charges."""
    with start("exits", engine, arguments=[DEVICE]) as guest:
        guest.finish()
        engine_ = guest.machine.engine
        charged = engine_.now() - engine_.instructions()
        msrs = MSRS if engine_.seams.forms()["msrs"] == "checked" else 0
        # MMIO: 4 reads and 4 writes of the device, 8 bytes of it in two halves, 4 elsewhere; CPUID: 14; SYSENTER: 2.
        exceptions = EXCEPTION_NS * sum(engine_.exceptions().values())
        assert charged == 14 * MMIO_NS + 14 * CPUID_NS + exceptions + msrs * RDTSC_NS
        assert guest.machine.traps == 14 + 14
    with start("ports", engine) as guest:
        guest.finish()
        engine_ = guest.machine.engine
        assert engine_.now() - engine_.instructions() == 15 * PORT_NS + 8 * EXCEPTION_NS


def test_instructions_are_counted_exactly() -> None:
    """With the block clock. The two forms of delivery count alike."""
    counts = set()
    for engine in set(BLOCK_CLOCK) - {"no-msrs"}:  # which charges nothing for RDMSR
        with start("exits", engine, arguments=[DEVICE]) as guest:
            guest.finish()
            counts.add((guest.machine.engine.now(), guest.machine.engine.instructions()))
    assert len(counts) == 1, counts


@each_engine
@pytest.mark.parametrize("kind", [Kind.PORT_IN, Kind.PORT_OUT])
def test_what_a_handler_raises_comes_out(engine: str, kind: Kind) -> None:
    class Trouble(Exception):
        pass

    def fail(*arguments: object) -> int:
        raise Trouble("of ours")

    with start("ports", engine, table={**PC_EXITS, Exit(kind): fail}) as guest, pytest.raises(Trouble, match="of ours"):
        guest.machine.run()


@each_engine
@pytest.mark.parametrize("kind", [Kind.CPUID, Kind.SYSENTER, Kind.SOFTWARE_INTERRUPT])
def test_an_end_that_a_handler_raises_is_the_outcome(engine: str, kind: Kind) -> None:
    def fail(*arguments: object) -> None:
        raise crash("enough")

    with start("exits", engine, table={**PC_EXITS, Exit(kind): fail}, arguments=[DEVICE]) as guest:
        outcome = guest.run()
        assert (outcome.end, outcome.reason) == (End.CRASH, "enough")


@each_engine
def test_what_an_mmio_device_raises_comes_out(engine: str) -> None:
    class Broken(Wide):
        def read_wide(self, offset: int, size: int) -> int:
            raise ZeroDivisionError

    with start("exits", engine, arguments=[DEVICE]) as guest, pytest.raises(ZeroDivisionError):
        guest.machine.mmio.claim(DEVICE, 16, Broken(), "broken")
        guest.machine.run()


def test_a_table_with_gaps_is_refused_by_name() -> None:
    table = {key: handler for key, handler in PC_EXITS.items() if key.kind not in (Kind.CPUID, Kind.PORT_IN)}
    with pytest.raises(IncompleteTable, match="answers no in, cpuid"):
        Guest("ports", "fast", table=table)


@each_engine
def test_a_port_handler_sees_the_registers(engine: str) -> None:
    """A platform may look at the guest in any exit."""
    seen = []

    def look(vcpu: object, port: int, size: int, value: int) -> None:
        seen.append((guest.vcpu.cpl, guest.vcpu.eip, guest.vcpu.reg(layout.EDX)))

    with start("ports", engine, table={**PC_EXITS, Exit(Kind.PORT_OUT): look}) as guest:
        guest.finish()
        assert [ring for ring, _, _ in seen] == [0] * 6 + [3] * 3
        assert seen[2][2] == 0x1234
        ring3 = guest.symbol("ring3")
        assert seen[6][1] in (ring3 + 2, ring3 + 4), "EIP is at the instruction or behind it"
