"""The assembled ops.S: its symbols are code for slots, and the ops' own data."""

from __future__ import annotations

from pathlib import Path

from paravirt.api import GuestObject

code = GuestObject(Path(__file__).with_name("ops.o"))
