"""A backend's mistakes are one clear message each, naming all that is wrong and where; exit status 2.

What can be found before the guest starts is found then. What cannot (an exception inside an op) ends the run,
and the record is still made.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paravirt.backend import Answer, Verdict
from paravirt.boot_sequence import boot
from paravirt.build.guestcode import assemble
from paravirt.console import Console
from paravirt.errors import BackendError, ParavirtError, PluginError
from paravirt.forms import NULL, GuestObject, hookimpl, kernel_function, machine_code
from paravirt.guest import Guest, KernelInfo
from paravirt.options import BootOptions
from paravirt.record import Record
from paravirt_native.plugin import Native
from tests.mutants import backend_plugin

ROOT = Path(__file__).resolve().parent.parent


def refused(*plugins: object, **ops: object) -> str:
    """The message of a boot that must fail before the guest runs an instruction."""
    records: list[Record] = []
    plugin = backend_plugin(ops)
    with pytest.raises(PluginError) as caught:
        boot(None, BootOptions(backend="mutant", plugins=(plugin, *plugins)), Console(),
             on_end=lambda guest, record: records.append(record))
    assert [record.instructions for record in records] == [0]
    assert records[0].outcome.kind == "error" and records[0].exit_code == 2
    return str(caught.value)


def test_missing_ops_are_named_together() -> None:
    message = refused(clts=None, set_pte=None, iret=None)
    assert "backend 'mutant'" in message
    for name in ("clts", "set_pte", "iret"):
        assert f"{name}: no implementation" in message


def test_a_doubled_op_names_both_places() -> None:
    class Second:
        @hookimpl
        def wbinvd(self) -> None: ...

    message = refused(Second())
    assert "wbinvd: 2 implementations" in message
    assert "native_wbinvd native.S" in message
    assert f"Second.wbinvd {Path(__file__).name}:" in message


def test_a_wrong_signature_says_what_the_op_passes() -> None:
    @hookimpl
    def write_cr3(self: Any, value: int, flush: bool) -> None: ...

    message = refused(write_cr3=write_cr3)
    assert "write_cr3: takes flush, but the op passes value" in message
    assert f"{Path(__file__).name}:" in message


def test_an_unknown_op_gets_a_close_match() -> None:
    message = refused(irq_disabel=machine_code("fa"))
    assert "irq_disabel: not an op; did you mean 'irq_disable'?" in message


def test_a_function_without_the_mark() -> None:
    def wbinvd(self: Any) -> None: ...

    assert "wbinvd: the function lacks @hookimpl" in refused(wbinvd=wbinvd)


def test_null_only_where_the_abi_allows_it() -> None:
    message = refused(clts=NULL, post_allocator_init=NULL)
    assert "clts: may not be NULL" in message
    assert "post_allocator_init" not in message


def test_data_words_are_checked() -> None:
    message = refused(kernel_rpl=4, name="two\nlines")
    assert "kernel_rpl: 4 is not a ring" in message and "name:" in message


def test_a_function_the_kernel_lacks() -> None:
    assert "init_IRQ: the kernel has no function xen_init_IRQ" in refused(init_IRQ=kernel_function("xen_init_IRQ"))


def test_a_jumped_op_cannot_be_wrapped() -> None:
    class Observer:
        @hookimpl(wrapper=True)
        def iret(self):  # type: ignore[no-untyped-def]
            return (yield)

    message = refused(Observer())
    assert "iret: is jumped to and cannot be wrapped" in message and Path(__file__).name in message


def test_guest_code_larger_than_its_pages(tmp_path: Path) -> None:
    source = tmp_path / "big.S"
    source.write_text("\t.text\n\t.globl big_clts\nbig_clts:\n\t.fill 40000, 1, 0x90\n\tret\n")
    assemble(source, tmp_path / "big.o")
    message = refused(clts=GuestObject(tmp_path / "big.o").big_clts)
    assert "bytes of code, and the kernel has 32768" in message


def test_guest_code_with_a_missing_symbol(tmp_path: Path) -> None:
    source = tmp_path / "ops.S"
    source.write_text("\t.text\n\t.globl mine\nmine:\n\tcall nobody_has_this\n\tret\n")
    assemble(source, tmp_path / "ops.o")
    code = GuestObject(tmp_path / "ops.o")
    assert "symbol nobody_has_this is neither in the object nor in the kernel" in refused(clts=code.mine)
    source.write_text("\t.text\n\t.globl mine\nmine:\n\tret\n")
    assemble(source, tmp_path / "ops.o")
    assert "clts: ops.o has no symbol other" in refused(clts=code.other)
    assert "build the package first" in refused(clts=GuestObject(tmp_path / "absent.o").mine)


def failing(self: Any) -> int:
    raise ZeroDivisionError("the backend's own")


def test_an_exception_inside_an_op_that_the_guest_calls() -> None:
    records: list[Record] = []
    plugin = backend_plugin({"read_cr2": hookimpl(failing)})
    with pytest.raises(BackendError) as caught:
        boot(None, BootOptions(backend="mutant", plugins=(plugin,)), Console(),
             on_end=lambda guest, record: records.append(record))
    message = str(caught.value)
    assert "op read_cr2" in message and f"{Path(__file__).name}:" in message
    assert "ZeroDivisionError: the backend's own" in message
    assert "backend 'mutant'" in message
    assert "called from 0x" in message and "+0x" in message, "the caller's address and symbol"
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert records[0].outcome.kind == "error" and records[0].instructions > 0 and records[0].steps


def test_an_exception_inside_an_op_that_start_kernel_calls() -> None:
    plugin = backend_plugin({"arch_setup": hookimpl(failing)})
    with pytest.raises(BackendError, match=r"op arch_setup .*called from start_kernel: ZeroDivisionError"):
        boot(None, BootOptions(backend="mutant", plugins=(plugin,)), Console())


def test_a_result_that_is_no_number() -> None:
    @hookimpl
    def read_cr2(self: Any) -> int:
        return "cr2"  # type: ignore[return-value]

    plugin = backend_plugin({"read_cr2": read_cr2})
    with pytest.raises(BackendError, match="returned 'cr2', not an integer"):
        boot(None, BootOptions(backend="mutant", plugins=(plugin,)), Console())


@pytest.mark.parametrize("hook", ["paravirt_devices", "paravirt_build_guest", "paravirt_machine_ready"])
def test_an_exception_inside_a_lifecycle_hook(hook: str) -> None:
    def broken(guest: Guest) -> None:
        raise OSError("no such luck")

    plugin = SimpleNamespace(__name__="broken", **{hook: hookimpl(broken)})
    with pytest.raises(BackendError, match=f"{hook} raised OSError: no such luck"):
        boot(None, BootOptions(backend="native", plugins=(plugin,)), Console())


def test_an_unknown_backend_gets_a_close_match() -> None:
    with pytest.raises(ParavirtError, match="no backend 'natvie'; did you mean 'native'"):
        boot(None, BootOptions(backend="natvie"), Console())


def test_a_backend_that_says_no() -> None:
    class Refusing(Native):
        name = "refusing"

        @hookimpl
        def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
            return Verdict(Answer.NO, "not today")

    plugin = SimpleNamespace(__name__="refusing", paravirt_backends=hookimpl(lambda: (Refusing,)))
    with pytest.raises(PluginError, match="backend 'refusing' cannot run it: not today"):
        boot(None, BootOptions(backend="refusing", plugins=(plugin,)), Console())


def test_a_broken_plugin_is_fatal_only_when_selected(tmp_path: Path) -> None:
    (tmp_path / "crooked.py").write_text("raise RuntimeError('on import')\n")
    config = tmp_path / "plugins.toml"
    config.write_text('[[backend]]\nname = "crooked"\nplugin = "crooked"\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "paravirt.cli", *words, "--plugins", str(config)], text=True,
                              env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)

    listing = command("plugins")
    assert listing.returncode == 0 and "RuntimeError: on import" in listing.stdout
    selected = command("boot", "--backend", "crooked", "-q")
    assert selected.returncode == 2
    assert selected.stderr == "paravirt: backend 'crooked' (crooked): RuntimeError: on import\n"


def test_the_command_line_prints_one_message(tmp_path: Path) -> None:
    (tmp_path / "halfway.py").write_text(
        "from paravirt_native.plugin import Native\nfrom paravirt_native.table import NativeOps\n"
        "from paravirt.api import hookimpl\n"
        "class Ops(NativeOps):\n    @hookimpl\n    def read_cr2(self): raise KeyError('cr2')\n"
        "class Halfway(Native):\n    name = 'halfway'\n    @hookimpl\n"
        "    def paravirt_install_ops(self, guest): return Ops(guest)\n"
        "@hookimpl\ndef paravirt_backends(): return (Halfway,)\n")
    config = tmp_path / "plugins.toml"
    config.write_text('[[backend]]\nname = "halfway"\nplugin = "halfway"\n')
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT), *sys.path])}
    record = tmp_path / "record.json"
    done = subprocess.run(
        [sys.executable, "-m", "paravirt.cli", "boot", "-q", "--plugins", str(config), "--backend", "halfway",
         "--console", "none", "--json", str(record)],
        text=True, env=environment, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    assert done.stderr.startswith(
        "paravirt: backend 'halfway': op read_cr2 (halfway.Ops.read_cr2 halfway.py:5) called from 0x")
    assert json.loads(record.read_text())["outcome"]["kind"] == "error"
