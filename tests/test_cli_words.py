"""A plain ``paravirt boot`` is read without typer: the same request comes of it, or none at all.

What must hold: with nothing given both agree on every default; each option that is read without typer means what it
means to typer; words that are not plain are left to typer; and no plain command line imports typer or pydantic.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paravirt.cli_boot
from paravirt import commands
from paravirt.cli_boot import Request
from paravirt.cli_words import FLAGS, REPEATED, VALUES, boot_request
from tests.kernels import kernel

WORDS = st.one_of(
    st.sampled_from([*VALUES, *REPEATED, *FLAGS, "--help", "--", "-oq", "--no-such", "k", "a=b", "-1", "", "--append=",
                     "--timeout=3", "--memory=64M", "--debug=1", "--realtime=no"]),
    st.sampled_from(["7", "0", "1.5", "1e3", "x", "vmlinux", "128M", "auto", "nan", "5_0", " 7"]))


def by_typer(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Request | None:
    """What typer makes of `words`; None if it refuses them."""
    found: list[Request] = []

    def keep(request: Request) -> int:
        found.append(request)
        return 0

    monkeypatch.setattr(paravirt.cli_boot, "boot_command", keep)
    try:
        commands.app(words, standalone_mode=False)
    except Exception as error:
        assert hasattr(error, "format_message"), error
    return found[0] if found else None


@given(words=st.lists(WORDS, max_size=6))
@settings(max_examples=300, deadline=None)
def test_the_same_or_none(words: list[str]) -> None:
    request = boot_request(["boot", *words])
    if request is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        assert by_typer(["boot", *words], patch) == request


@pytest.mark.parametrize("option", [*VALUES, *REPEATED, *FLAGS])
def test_each_option(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["boot", "kernel", option] + ([] if option in FLAGS else ["7"])
    request = boot_request(words)
    assert request is not None
    assert request == by_typer(words, monkeypatch)
    assert request != Request(kernel=Path("kernel")) or option == "--debug"


def test_all_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert boot_request(["boot"]) == by_typer(["boot"], monkeypatch) == Request()


@pytest.mark.parametrize("words", [
    [], ["plugins"], ["boot", "--help"], ["boot", "a", "b"], ["boot", "--append"], ["boot", "--append", "-x"],
    ["boot", "--vcpus", "two"], ["boot", "--timeout", "1e3"], ["boot", "--quiet=1"],
    ["boot", "--json", "a", "--json", "b"],
    ["boot", "--backend=xen", "--backend=vmi"], ["boot", "--"], ["boot", "--appendix", "x"]])
def test_left_to_typer(words: list[str]) -> None:
    assert boot_request(words) is None


def test_what_a_plain_boot_imports() -> None:
    """Each of these takes a tenth of a second or more; the whole start-up of a run takes two."""
    script = """
import sys
from paravirt.cli import main
try:
    main()
except SystemExit:
    pass
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"typer", "pydantic", "elftools", "rich"}), end="|")
"""
    run: Any = subprocess.run(
        [sys.executable, "-c", script, "boot", str(kernel("ends", "halt")), "--backend", "native", "-q"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert run.stdout == "|", run.stdout + run.stderr
