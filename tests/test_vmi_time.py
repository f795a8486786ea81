"""VMI's clock: counters, alarms by IRQ 0 and by the local APIC, and that APIC itself.

What must hold: an alarm comes once its counter has reached an absolute value, and not before; a periodic one does not
make up for what was missed; arming replaces, cancelling tells whether there was one; an alarm by LVTT obeys its mask
bit; without a local APIC CPUID shows none. Linux's SMP build uses it.

Ref: Linux 2.6.32 arch/x86/kernel/vmiclock_32.c; Intel SDM vol. 3A, 10.5, 10.8.
"""

from __future__ import annotations

import pytest

from paravirt.devices import lapic
from paravirt.devices.lapic import LocalApic
from paravirt.machine.outcome import End
from paravirt.machine.timeline import Timeline
from tests.test_vmi_guests import linux, user_lines
from tests.vmimachine import Vmi, vmi

LVTT_FLAG, PERIODIC = 0x10000, 0x100
VECTOR = 0x1E  # of the machine's 32 gates
each_form = pytest.mark.parametrize(("engine", "trap"), [("fast", "few"), ("fast", "all"), ("no-platform", "few"),
                                                         ("portable", "few")])


def soon(guest: Vmi, ns: int) -> int:
    return guest.vcpu.tsc + ns


@each_form
def test_an_alarm_comes_by_lvtt(engine: str, trap: str) -> None:
    with vmi(engine, apic=True, trap=trap) as guest:
        when = soon(guest, 5000)
        outcome = guest.run_calls(
            ("APICWrite", lapic.SVR, 0x1FF), ("APICWrite", lapic.LVTT, VECTOR),
            ("SetAlarm", LVTT_FLAG, when, 0, (0, 0)), ("EnableInterrupts",))
        assert outcome.end is End.HALT and guest.faults() == {VECTOR: 1}, "the handler halts with interrupts off"
        assert guest.vcpu.tsc >= when and not guest.monitor.alarms
        assert guest.guest.all_counts()["vmi.alarms"] == 1


@each_form
def test_a_masked_entry_loses_it(engine: str, trap: str) -> None:
    with vmi(engine, apic=True, trap=trap) as guest:
        outcome = guest.run_calls(
            ("APICWrite", lapic.SVR, 0x1FF), ("APICWrite", lapic.LVTT, VECTOR | lapic.MASKED),
            ("SetAlarm", LVTT_FLAG, soon(guest, 100), 0, (0, 0)), ("EnableInterrupts",))
        assert outcome.end is End.LIMIT and not guest.faults()


def test_arming_and_cancelling() -> None:
    with vmi() as guest:
        far = soon(guest, 10**9)
        guest.run_calls(("SetAlarm", 0, far, 0, (0, 0)), ("SetAlarm", 0, far + 5, 0, (7, 0)),
                        ("SetAlarm", 1, far, 0, (0, 0)), ("SetAlarm", 2, far, 0, (0, 0)))
        alarms = {index: (alarm.expiry, alarm.period) for index, alarm in guest.monitor.alarms.items()}
        assert alarms == {0: (far + 5, 0), 1: (far, 0)}
        guest.run_calls(("CancelAlarm", PERIODIC | 1))
        assert guest.result()[0] == 1
        guest.run_calls(("CancelAlarm", 1))
        assert guest.result()[0] == 0 and list(guest.monitor.alarms) == [0]


def test_a_periodic_alarm_does_not_make_up_for_what_was_missed() -> None:
    with vmi() as guest:
        guest.machine.engine.charge(10_000_000)  # a host that was busy
        before = guest.vcpu.tsc
        guest.run_calls(("SetAlarm", PERIODIC, 0, 0, (1000, 0)))
        fired, passed = guest.guest.all_counts()["vmi.alarms"], guest.vcpu.tsc - before
        assert 1 <= fired <= passed // 1000 + 2, "one at once, then one each microsecond"
        expiry = guest.monitor.alarms[0].expiry
        assert expiry > guest.vcpu.tsc - 1000 and not expiry % 1000


def test_cpuid_shows_what_there_is() -> None:
    for there in (False, True):
        with vmi(apic=there) as guest:
            guest.call("CPUID", 1)
            assert bool(guest.result()[1] & 1 << 9) == there
            guest.call("APICRead", lapic.VERSION)
            assert guest.result()[0] == (lapic.VERSION_VALUE if there else 0xFFFFFFFF)


