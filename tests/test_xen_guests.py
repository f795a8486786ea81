"""Kernels that nobody here wrote run as Xen domains: GRUB to its prompt, Linux to its user space, Mini-OS its tests.

What must hold: the images are used as they are; what is typed is obeyed; they end by themselves with exit status 0;
two runs are equal, and both engines give the same console (times apart).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from paravirt.boot_sequence import boot
from paravirt.config import config_path, load_config
from paravirt.console import Console
from paravirt.guest import KernelInfo
from paravirt.image import load_image
from paravirt.options import BootOptions
from paravirt.plugins import load_plugins
from paravirt.record import Record
from tests.realguests import guest_file

GRUB = "grub-i386-xen.bin"
TYPED = b"set a=hel\necho ${a}lo\nls\nhalt\n"
COMMAND_LINE = "console=hvc0 earlyprintk=xen gexit=poweroff gtest=none"
ENGINES = ["auto", "portable"]


def run(kernel: Path, engine: str = "auto", typed: bytes = b"", **options: Any) -> tuple[Record, str]:
    output = bytearray()
    console = Console(output.extend)
    console.feed(typed)
    settings = BootOptions(backend="xen", engine=engine, timeout=300, **options)
    record = boot(kernel, settings, console)
    return record, output.decode("utf-8", "replace").replace("\r", "")


@pytest.mark.parametrize("engine", ENGINES)
def test_grub_reaches_its_prompt_and_obeys(engine: str) -> None:
    record, console = run(guest_file(GRUB), engine, TYPED)
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    assert "Welcome to GRUB!" in console
    assert console.count("grub> ") == 4
    assert "\nhello\n" in console
    assert "\n(memdisk) (proc)" in console
    assert record.counts.backend["xen.hypercall.update_va_mapping"] >= 80


def test_grub_is_for_xen_alone() -> None:
    plugins = load_plugins(load_config(config_path(None)))
    backend, _ = plugins.select("auto", KernelInfo.of(load_image(guest_file(GRUB))))
    assert backend.name == "xen"


def test_two_runs_of_grub_are_equal() -> None:
    kernel = guest_file(GRUB)
    first, second = (run(kernel, typed=TYPED) for _ in range(2))
    assert first[1] == second[1]
    assert first[0].repeatable() == second[0].repeatable()


def test_the_library_in_c_changes_nothing_that_grub_sees() -> None:
    kernel = guest_file(GRUB)
    (with_c, console), (without, other) = run(kernel, typed=TYPED), run(kernel, typed=TYPED, no_accel=("platform",))
    assert console == other
    assert with_c.state_hash == without.state_hash
    assert with_c.counts == without.counts


@pytest.mark.parametrize("engine", ENGINES)
def test_mini_os_runs_its_tests(engine: str) -> None:
    """It ends by itself only when the toolstack says so: until then it prints the time each second."""
    record, console = run(guest_file("minios/mini-os"), engine, memory=32 << 20, max_instructions=50_000_000)
    assert record.outcome.kind == "limit", record.outcome.reason
    for line in ("Initialising console ... done.", "ls device[0] -> suspend", "Result EACCES",
                 'Thread "xenbus_tester" exited.'):
        assert line in console, line
    assert re.search(r"gnttab_table mapped at 0x?[0-9a-f]+", console)
    seconds = [int(second) for second in re.findall(r"^T\(s=(\d+) us=\d+\)$", console, re.MULTILINE)]
    assert len(seconds) >= 3
    assert [second - seconds[0] for second in seconds] == list(range(len(seconds)))


def linux(build: str, engine: str = "auto") -> tuple[Record, list[str]]:
    kernel, initrd = guest_file(f"kernels/{build}/vmlinux"), guest_file("initrd-run.gz")
    record, console = run(kernel, engine, append=COMMAND_LINE, initrd=initrd.read_bytes())
    return record, [re.sub(r"^(\(early\) )?\[ *\d+\.\d+\] ", "", line) for line in console.splitlines()]


@pytest.mark.parametrize("build", ["up", "smp"])
def test_linux_reaches_user_space_and_powers_off(build: str) -> None:
    record, lines = linux(build)
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    assert "Booting paravirtualized kernel on Xen" in lines
    assert "Grant table initialized" in lines
    assert lines[-1] == "System halted."
    begin, end = lines.index("INIT-RUN"), lines.index("USERSPACE-OK")
    expected = guest_file("expected-run.txt").read_text().replace("\r", "").splitlines()
    before_tests = expected[: next(at for at, line in enumerate(expected) if line.startswith("GTEST"))]
    assert lines[begin:end][: len(before_tests)] == before_tests


@pytest.mark.parametrize("options", [{}, {"no_accel": ("platform",)}], ids=["auto", "no-platform"])
def test_a_later_linux_uses_queues_of_events(options: dict[str, Any]) -> None:
    """3.14, whose own op tables nobody here knows: so they are not looked at."""
    kernel, initrd = guest_file("kernels/3.14/vmlinux"), guest_file("initrd-run.gz").read_bytes()
    record, console = run(kernel, append=COMMAND_LINE, initrd=initrd, **options)
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    assert "xen:events: Using FIFO-based ABI" in console
    lines = console.splitlines()
    expected = guest_file("expected-run.txt").read_text().replace("\r", "").replace("2.6.32.67", "3.14.35").splitlines()
    tests = expected[: next(at for at, line in enumerate(expected) if line.startswith("GTEST"))]
    begin = lines.index("INIT-RUN")
    assert lines[begin : begin + len(tests)] == tests


SHELL = b"""\
echo answer-$((6 * 7))
i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; sleep 2
grep '^cpu ' /proc/stat; cat /proc/uptime; date -u
grep -c hvc_console /proc/interrupts
poweroff -f
"""


def test_a_shell_on_hvc0_is_typed_at_and_time_is_kept() -> None:
    """Half of the CPU is another domain's: the guest sees it as stolen, and its clock is right all the same."""
    kernel, initrd = guest_file("kernels/up/vmlinux"), guest_file("initrd-sh.gz")
    record, console = run(kernel, typed=SHELL, append="console=hvc0 quiet", initrd=initrd.read_bytes(),
                          options={"steal": "50"})
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    lines = console.splitlines()
    assert "answer-42" in lines
    _, user, _, _, idle, _, _, _, stolen, *_ = next(line for line in lines if line.startswith("cpu ")).split()
    assert int(user) > 0 and int(idle) >= 190, "it slept for two seconds"
    expected = 3 * record.counts.backend["xen.preempted"]  # ticks of 10 ms: a slice of 30 ms for each of its own
    assert expected - 3 <= int(stolen) <= expected and int(stolen) > 0
    uptime = float(next(line for line in lines if re.fullmatch(r"\d+\.\d\d \d+\.\d\d", line)).split()[0])
    assert 2 < uptime <= record.virtual_ns / 1e9
    assert any(re.fullmatch(r"Tue Oct  9 20:31:4\d UTC 2007", line) for line in lines), "the machine's date"


def test_linux_on_the_portable_engine() -> None:
    record, lines = linux("up", "portable")
    assert (record.outcome.kind, record.exit_code) == ("poweroff", 0), record.outcome.reason
    assert lines == linux("up")[1]
