"""Every hook is documented and tested: nothing is specified that no test asks for.

Ops are tested by breaking each (test_mutations.py), so what stands for a test there is an entry that can be
broken, or a reason; lifecycle hooks by name, in a test that implements or calls them.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from paravirt.hookspecs import lifecycle, op_infos
from tests.test_mutations import EXCUSED, mutations

TESTS = Path(__file__).parent
HOOKS = sorted(name for name in vars(lifecycle) if name.startswith("paravirt_"))
NO_OPS_ON_NATIVE = """arch_setup post_allocator_init pagetable_setup_start pagetable_setup_done activate_mm dup_mmap
exit_mmap setup_boot_clock setup_secondary_clock startup_ipi_hook flush_tlb_others alloc_pt alloc_pd alloc_pd_clone
release_pt release_pd pte_update pte_update_defer set_lazy_mode""".split()


@pytest.mark.parametrize("name", HOOKS)
def test_lifecycle_hooks_are_documented_and_tested(name: str) -> None:
    hook = getattr(lifecycle, name)
    doc = inspect.getdoc(hook) or ""
    assert len(doc) > 30
    for parameter in inspect.signature(hook).parameters:
        assert f":param {parameter}:" in doc
    others = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert any(name in path.read_text() for path in others), f"no test implements or calls {name}"


def test_every_op_is_tested_or_does_nothing_on_native() -> None:
    broken = {name for name, _ in mutations()}
    assert set(op_infos()) - broken == set(NO_OPS_ON_NATIVE)
    assert set(NO_OPS_ON_NATIVE) & broken == set()
    assert set(EXCUSED) <= set(op_infos())