# ---------------------------------------------------------------------- the device

class Bench:
    """A local APIC, a clock that is set by hand, and what it tells the CPU."""

    def __init__(self) -> None:
        self.time, self.intr = 0, False
        self.timeline = Timeline(lambda: self.time, lambda: None)
        self.apic = LocalApic(self.timeline, self._set, lambda: 0x20)

    def _set(self, level: bool) -> None:
        self.intr = level

    def until(self, when: int) -> None:
        self.time = when
        self.timeline.run_due()

    def write(self, register: int, value: int) -> None:
        self.apic.write_wide(register, 4, value)

    def read(self, register: int) -> int:
        return self.apic.read_wide(register, 4)


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.write(lapic.SVR, 0x1FF)
    return made


def test_priorities_and_eoi(bench: Bench) -> None:
    for vector in (0x31, 0x55, 0x52):
        bench.write(lapic.ICR, lapic.SELF | vector)
    assert bench.intr and bench.apic.acknowledge() == 0x55
    assert not bench.intr, "0x52 is of the class that is served"
    bench.write(lapic.ICR, lapic.SELF | 0x61)
    assert bench.intr and bench.apic.acknowledge() == 0x61
    assert bench.read(lapic.ISR + 0x30) == 1 << 1 and bench.read(lapic.ISR + 0x20) == 1 << 0x15
    bench.write(lapic.EOI, 0)
    bench.write(lapic.EOI, 0)
    assert bench.intr and bench.apic.acknowledge() == 0x52
    bench.write(lapic.EOI, 0)
    bench.write(lapic.TPR, 0x30)
    assert not bench.intr, "the task priority holds 0x31 back"
    bench.write(lapic.TPR, 0)
    assert bench.intr and bench.apic.acknowledge() == 0x31


def test_the_timer(bench: Bench) -> None:
    bench.write(lapic.DIVIDE, 0b1011)  # by 1
    bench.write(lapic.LVTT, 0x40 | lapic.PERIODIC)
    bench.write(lapic.INITIAL_COUNT, 1000)
    bench.until(400)
    assert bench.read(lapic.CURRENT_COUNT) == 600 and not bench.intr
    for when in (1000, 2000):
        bench.until(when)
        assert bench.intr and bench.apic.acknowledge() == 0x40
        bench.write(lapic.EOI, 0)
    bench.write(lapic.INITIAL_COUNT, 0)
    bench.until(10_000)
    assert not bench.intr


def test_the_8259_comes_through_lint0(bench: Bench) -> None:
    bench.apic.pic_line(True)
    assert not bench.intr, "LINT0 is masked"
    bench.write(lapic.LINT0, lapic.EXTINT)
    assert bench.intr and bench.apic.acknowledge() == 0x20
    bench.write(lapic.LINT0, lapic.EXTINT | lapic.MASKED)
    assert not bench.intr
    bench.write(lapic.SVR, 0xFF)
    assert bench.intr, "switched off, it is not there"


def test_an_ipi_to_somebody_else_is_lost(bench: Bench) -> None:
    bench.write(lapic.ICR_HIGH, 3 << 24)
    bench.write(lapic.ICR, 0x41)
    assert not bench.intr
    bench.write(lapic.ICR_HIGH, 0)
    bench.write(lapic.ICR, 0x41)
    assert bench.intr


def test_odd_accesses_do_nothing(bench: Bench) -> None:
    before = bench.apic.state()
    bench.apic.write_wide(lapic.LVTT + 1, 1, 0)
    bench.apic.write_wide(lapic.LVTT, 2, 0)
    bench.write(lapic.VERSION, 0)
    assert bench.apic.state() == before
    assert bench.apic.read_wide(lapic.VERSION + 2, 1) == 4 and bench.apic.read_wide(lapic.VERSION + 8, 4) == 0


def test_linux_smp_on_a_local_apic() -> None:
    record, console = linux("smp/bzImage", tests="core", options={"apic": "true"})
    assert record.outcome.kind == "reboot", record.outcome.reason
    assert "Found and enabled local APIC" in console and "Switching to clocksource vmi-timer" in console
    counts = record.counts.backend
    assert counts["vmi.trap.APICWrite"] > 20, "an EOI for each alarm"
    assert user_lines(console) == user_lines(linux("smp/bzImage", "native", tests="core")[1])


