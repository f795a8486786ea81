"""Random hypercalls never raise, never take long, and never leave frames that the page tables do not account for.

One seed; ``make fuzz SEED=n CALLS=1000000`` runs others, and longer.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.xenfuzz import Fuzzer, too_long

CALLS = 100_000


@pytest.fixture
def alarm() -> Iterator[None]:
    """What takes too long fails."""
    before = signal.signal(signal.SIGALRM, too_long)
    yield
    signal.signal(signal.SIGALRM, before)


def test_any_call_at_all(alarm: None) -> None:
    fuzzer = Fuzzer(seed=20)
    try:
        fuzzer.run(CALLS)
    except Exception as error:
        pytest.fail(f"{fuzzer.last}: {error!r}")
    succeeded = {answer.split()[0] for answer in fuzzer.answers if answer.endswith("done")}
    assert {"mmu_update", "mmuext_op", "update_va_mapping", "memory_op", "grant_table_op", "multicall",
            "event_channel_op", "set_gdt", "update_descriptor"} <= succeeded, "it gets somewhere"
