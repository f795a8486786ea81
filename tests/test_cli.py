"""The command line: its messages, its listings, its plugins.

What must hold: a user's mistake is one line on stderr that names the option, file, field or plugin, with status 2 and
never a traceback. A plugin that cannot be loaded is a row of the listing, and fatal only if it is wanted. What a
kernel says of itself never reaches the terminal raw.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paravirt.boot_sequence import REFERENCE_KERNEL
from tests.commandline import HALT, ROOT, Here, command, environment
from tests.elfmaker import Load, Sym, make_elf
from tests.kernels import BASE, kernel, raw_kernel

PLUGINS = ROOT / "plugins.toml"
VMLINUZ = ROOT / "guests" / "vmlinuz"
COMMANDS = ("boot", "inspect", "plugins", "ops")
needs_kernel = pytest.mark.skipif(not REFERENCE_KERNEL.exists(), reason="no reference kernel; build it: make build")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Here:
    return Here(monkeypatch, capfd)


@pytest.fixture
def halting(tmp_path: Path) -> Path:
    return raw_kernel(tmp_path / "halting", HALT)


# ------------------------------------------------------------------ help and mistakes


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help(name: str, here: Here) -> None:
    status, out, err = here(*filter(None, [name, "--help"]))
    assert (status, err) == (0, "")
    assert out.startswith(f"Usage: paravirt {name}".rstrip())
    if name == "boot":
        text = " ".join(out.split())
        assert "70 crash or idle for ever; 124 timeout or instruction limit; 129/130/143 interrupted; 141" in text
    if not name:
        for each in COMMANDS:
            assert f"  {each} " in out


def test_without_a_command_the_help_is_shown(here: Here) -> None:
    status, out, err = here()
    assert (status, out) == (2, "")
    assert err.startswith("Usage: paravirt [OPTIONS] COMMAND")


MISTAKES = (
    # command line, what the one line must hold
    ("boto", "boto|boot"),
    ("boot --memroy 64M", "--memroy|--memory"),
    ("boot --timeout", "--timeout"),
    ("boot -o", "-o"),
    ("boot a b", "b"),
    ("boot --memory 12x", "--memory 12x|128M"),
    ("boot --memory -5M", "--memory -5M"),
    ("boot --memory 1M", "--memory 1M|2M|3G"),
    ("boot --memory 4G", "--memory 4G|3G"),
    ("boot --memory 2097153", "--memory 2097153|pages"),
    ("boot --backend natvie {kernel}", "'natvie'|did you mean 'native'?"),
    ("boot --engine portble", "--engine|'portble'|did you mean 'portable'?"),
    ("boot --no-accel clok", "--no-accel|'clok'|did you mean 'clock'?"),
    ("boot -o =1", "-o =1|KEY=VALUE"),
    ("boot -o fast=1 --backend native {kernel}", "'native'|fast|unknown"),
    ("boot --vcpus 2", "--vcpus 2|one virtual CPU"),
    ("boot --vcpus two", "--vcpus|integer"),
    ("boot --rtc tomorrow", "--rtc|'tomorrow'|'now'"),
    ("boot --timeout 0", "--timeout 0|positive"),
    ("boot --timeout nan", "--timeout nan"),
    ("boot --timeout inf", "--timeout inf"),
    ("boot --idle-limit -1", "--idle-limit -1"),
    ("boot --idle-limit nan", "--idle-limit nan"),
    ("boot --max-instructions -1", "--max-instructions -1|positive"),
    ("boot --until-output [a", "--until-output|'[a'"),
    ("boot {tmp}/missing", "{tmp}/missing|No such file"),
    ("boot {tmp}", "{tmp}|directory"),
    ("boot {tmp}/empty", "{tmp}/empty|empty"),
    ("boot {tmp}/text", "{tmp}/text"),
    ("boot /dev/null", "/dev/null|regular"),
    ("boot --initrd {tmp}/missing {kernel}", "{tmp}/missing|initrd|No such file"),
    ("boot --json {tmp}/missing/record {kernel}", "--json|{tmp}/missing/record|No such file"),
    ("boot --json {tmp} {kernel}", "--json|{tmp}|directory"),
    ("boot --console {tmp}/missing/out {kernel}", "--console|{tmp}/missing/out|No such file"),
    ("boot --plugins {tmp}/missing.toml", "{tmp}/missing.toml|No such file"),
    ("boot --backend xen {kernel}", "'xen'|{kernel}|cannot run it"),
    ("inspect", "kernel"),
    ("inspect {tmp}/missing", "{tmp}/missing|No such file"),
    ("ops --kernel {kernel}", "{kernel}|Paravirt"),
    ("plugins --plugins {tmp}/text", "{tmp}/text|line 1"),
)


@pytest.mark.parametrize(("line", "parts"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_mistakes(line: str, parts: str, tmp_path: Path, halting: Path, here: Here) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no kernel\n")
    names = {"tmp": str(tmp_path), "kernel": str(halting)}
    status, out, text = here(*line.format(**names).split())
    assert (status, out) == (2, ""), text
    assert text.startswith("paravirt: ") and text.count("\n") == 1 and text.endswith("\n")
    for part in parts.format(**names).split("|"):
        assert part in text


def test_debug_shows_where_a_mistake_was_found(tmp_path: Path) -> None:
    result = subprocess.run(command("boot", tmp_path, "--debug"), capture_output=True, env=environment(), check=False)
    assert result.returncode != 0 and b"Traceback" in result.stderr


# ------------------------------------------------------------------ plugins


def plugins_file(folder: Path, text: str, **modules: str) -> Path:
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    path = folder / "some.toml"
    path.write_text(text)
    return path


NATIVE = '[[backend]]\nname = "native"\nplugin = "paravirt_native.plugin"\n'
BAD_FILES = (
    ("[[backend]\n", "line 1"),
    ("\xff", "some.toml"),
    (NATIVE + 'plugn = "x"\n', "backend.0.plugn: unknown; did you mean 'plugin'?"),
    (NATIVE + "enabled = 7\n", "backend.0.enabled: "),
    (NATIVE + "options = 3\n", "backend.0.options: "),
    ("[[backend]]\nplugin = 'x'\n", "backend.0.name: "),
    ("[[backend]]\nname = ''\n", "backend.0.name: "),
    ("backend = 3\n", "backend: "),
    ("defualt = 'native'\n" + NATIVE, "defualt: unknown; did you mean 'default'?"),
    ("default = 'natvie'\n" + NATIVE, "default: no backend 'natvie'; did you mean 'native'?"),
    (NATIVE + NATIVE, "backend 'native' has more than one row"),
)


@pytest.mark.parametrize(("text", "message"), BAD_FILES, ids=[message for _, message in BAD_FILES])
def test_bad_plugins_file(text: str, message: str, tmp_path: Path, here: Here) -> None:
    path = tmp_path / "some.toml"
    path.write_bytes(text.encode("latin-1"))
    status, out, said = here("plugins", "--plugins", path)
    assert (status, out) == (2, "")
    assert said.startswith(f"paravirt: {path}: ") and message in said and said.count("\n") == 1


BROKEN = {  # plugin module, and what the listing says of it
    "": "no module 'broken'",
    "raise RuntimeError('not today')": "RuntimeError: not today",
    "raise SystemExit(3)": "SystemExit: 3",
    "import no_such_thing": "ModuleNotFoundError: No module named 'no_such_thing'",
    "def (": "SyntaxError: ",
    "def paravirt_backends():\n    return [3]\n": "TypeError: paravirt_backends offers 3",
}


@pytest.mark.parametrize(("source", "reason"), BROKEN.items(), ids=BROKEN.values())
def test_broken_plugin(source: str, reason: str, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of the listing; no matter to other backends; fatal for its own, by name, module and reason."""
    text = NATIVE + '[[backend]]\nname = "mine"\nplugin = "broken"\n'
    if source.startswith("def paravirt_backends"):
        source = f"import pluggy\n@pluggy.HookimplMarker('paravirt')\n{source}"
    path = plugins_file(tmp_path, text, **({"broken": source} if source else {}))
    halting = raw_kernel(tmp_path / "halting", HALT)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    status, out, _ = here("plugins", "--plugins", path)
    rows = [line for line in out.splitlines() if line.startswith("mine ")]
    assert (status, len(rows)) == (0, 1) and reason in rows[0]
    status, _, _ = here("boot", halting, "--plugins", path, "--memory", "4M", "-q")
    assert status == 0
    status, out, said = here("boot", halting, "--plugins", path, "--backend", "mine")
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert "'mine' (broken)" in said and reason in said
    monkeypatch.delitem(sys.modules, "broken", raising=False)


