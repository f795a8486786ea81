"""The package can be built by a stranger, and says why it needs what it needs.

The CPU's version is pinned, because the accelerated engine knows its structures; every dependency is
justified beside its name; the built-in backends are entry points like anyone's. A build of an unchanged
tree does nothing, a changed one does what is needed, and a backend author's assembly becomes an object.
The readers and writers of the guests' containers (ar, newc) are held to their formats.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import time
import tomllib
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paravirt.build import guestcode, toolchain
from tools import guests, initramfs

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT: dict[str, Any] = tomllib.loads(TEXT)
needs_compiler = pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")

OPS = """\
#include "ops.h"
.globl clts, clts_end
clts:
\tclts
\tret
clts_end:
.globl call_out
call_out:
\tjmp LEAF
"""


def requirements() -> list[str]:
    extras: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
    return [*PROJECT["project"]["dependencies"], *(word for words in extras.values() for word in words)]


def test_unicorn_is_pinned() -> None:
    assert "unicorn==2.1.4" in PROJECT["project"]["dependencies"]


@pytest.mark.parametrize("requirement", sorted(set(requirements())))
def test_each_dependency_is_justified(requirement: str) -> None:
    lines = [line for line in TEXT.splitlines() if line.strip().startswith(f'"{requirement}",')]
    assert lines, f"{requirement} does not stand on a line of its own"
    for line in lines:
        assert re.search(r'", # \w.{8,}', line), f"no reason given: {line.strip()}"


def test_one_version_of_the_compiler() -> None:
    pins = set(re.findall(r"ziglang==([\d.]+)", TEXT + (ROOT / "Makefile").read_text()))
    assert pins == {"0.15.2"}


def test_entry_points_are_declared() -> None:
    points = PROJECT["project"]["entry-points"]
    assert points["paravirt.backends"] == {
        "native": "paravirt_native.plugin", "xen": "paravirt_xen.plugin", "vmi": "paravirt_vmi.plugin"
    }
    assert points["hatch"] == {"paravirt": "paravirt.build.hatch"}
    assert PROJECT["project"]["scripts"] == {"paravirt": "paravirt.cli:main"}


def test_installed_metadata_agrees() -> None:
    try:
        installed = version("paravirt")
    except PackageNotFoundError:
        pytest.skip("paravirt is not installed in this environment, only on its path")
    assert installed == PROJECT["project"]["version"]
    assert {point.name for point in entry_points(group="paravirt.backends")} >= {"native", "xen", "vmi"}


def test_every_import_package_is_shipped_and_typed() -> None:
    packages = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert len(packages) == 4
    for package in packages:
        assert (ROOT / package / "py.typed").exists(), package


def hook(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=root, capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small project with the hook, the toolchain and one source of each kind."""
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    shutil.copytree(ROOT / "paravirt" / "build", tmp_path / "paravirt" / "build",
                    ignore=shutil.ignore_patterns("__pycache__"))
    files = {
        "paravirt/accel/a.c": "int answer(void) { return 42; }\n",
        "paravirt/native.S": ".globl native_clts\nnative_clts: clts\n ret\n",
        "backends/x/paravirt_x/ops.S": ".globl x\nx: ret\n",
        "guest/head.S": ".globl startup_32\nstartup_32: hlt\n.globl init\ninit: .incbin \"init.elf\"\n",
        "guest/k.c": "#include \"k.h\"\nint k(int a) { return a + K; }\n",
        "guest/k.h": "#define K 5\n",
        "guest/kernel.lds": "ENTRY(startup_32) SECTIONS { . = 0x100000; .text : { *(.text) } }\n",
        "guest/user/init.c": "void _start(void) { for (;;) ; }\n",
        "guest/user/user.lds": "ENTRY(_start) SECTIONS { . = 0x08048000; .text : { *(.text) } }\n",
        "plugins.toml": "[[backend]]\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file: an atomic rewrite of the same bytes shows as well."""
    return {str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


@needs_compiler
def test_unchanged_build_does_nothing_and_a_changed_one_only_its_part(tree: Path) -> None:
    first = hook(tree, "hatch_build.py")
    assert first.returncode == 0, first.stderr
    kernel = tree / "paravirt/data/paravirt-kernel"
    entry, = struct.unpack_from("<I", kernel.read_bytes(), 24)
    assert entry == 0x100000
    user = (tree / "build/guest/init.elf").read_bytes()
    assert struct.unpack_from("<I", user, 24) == (0x08048000,) and user in kernel.read_bytes()
    before = snapshot(tree)

    started = time.perf_counter()
    assert hook(tree, "hatch_build.py").returncode == 0
    took = time.perf_counter() - started
    assert snapshot(tree) == before
    assert took < 1, f"{took:.2f} s for nothing (0.05 s on an idle machine)"

    (tree / "guest/k.h").write_text("#define K 6\n")
    assert hook(tree, "hatch_build.py").returncode == 0
    after = snapshot(tree)
    changed = {name for name in before if before[name] != after[name]}
    assert "paravirt/data/paravirt-kernel" in changed
    assert not changed & {"paravirt/data/native.o", "backends/x/paravirt_x/ops.o", "build/guest/init.elf"}


@needs_compiler
def test_deleted_and_damaged_outputs_are_made_again(tree: Path) -> None:
    assert hook(tree, "hatch_build.py").returncode == 0
    native, kernel = tree / "paravirt/data/native.o", tree / "paravirt/data/paravirt-kernel"
    good = native.read_bytes(), kernel.read_bytes()
    native.unlink()
    kernel.write_bytes(b"not a kernel")
    assert hook(tree, "hatch_build.py").returncode == 0
    assert (native.read_bytes(), kernel.read_bytes()) == good


@needs_compiler
def test_an_error_of_the_compiler_names_file_and_line(tree: Path) -> None:
    (tree / "paravirt/native.S").write_text("nop\nfrobnicate %eax\n")
    result = hook(tree, "hatch_build.py")
    assert result.returncode == 1
    assert "native.S:2:1: error:" in result.stderr and "Traceback" not in result.stderr
    assert not (tree / "paravirt/data/native.o").exists()


@needs_compiler
def test_accelerator_is_a_shared_object_for_this_host_alone(tree: Path) -> None:
    assert hook(tree, "hatch_build.py").returncode == 0
    output = tree / "paravirt/data/accel.so"
    if sys.platform == "linux" and os.uname().machine == "x86_64":
        assert struct.unpack_from("<HH", output.read_bytes(), 16) == (3, 62)  # ET_DYN, EM_X86_64
    else:
        assert not output.exists()


@needs_compiler
def test_a_tree_without_guest_and_sources_builds_nothing(tree: Path) -> None:
    for name in ("guest", "backends", "paravirt/accel"):
        shutil.rmtree(tree / name)
    for name in ("plugins.toml", "paravirt/native.S"):
        (tree / name).unlink()
    result = hook(tree, "hatch_build.py")
    assert (result.returncode, result.stderr) == (0, "")
    assert not (tree / "paravirt/data").exists()


def assert_relocatable_i386(path: Path) -> None:
    data = path.read_bytes()
    assert data[:7] == b"\x7fELF\x01\x01\x01", "not ELF32, little-endian"
    assert struct.unpack_from("<HH", data, 16) == (1, 3), "not ET_REL for EM_386"


@needs_compiler
def test_assemble(tmp_path: Path) -> None:
    source, output = tmp_path / "ops.S", tmp_path / "ops.o"
    source.write_text(OPS)
    header = tmp_path / "ops.h"
    header.write_text("#define LEAF leaf_one\n")
    assert guestcode.assemble(source, output) is True
    assert_relocatable_i386(output)
    assert b"\x0f\x06\xc3" in output.read_bytes(), "clts; ret"
    assert str(tmp_path).encode() not in output.read_bytes(), "the object names the folder of the build"
    assert guestcode.assemble(source, output) is False
    header.write_text("#define LEAF leaf_two\n")
    assert guestcode.assemble(source, output) is True
    assert b"leaf_two" in output.read_bytes()


@needs_compiler
def test_assemble_reports_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(toolchain.BuildError, match=r"ops\.S: No such file"):
        guestcode.assemble(tmp_path / "ops.S", tmp_path / "ops.o")


BACKEND = """\
[build-system]
requires = ["hatchling", "paravirt[build]"]
build-backend = "hatchling.build"
[project]
name = "my-backend"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["my_backend"]
[tool.hatch.build.hooks.paravirt-ops]
sources = {sources}
"""


def third_party(folder: Path, sources: str) -> tuple[Any, dict[str, list[str]]]:
    """The hook as hatchling makes it for a third-party project, and the build data it fills in."""
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    from hatchling.bridge.app import Application
    from hatchling.builders.wheel import WheelBuilder

    from paravirt.build.hatch import OpsBuildHook, hatch_register_build_hook

    (folder / "pyproject.toml").write_text(BACKEND.format(sources=sources))
    (folder / "my_backend").mkdir()
    (folder / "my_backend" / "ops.S").write_text(OPS.replace("LEAF", "leaf").replace('#include "ops.h"\n', ""))
    assert hatch_register_build_hook() is OpsBuildHook
    builder = WheelBuilder(str(folder))
    config = builder.config.build_config["hooks"]["paravirt-ops"]
    made = OpsBuildHook(str(folder), config, builder.config, builder.metadata, str(folder), "wheel", Application())
    return made, {"artifacts": []}


@needs_compiler
def test_third_party_hook_assembles(tmp_path: Path) -> None:
    made, data = third_party(tmp_path, '["my_backend/ops.S"]')
    made.initialize("standard", data)
    assert_relocatable_i386(tmp_path / "my_backend" / "ops.o")
    assert data["artifacts"] == ["/my_backend/ops.o"]
    made.clean(["standard"])
    assert sorted(path.name for path in (tmp_path / "my_backend").iterdir()) == ["ops.S"]


@pytest.mark.parametrize(("sources", "message"), [
    ("[]", "sources must be a list"),
    ('"my_backend/ops.S"', "sources must be a list"),
    ('["my_backend/ops.c"]', "'my_backend/ops.c' is not the name of a .S file"),
    ('["my_backend/oops.S"]', "there is no file 'my_backend/oops.S'"),
    ('["../ops.S"]', "'../ops.S' lies outside the project"),
])
def test_third_party_hook_names_the_mistake(tmp_path: Path, sources: str, message: str) -> None:
    made, data = third_party(tmp_path, sources)
    with pytest.raises(toolchain.BuildError, match=re.escape(message)) as error:
        made.initialize("standard", data)
    assert "tool.hatch.build.hooks.paravirt-ops.sources" in str(error.value)


def ar(*files: tuple[str, bytes]) -> bytes:
    archive = b"!<arch>\n"
    for name, data in files:
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        archive += data + b"\n" * (len(data) % 2)
    return archive


def deb(name: str, data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return ar(("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", stream.getvalue()))


def test_a_file_of_a_package() -> None:
    package = deb("./boot/vmlinuz-6.1.0-1-686", b"MZ kernel")
    assert guests.extract(package, "./boot/vmlinuz-") == b"MZ kernel"
    with pytest.raises(guests.FetchError, match=r"no file \./bin/busybox\*"):
        guests.extract(package, "./bin/busybox")


@given(st.binary(max_size=200))
def test_a_damaged_package_is_one_error(junk: bytes) -> None:
    for package in (junk, b"!<arch>\n" + junk, ar(("data.tar.xz", junk))):
        with pytest.raises(guests.FetchError):
            guests.extract(package, "./boot/")


def test_missing_guests_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get, hence no network
    assert guests.main(["--folder", str(tmp_path / "guests")]) == 1
    said = capsys.readouterr().err
    assert "apt-get is not installed" in said
    assert "guests/vmlinuz: file /boot/vmlinuz-* of" in said and "busybox-static" in said
    assert guests.main(["--folder", str(tmp_path / "guests"), "--tolerant"]) == 0


def read_newc(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """Mode, contents and device numbers by name, read as the kernel does. Ref: buffer-format.rst."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    offset = 0
    while True:
        header = archive[offset : offset + 110]
        assert header[:6] == b"070701"
        fields = [int(header[i : i + 8], 16) for i in range(6, 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = archive[offset + 110 : offset + 109 + name_size].decode()
        begin = (offset + 110 + name_size + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, archive[begin : begin + size], (fields[9], fields[10]))
        offset = (begin + size + 3) & ~3


@given(st.dictionaries(st.from_regex(r"[a-z]{1,9}(/[a-z]{1,9})?", fullmatch=True), st.binary(max_size=40), max_size=6))
def test_newc_round_trip(files: dict[str, bytes]) -> None:
    archive = initramfs.newc([initramfs.Entry(name, 0o100644, data) for name, data in files.items()])
    assert len(archive) % 4 == 0
    assert {name: data for name, (_, data, _) in read_newc(archive).items()} == files


def test_initramfs_holds_what_a_boot_to_a_shell_needs() -> None:
    busybox = b"\x7fELF...\0[\0[[\0ash\0busybox\0cat\0sh\0abc\0"
    packed = initramfs.initramfs(busybox)
    assert packed == initramfs.initramfs(busybox), "not repeatable"
    files = read_newc(gzip.decompress(packed))
    assert files["bin/busybox"][:2] == (0o100755, busybox)
    assert files["bin/sh"][:2] == (0o120777, b"busybox")
    assert files["dev/console"] == (0o020600, b"", (5, 1))
    assert "bin/abc" not in files, "taken from beyond the table of applets"
    mode, init, _ = files["init"]
    assert mode == 0o100755
    assert init.startswith(b"#!/bin/sh\n") and init.endswith(b"setsid cttyhack sh\nreboot -f\n")


def test_initramfs_refuses_what_is_no_busybox() -> None:
    with pytest.raises(ValueError, match="not a busybox binary"):
        initramfs.initramfs(b"\x7fELF but nothing else")
