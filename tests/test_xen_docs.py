"""docs/xen.md is true: its tables are the hypervisor's literal ones, and the modules that it names exist.

The page is what somebody reads who asks why a guest does not come up; a call that it gets wrong costs a day.
"""

from __future__ import annotations

import re
from pathlib import Path

from paravirt_xen.platform.hypercalls import HYPERCALLS
from tools import xen_tables

PLATFORM = Path(__file__).resolve().parent.parent / "backends" / "xen" / "paravirt_xen" / "platform"


def test_the_tables_are_those_of_the_source() -> None:
    page = xen_tables.PAGE.read_text()
    assert page == xen_tables.with_tables(page), "run python tools/xen_tables.py"


def test_every_hypercall_is_there_with_its_answer() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", xen_tables.PAGE.read_text(), re.MULTILINE)
    assert {int(number): name for number, name in rows} == {number: call.name for number, call in HYPERCALLS.items()}


def test_numbers_are_told_in_runs() -> None:
    assert xen_tables.command_numbers([5, 0, 1, 2, 9, 8]) == "0-2, 5, 8-9"
    assert xen_tables.answer(-38) == "always -ENOSYS"


def test_the_modules_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`(\w+\.(?:py|c))`", xen_tables.PAGE.read_text()))
    assert not {name for name in named if not (PLATFORM / name).exists()}
