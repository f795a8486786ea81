"""Guest code of a table may ask its own host functions, and put other code into slots until call sites are patched.

What must hold: a leaf gets its words and gives its result back; a slot that was assigned is what the kernel calls,
patched sites included; code that was not linked, and a change behind the patching, are refused by name.

Ref: paravirt/forms.py (leaf), ops.py (Ops.assign).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from paravirt.api import BackendError, GuestAddress, GuestObject, hookimpl, leaf
from paravirt.boot_sequence import boot
from paravirt.build.guestcode import assemble_step
from paravirt.build.toolchain import make
from paravirt.console import Console
from paravirt.hookspecs.tables import TABLES
from paravirt.options import BootOptions
from tests.mutants import backend_plugin

SOURCE = """
	.text
	.globl probe_setup, other_wbinvd, other_wbinvd_end
probe_setup:
	movl $11, %eax
	movl $22, %edx
	movl $33, %ecx
	call paravirt_leaf_sum
	call paravirt_leaf_told
	ret
other_wbinvd:
	wbinvd
other_wbinvd_end:
	ret
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> GuestObject:
    folder = tmp_path_factory.mktemp("leaves")
    (folder / "probe.S").write_text(SOURCE)
    make([assemble_step(folder / "probe.S", folder / "probe.o")])
    return GuestObject(folder / "probe.o")


def run(code: GuestObject, told: Callable[[Any, int], None], **ops: object) -> None:
    def total(self: Any, a: int, b: int, c: int) -> int:
        return a + b + c

    table = {"arch_setup": code.probe_setup, "sum": leaf(total), "told": leaf(told), **ops}
    plugin = backend_plugin(table)
    boot(None, BootOptions(backend="mutant", plugins=(plugin,), append="noselftest", timeout=60), Console())


def test_a_leaf_is_asked_and_a_slot_changes(code: GuestObject) -> None:
    seen: list[object] = []

    def told(self: Any, total: int) -> None:
        ops = self.guest.ops
        ops.assign("wbinvd", code.other_wbinvd)
        slot = ops.slots["wbinvd"]
        note = self.guest.kernel.note
        word = self.guest.machine.vcpu.read_u32(note.paravirt_ops + 4 * TABLES["paravirt_ops"].words.index("wbinvd"))
        seen.extend([total, slot.where, slot.kind, slot.inline, word == slot.address])

    run(code, told)
    assert seen == [66, "other_wbinvd probe.S", "guest code", b"\x0f\x09", True]


def test_code_of_the_guest_by_address(code: GuestObject) -> None:
    seen: list[object] = []

    def told(self: Any, total: int) -> None:
        native = self.guest.ops.slots["wbinvd"].address
        self.guest.ops.assign("wbinvd", GuestAddress(native, "what was there", clobbers=0))
        seen.append(self.guest.ops.slots["wbinvd"].where)

    run(code, told)
    assert len(seen) == 1 and str(seen[0]).startswith("what was there 0xc0")


def test_code_that_was_not_linked_is_refused(code: GuestObject) -> None:
    def told(self: Any, total: int) -> None:
        self.guest.ops.assign("wbinvd", code.missing)

    with pytest.raises(BackendError, match=r"op wbinvd: probe\.o has no symbol missing that was linked"):
        run(code, told)


def test_slots_are_final_once_call_sites_are_patched(code: GuestObject) -> None:
    @hookimpl
    def banner(self: Any) -> None:
        self.guest.ops.assign("wbinvd", code.other_wbinvd)

    with pytest.raises(BackendError, match="op wbinvd: its slot changes after call sites have been patched"):
        run(code, lambda self, total: None, banner=banner)
