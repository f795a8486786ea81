"""What is installed from a wheel, or from a source distribution, is the whole thing.

What must hold, in an environment of its own outside the checkout: every module comes from there; the reference kernel
boots on all three built-in backends, from the command line and from Python; the conformance suite and a third-party
backend can be used; the scaffold's template, the plugins file and the headers for platforms are there. The source
distribution builds the same wheel.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from tests.commandline import ROOT
from tests.venvs import fresh, run, run_pytest

BACKENDS = ("native", "xen", "vmi")


def build(kind: str, source: Path, folder: Path) -> Path:
    """:param kind: wheel or sdist."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)], cwd=source, check=True,
                   capture_output=True, timeout=300)
    made, = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        metadata.distribution("paravirt")
    except metadata.PackageNotFoundError:
        pytest.skip("paravirt is not installed here (`make test` installs it)")
    return build("wheel", ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a fresh environment with the wheel in it; its folder holds nothing else."""
    return fresh(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_it_holds_what_is_built_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for name in ("paravirt/data/paravirt-kernel", "paravirt/data/accel.so", "paravirt/data/native.o",
                 "paravirt/data/plugins.toml", "paravirt/accel/machine.h", "paravirt_xen/ops.o",
                 "paravirt_xen/platform.so", "paravirt_vmi/platform.so", "paravirt_vmi/rom.o",
                 "paravirt/scaffold/template/package/plugin.py.in", "paravirt/conformance/test_conformance_ops.py"):
        assert name in names, name
    assert not [name for name in names if name.endswith(".stamp") or name.startswith(("tests/", "examples/"))]
    assert wheel.name.endswith("-py3-none-manylinux_2_17_x86_64.whl")


def test_every_module_comes_from_there(python: Path) -> None:
    code = "import paravirt, paravirt_native, paravirt_xen, paravirt_vmi as v; print(paravirt.__file__, v.__file__)"
    done = subprocess.run([python, "-c", code], cwd=python.parent, text=True, capture_output=True, check=True)
    assert all(Path(word).is_relative_to(python.parent.parent) for word in done.stdout.split()), done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_reference_kernel_boots(python: Path, backend: str) -> None:
    done = run(python, python.parent, "paravirt.cli", "boot", "--quiet", "--backend", backend)
    assert done.returncode == 0, done.stderr
    assert "selftest: vdso ok" in done.stdout


def test_from_python(python: Path) -> None:
    code = ("import paravirt\n"
            f"ends = [paravirt.boot(backend=name).end_state['digest'] for name in {BACKENDS}]\n"
            "assert len(set(ends)) == 1, ends\n")
    subprocess.run([python, "-c", code], cwd=python.parent, check=True, timeout=300)


def test_conformance_can_be_run(python: Path) -> None:
    done = run_pytest(python, python.parent, "--pyargs", "paravirt.conformance", "--paravirt-backend", "native", "-k",
                      "irq_disable or write_cr3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "paravirt conformance: backend native" in done.stdout


def test_a_third_party_backend_can_be_made_and_used(python: Path, tmp_path: Path) -> None:
    made = run(python, tmp_path, "paravirt.cli", "new-backend", "other")
    assert made.returncode == 0, made.stderr
    script = (tmp_path / "boot.py")
    script.write_text("import sys; sys.path.insert(0, 'paravirt-other')\n"
                      "from pathlib import Path\n"
                      "from paravirt.build.guestcode import assemble\n"
                      "source = Path('paravirt-other/paravirt_other/ops.S')\n"
                      "assemble(source, source.with_suffix('.o'))\n"
                      "import paravirt\nfrom paravirt_other import plugin\n"
                      "record = paravirt.boot(backend='other', plugins=(plugin,), append='noselftest')\n"
                      "assert record.outcome.kind == 'poweroff', record.outcome\n")
    subprocess.run([python, script], cwd=tmp_path, check=True, timeout=120)


def test_the_source_distribution_builds_it(wheel: Path, tmp_path: Path) -> None:
    source = build("sdist", ROOT, tmp_path / "sdist")
    with tarfile.open(source) as archive:
        top = source.name.removesuffix(".tar.gz")
        assert not [name for name in archive.getnames() if name.startswith((f"{top}/guests", f"{top}/build"))]
        archive.extractall(tmp_path, filter="data")
    again = build("wheel", tmp_path / top, tmp_path / "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert set(first.namelist()) == set(second.namelist())
        for name in ("paravirt/data/paravirt-kernel", "paravirt/data/native.o", "paravirt_xen/ops.o"):
            assert first.read(name) == second.read(name), name
