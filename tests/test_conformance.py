"""Native passes the conformance suite: every op leaves the state that its specification says, or does not apply."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_native_conforms() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--pyargs", "paravirt.conformance", "--paravirt-backend", "native"],
        cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "87 pass, 17 not applicable" in done.stdout
