"""Where the kernels that nobody here wrote lie: guests/, as `make guests` leaves it, or $PARAVIRT_GUESTS.

Those that cannot be fetched (a Linux built with CONFIG_XEN, for instance) are looked for in the second only.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

GUESTS = Path(__file__).resolve().parent.parent / "guests"
VARIABLE = "PARAVIRT_GUESTS"


def guest_file(name: str) -> Path:
    """The file `name`, a relative path; skips the test, with the reason, where there is none."""
    folders = [GUESTS, *(Path(folder) for folder in (os.environ.get(VARIABLE),) if folder)]
    found = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if found is None:
        pytest.skip(f"neither guests/ (make guests) nor ${VARIABLE} has {name}")
    return found