def test_disabled_backend(tmp_path: Path, halting: Path, here: Here) -> None:
    path = plugins_file(tmp_path, NATIVE + "enabled = false\n")
    status, _, said = here("boot", halting, "--plugins", path, "--backend", "native")
    assert status == 2 and "no backend 'native'" in said


def test_options_in_the_file_are_checked(tmp_path: Path, halting: Path, here: Here) -> None:
    path = plugins_file(tmp_path, NATIVE + "options = { fast = true }\n")
    status, _, said = here("boot", halting, "--plugins", path, "--backend", "native")
    assert status == 2 and "options of backend 'native': fast: unknown" in said


# ------------------------------------------------------------------ listings


def test_plugins(here: Here) -> None:
    status, out, err = here("plugins", "--plugins", PLUGINS)
    rows = [line.split() for line in out.splitlines() if line]
    assert (status, err) == (0, f"(from {PLUGINS})\n")
    assert rows[0] == ["plugin", "source", "backends", "state"]
    assert rows[1] == ["native", "paravirt_native.plugin", "native", "loaded"]
    assert [row[0] for row in rows[1:4]] == ["native", "xen", "vmi"]


def test_inspect_elf(here: Here) -> None:
    status, out, _ = here("inspect", kernel("ends", "halt"))
    assert status == 0
    facts = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert facts["kind"] == ["ELF,", "i386"]
    assert facts["entry"][1:] == ["halt"]
    assert facts["native"][0] == "yes"


