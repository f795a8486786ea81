"""Fresh virtual environments for tests: they see this one's packages, and what a test installs into them."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest


def fresh(folder: Path, *packages: Path) -> Path:
    """Make an environment in `folder` and install `packages` into it; returns its python. Skips the test if paravirt is
    not installed here, since no build hook can be found then."""
    try:
        metadata.distribution("paravirt")
    except metadata.PackageNotFoundError:
        pytest.skip("paravirt is not installed here (`make test` installs it), so no build hook can be found")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    own, = folder.glob("lib/python*/site-packages")
    places = [place for place in sys.path if place.endswith("site-packages")]
    (own / "outer.pth").write_text("".join(f"import site; site.addsitedir({place!r})\n" for place in places))
    for package in packages:
        subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps",
                        "--no-index", "--no-build-isolation", "--disable-pip-version-check", str(package)],
                       check=True, timeout=300)
    return python


def run(python: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``python -m words`` in `cwd`, without what pytest has put into our own environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    return subprocess.run([str(python), "-m", *words], text=True, capture_output=True, cwd=cwd, timeout=600,
                          stdin=subprocess.DEVNULL, env=environment, check=False)


def run_pytest(python: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """pytest there, in one process and without a cache."""
    return run(python, cwd, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *words)
