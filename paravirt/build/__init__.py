"""Turning C and assembly into what the machine runs: a toolchain from PyPI, and hooks for hatchling.

Nothing here imports the rest of the package: `hatch_build.py` uses it before anything is installed.
"""
