"""`paging.mappings` says of ranges what `paging.lookup` says of each page; it only reads whole tables at once.

`lookup` is what is checked against the CPU (test_paging.py); the end state is made with `mappings`.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paravirt.machine.paging import CR0_PG, CR4_PAE, CR4_PSE, LARGE, NX, Mapping, Tables, lookup, mappings
from paravirt.machine.ram import Ram

PAGES = 16
entries = st.builds(
    lambda frame, flags, large, nx: frame << 12 | flags | (LARGE if large else 0) | (NX if nx else 0),
    st.integers(0, PAGES + 2), st.integers(0, 7), st.booleans(), st.booleans())


def page_by_page(ram: Ram, tables: Tables, start: int, end: int) -> list[Mapping]:
    runs: list[Mapping] = []
    va = start
    while va < end:
        leaf, stop = lookup(ram, tables, va), min(end, (va | 4095) + 1)
        if leaf is not None:
            rights = (leaf.writable, leaf.user, leaf.executable)
            if runs and runs[-1].end == va and runs[-1][2:] == rights:
                runs[-1] = runs[-1]._replace(end=stop)
            else:
                runs.append(Mapping(va, stop, *rights))
        va = stop
    return runs


@pytest.mark.parametrize("pae", [True, False])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_ranges_are_the_sum_of_their_pages(pae: bool, data: st.DataObject) -> None:
    ram = Ram(PAGES * 4096)
    width = 8 if pae else 4
    for page in range(PAGES):
        for slot in data.draw(st.lists(st.integers(0, 15), max_size=6)):
            value = data.draw(entries) & (1 << 8 * width) - 1
            ram.write(page * 4096 + width * slot, value.to_bytes(width, "little"))
    tables = Tables(CR0_PG, 0x1000, CR4_PSE | (CR4_PAE if pae else 0))
    start = data.draw(st.integers(0, 1 << 23))
    end = start + data.draw(st.integers(0, 1 << 22))
    assert mappings(ram, tables, start, end) == page_by_page(ram, tables, start, end)
    ram.close()


def test_without_paging_everything_is_mapped() -> None:
    ram = Ram(4096)
    assert mappings(ram, Tables(0, 0, 0), 0x1234, 0x5678) == [Mapping(0x1234, 0x5678, True, True, True)]
