"""lguest is a backend like any other: the kernel agrees with native, and pays what the design says.

What must hold: the self-test passes in ring 1 with native's end state; the interrupt flag costs no hypercall, a context
switch one; what a guest passes wrong is the guest's fault.
"""

from __future__ import annotations

import pytest

from paravirt.testing.fixtures import Boot

lguest = pytest.mark.parametrize("backend", ["lguest"], indirect=True)


@lguest
def test_the_end_is_natives(boot: Boot) -> None:
    record, native = boot(count_ops=True), Boot("native")()
    assert record.outcome.kind == "poweroff", record.outcome.reason
    assert record.end_state is not None and record.end_state == native.end_state
    assert record.counts.backend["lguest.init"] == 1
    calls = sum(count for name, count in record.counts.backend.items() if name.startswith("lguest."))
    assert calls < 5_000 < record.counts.ops["irq_disable"], "the flag is a word"


@lguest
def test_the_portable_engine_does_the_same(boot: Boot) -> None:
    record = boot(append="noselftest", engine="portable")
    assert record.outcome.kind == "poweroff", record.outcome.reason


@lguest
def test_a_panic_is_told(boot: Boot) -> None:
    record = boot(append="panic")
    assert (record.outcome.kind, record.exit_code) == ("crash", 70)
    assert "kernel panic" in record.outcome.reason
