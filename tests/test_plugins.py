"""Plugins are found, refused with a reason, chosen by their probes, and asked in their hooks.

One fresh manager a machine: nothing that one boot registers is there in the next.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pluggy
import pytest
import typer
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from paravirt.api import Answer, Backend, BackendOptions, Guest, KernelInfo, Outcome, PluginError, Verdict, hookimpl
from paravirt.boot_sequence import REFERENCE_KERNEL, boot
from paravirt.config import BackendRow, Config
from paravirt.console import Console
from paravirt.errors import ConfigError
from paravirt.image import load_image
from paravirt.options import BootOptions
from paravirt.plugins import Plugins, load_plugins
from tests.commandline import Here


def offering(name: str, answer: object = Answer.YES, options: type[BaseModel] = BackendOptions) -> SimpleNamespace:
    """A plugin with one backend whose probe answers as told."""
    class Offered(Backend):
        Options: ClassVar[type[BaseModel]] = options

        @hookimpl
        def paravirt_probe(self, kernel: KernelInfo) -> Verdict:
            if isinstance(answer, Exception):
                raise answer
            return Verdict(answer, "told to") if isinstance(answer, Answer) else answer  # type: ignore[return-value]

    Offered.name = name

    @hookimpl
    def paravirt_backends() -> Iterable[type[Backend]]:
        return (Offered,)

    return SimpleNamespace(__name__=name, paravirt_backends=paravirt_backends)


@pytest.fixture(scope="module")
def kernel() -> KernelInfo:
    return KernelInfo.of(load_image(REFERENCE_KERNEL))


def loaded(*plugins: object, **rows: Any) -> Plugins:
    off = tuple(BackendRow(name=name, enabled=False) for name in ("native", "xen", "vmi"))
    return load_plugins(Config(backend=off, **rows), plugins)


def test_auto_takes_the_only_one(kernel: KernelInfo) -> None:
    backend, verdicts = loaded(offering("a"), offering("b", Answer.ONLY), offering("c")).select("auto", kernel)
    assert backend.name == "b"
    assert [(name, verdict.answer) for name, verdict in verdicts] == [
        ("a", Answer.YES), ("b", Answer.ONLY), ("c", Answer.YES)]


def test_auto_takes_the_first_yes(kernel: KernelInfo) -> None:
    assert loaded(offering("no", Answer.NO), offering("x"), offering("y")).select("auto", kernel)[0].name == "x"


def test_two_only_ones_are_named(kernel: KernelInfo) -> None:
    with pytest.raises(PluginError, match="backends a and b both say"):
        loaded(offering("a", Answer.ONLY), offering("b", Answer.ONLY)).select("auto", kernel)


def test_all_reasons_when_nobody_accepts(kernel: KernelInfo) -> None:
    with pytest.raises(PluginError, match=r"no backend accepts this kernel \(a: told to; b: its probe raised "
                                          r"ZeroDivisionError: oops; c: its probe answered 'maybe'\)"):
        loaded(offering("a", Answer.NO), offering("b", ZeroDivisionError("oops")), offering("c", "maybe")).select(
            "auto", kernel)


def test_the_default_of_the_file(kernel: KernelInfo) -> None:
    plugins = loaded(offering("a"), offering("b"), default="b")
    assert plugins.select("auto", kernel)[0].name == "b"
    assert plugins.select("a", kernel)[0].name == "a"


def test_a_second_backend_of_one_name_is_a_row(kernel: KernelInfo) -> None:
    second = offering("a")
    second.__name__ = "elsewhere"
    plugins = loaded(offering("a"), second)
    assert [row.problem for row in plugins.rows] == ["", "backend 'a' is offered by an earlier plugin already"]


@pytest.mark.parametrize(("text", "problem"), [
    ("raise ValueError('no')", "ValueError: no"), ("import sys; sys.exit(3)", "SystemExit: 3"), ("x =", "SyntaxError"),
    ("def paravirt_backends(): return (int,)", "which is not a subclass of Backend"),
    ("from paravirt.api import Backend\ndef paravirt_backends(): return (Backend,)", "backend Backend has no name"),
    ("from paravirt.api import hookimpl\n@hookimpl\ndef clts(self, speed): pass", "speed"),
])
def test_what_cannot_be_loaded_is_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str,
                                        problem: str) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    name = f"bad_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    plugins = load_plugins(Config(backend=(BackendRow(name="bad", plugin=name),)))
    assert problem in next(row for row in plugins.rows if row.name == "bad").problem
    assert "native" in plugins.backends
    with pytest.raises(PluginError, match="backend 'bad'"):
        plugins.select("bad", KernelInfo.of(load_image(REFERENCE_KERNEL)))


def test_a_module_that_is_not_there_gets_a_close_match() -> None:
    plugins = load_plugins(Config(backend=(BackendRow(name="x", plugin="natve"),)))
    assert "no module 'natve'; did you mean 'native'?" in next(row for row in plugins.rows if row.name == "x").problem


class Tuned(BackendOptions):
    """Options of a test backend."""

    batch: int = Field(8, ge=1, description="calls in a batch")
    fast: bool = Field(False, description="skip checks")


def test_options_are_converted_and_checked() -> None:
    plugins = loaded(offering("a", options=Tuned))
    backend = plugins.backends["a"]
    assert plugins.options(backend, {"batch": "32", "fast": "true"}) == Tuned(batch=32, fast=True)
    with pytest.raises(ConfigError, match=r"options of backend 'a': batch: input should be greater than or equal to 1; "
                                          r"fsat: unknown; did you mean 'fast'\?"):
        plugins.options(backend, {"batch": "0", "fsat": "1"})


def test_the_file_s_options_are_overridden() -> None:
    rows = (*(BackendRow(name=name, enabled=False) for name in ("native", "xen", "vmi")),
            BackendRow(name="a", plugin="paravirt.errors", options={"batch": 4, "fast": True}))
    plugins = load_plugins(Config(backend=rows), [offering("a", options=Tuned)])
    assert plugins.options(plugins.backends["a"], {"batch": "5"}) == Tuned(batch=5, fast=True)


def test_the_reserved_option() -> None:
    class Greedy(BackendOptions):
        assign: str = ""

    plugins = loaded(offering("a", options=Greedy))
    with pytest.raises(PluginError, match="define 'assign'"):
        plugins.options(plugins.backends["a"], {})


def test_paravirt_options_is_the_hook_behind_it() -> None:
    assert loaded(offering("a", options=Tuned)).backends["a"].paravirt_options() is Tuned


def test_paravirt_exit_tells_observers_the_outcome() -> None:
    seen: list[tuple[str, int]] = []

    class Watcher:
        @hookimpl
        def paravirt_exit(self, guest: Guest, outcome: Outcome) -> None:
            seen.append((outcome.end.word, guest.machine.engine.instructions()))

    record = boot(None, BootOptions(plugins=(Watcher(),), append="noselftest"), Console())
    assert seen == [("poweroff", record.instructions)]


def test_paravirt_hookspecs_adds_hooks_for_others() -> None:
    further = ModuleType("further")

    def acme_weather(place: str) -> str:
        """What the weather is like."""
        return ""

    further.acme_weather = pluggy.HookspecMarker("paravirt")(acme_weather)  # type: ignore[attr-defined]
    specs = SimpleNamespace(__name__="specs", paravirt_hookspecs=hookimpl(lambda: (further,)))

    class Forecast:
        @hookimpl
        def acme_weather(self, place: str) -> str:
            return f"sunny in {place}"

    plugins = loaded(specs, Forecast())
    assert plugins.manager.hook.acme_weather(place="Cambridge") == ["sunny in Cambridge"]
    assert not hasattr(loaded().manager.hook, "acme_weather"), "a fresh manager each time"


def test_paravirt_commands_adds_commands() -> None:
    class Commands:
        @hookimpl
        def paravirt_commands(self, app: typer.Typer) -> None:
            @app.command("acme")
            def acme() -> None:
                """Say hello."""
                print("hello from acme")

            @app.callback()
            def nothing() -> None: ...

    app = typer.Typer()
    loaded(Commands()).manager.hook.paravirt_commands(app=app)
    assert CliRunner().invoke(app, ["acme"]).stdout == "hello from acme\n"


def test_the_command_line_asks_for_commands(tmp_path: Path) -> None:
    import subprocess

    (tmp_path / "rom.py").write_text(
        "from paravirt.api import hookimpl\n@hookimpl\ndef paravirt_commands(app):\n    @app.command('rom')\n"
        "    def rom(): print('a ROM')\n")
    (tmp_path / "plugins.toml").write_text('plugin = ["rom"]\n')
    done = subprocess.run([sys.executable, "-m", "paravirt.cli", "rom"], cwd=tmp_path, text=True, capture_output=True,
                          env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path])}, timeout=60)
    assert (done.returncode, done.stdout) == (0, "a ROM\n"), done.stderr


def test_a_plugin_knows_a_file_that_is_no_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "knows_cards.py").write_text(
        "from paravirt.api import ImageError, hookimpl\n\n\n@hookimpl\ndef paravirt_inspect(data, path):\n"
        "    if data[:4] != b'card':\n        return None\n    if len(data) < 8:\n"
        "        raise ImageError(f'{path}: half a card')\n    return [('suit', data[4:].decode())]\n")
    (tmp_path / "plugins.toml").write_text('plugin = ["knows_cards"]\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    here = Here(monkeypatch, capfd)
    for text, status, words in [("cardhearts", 0, "hearts"), ("card", 2, "card.bin: half a card"),
                                ("cord", 2, "card.bin")]:
        (tmp_path / "card.bin").write_text(text)
        done, out, said = here("inspect", "card.bin")
        assert (done, words in out + said) == (status, True), (out, said)


@pytest.mark.parametrize("name", ["native", "xen", "vmi"])
def test_defaults_that_need_no_model_are_the_models(name: str) -> None:
    """A backend that gives its defaults by itself gives those of its model."""
    backend = load_plugins(Config()).backends[name]
    fields = backend.paravirt_options()().model_dump()
    assert backend.defaults is None or dict(backend.defaults) == fields
    assert vars(load_plugins(Config()).options(backend, {})) == fields


def test_a_derived_backend_has_its_own_options() -> None:
    """What it inherits are not its defaults."""
    class Model(BackendOptions):
        more: int = 7

    base = type(load_plugins(Config()).backends["vmi"])
    derived = type("Derived", (base,), {"name": "derived", "paravirt_options": hookimpl(lambda self: Model)})()
    options = load_plugins(Config()).options(derived, {})
    assert isinstance(options, Model) and options.more == 7