def test_what_a_kernel_says_is_escaped(tmp_path: Path, here: Here) -> None:
    path = tmp_path / "evil"
    path.write_bytes(make_elf([Load(BASE, HALT, BASE)], symbols=[Sym("\x1b[31m[bold]x", BASE, 2)]))
    for line in (["inspect", path], ["boot", path, "--memory", "4M"]):
        status, out, err = here(*line)
        assert status == 0
        assert "\x1b" not in out + err
        assert "[bold]x" in out + err


@pytest.mark.skipif(not VMLINUZ.exists(), reason="no guests/vmlinuz; fetch it: make guests")
def test_inspect_bzimage(here: Here) -> None:
    _, out, _ = here("inspect", VMLINUZ)
    assert "bzImage" in out and "boot protocol" in out
    assert any(line.split()[:2] == ["native", "yes"] for line in out.splitlines())


@needs_kernel
def test_ops(here: Here) -> None:
    status, out, _ = here("ops", "--backend", "native")
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0
    assert rows["op"].startswith("op ") and "native: kind" in rows["op"]
    assert "guest code" in rows["clts"] and rows["clts"].rstrip().endswith("0f 06")  # CLTS
    assert rows["cpuid"].rstrip().endswith("direct call")
    assert len(rows) > 90
    status, out, err = here("ops", "--backend", "natvie")
    assert (status, out, err) == (2, "", "paravirt: no backend 'natvie'; did you mean 'native'?\n")
