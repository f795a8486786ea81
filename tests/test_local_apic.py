"""A kernel that looks for a local APIC finds one that firmware has disabled, and a test suite can size the machine.

CPU test suites need a local APIC before their first test; Linux must not see one before somebody enables it, or its
boots would change. What must hold: CPUID's bit follows the MSR, interrupts by vector, by the timer and by the 8259
behind it arrive on both engines, and the firmware configuration tells memory and CPUs. The registers one by one are in
test_vmi_time.py, where the same device serves VMI guests.
"""

from __future__ import annotations

import struct

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.devices.lapic import VERSION_VALUE
from paravirt.machine.accel import NAMES
from paravirt.options import BootOptions
from tests.kernels import kernel

MIB = 1 << 20
CPUID_APIC, ENABLED, BASE = 1 << 9, 0x800, 0xFEE00100


@pytest.mark.parametrize("off", [(), ("delivery",), ("inline",), ("clock",), tuple(NAMES)],
                         ids=["fast", "delivery", "inline", "clock", "portable"])
def test_a_kernel_enables_and_uses_its_local_apic(off: tuple[str, ...]) -> None:
    output = bytearray()
    record = boot(kernel("apic", "apic"), BootOptions(no_accel=off, memory=16 * MIB, max_instructions=50_000_000),
                  Console(output.extend))
    assert (record.outcome.kind, record.exit_code) == ("debug-exit", 0), record.outcome
    version, before, after, base, enabled, served, ipis, timers, pits, nmis, nested = struct.unpack_from("<11I", output)
    assert version == VERSION_VALUE
    assert (served, ipis, timers, pits) == (1 << 1, 1, 3, 2), "vector 61h in service; three ticks; two of the 8254"
    assert (nmis, nested) == (2, 0), "taken with interrupts off; one sent by its own handler waits for IRET"
    assert not before & CPUID_APIC
    if "msrs" not in off:
        assert (after, base, enabled) == (before | CPUID_APIC, BASE, BASE | ENABLED)
    else:
        assert (after, base, enabled) == (before, 0, 0), "the public interface shows no MSR that libunicorn has not"
    signature, memory, cpus, behind = struct.unpack_from("<4sQHB", output, 44)
    assert (signature, memory, cpus, behind) == (b"QEMU", 16 * MIB, 1, 0)


def test_two_runs_are_equal() -> None:
    options = BootOptions(memory=16 * MIB, max_instructions=50_000_000)
    hashes = {boot(kernel("apic", "apic"), options, Console()).state_hash for _ in range(2)}
    assert len(hashes) == 1
