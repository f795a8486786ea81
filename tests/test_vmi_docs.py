"""docs/vmi.md is true: its table is the monitor's literal one, and the files that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from paravirt_vmi.platform.calls import CALLS
from paravirt_vmi.platform.layout import DEFAULT_BASE
from tools import vmi_tables

PACKAGE = Path(__file__).resolve().parent.parent / "backends" / "vmi" / "paravirt_vmi"


def test_the_table_is_that_of_the_source() -> None:
    page = vmi_tables.PAGE.read_text()
    assert page == vmi_tables.with_table(page), "run python tools/vmi_tables.py"


def test_every_call_is_there() -> None:
    rows = re.findall(r"^\| (\d+) \| (\w+) \|", vmi_tables.PAGE.read_text(), re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(call.number, call.name) for call in CALLS]


def test_the_files_that_the_page_names_exist() -> None:
    page = vmi_tables.PAGE.read_text()
    named = set(re.findall(r"`((?:platform/)?\w+\.(?:py|c|S))`", page))
    assert named and not {name for name in named if not (PACKAGE / name).exists()}
    assert hex(DEFAULT_BASE).replace("d", "D") in page
    for call in (call for call in CALLS if call.needed):
        assert call.name in page.partition("whose instruction does not trap")[2].partition("\n\n")[0]
