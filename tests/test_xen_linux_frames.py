"""After a whole boot of Linux the frames are as the page tables say.

What must hold: after some hundred thousand changes of page tables, by hypercalls, by multicalls and by direct writes,
in C and in Python, all that is counted is what the tables say when they are read from scratch.

Ref: tests/xenaudit.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from paravirt.boot_sequence import boot
from paravirt.console import Console
from paravirt.machine.core import Machine
from paravirt.options import BootOptions
from paravirt_xen.platform import setup
from paravirt_xen.platform.domain import Domain
from tests.realguests import guest_file
from tests.xenaudit import Audit

COMMAND_LINE = "console=hvc0 gexit=poweroff gtest=core"


@contextmanager
def audits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Audit]]:
    """Audits of the domains that are built meanwhile, made just before each machine is given back."""
    domains: list[Domain] = []
    found: list[Audit] = []
    take_memory, close = setup.take_memory, Machine.close

    def take_and_keep(domain: Domain) -> None:
        domains.append(domain)
        take_memory(domain)

    def audit_and_close(machine: Machine) -> None:
        found.extend(Audit(domain) for domain in domains if domain.machine is machine)
        close(machine)

    monkeypatch.setattr(setup, "take_memory", take_and_keep)
    monkeypatch.setattr(Machine, "close", audit_and_close)
    yield found


@pytest.mark.parametrize("build", ["up", "smp"])
def test_linux_leaves_frames_as_its_tables_say(monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    kernel, initrd = guest_file(f"kernels/{build}/vmlinux"), guest_file("initrd-run.gz")
    with audits(monkeypatch) as found:
        record = boot(kernel, BootOptions(backend="xen", append=COMMAND_LINE, initrd=initrd.read_bytes(), timeout=300),
                      Console(lambda data: None))
    assert record.outcome.kind == "poweroff"
    assert [audit.problems for audit in found] == [[]]
