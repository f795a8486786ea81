# Assumes git, make and python3 with venv, nothing else: the C toolchain is the Python package ziglang.

PYTHON ?= python3
BIN := .venv/bin
# Bytecode too: PYTHONDONTWRITEBYTECODE would have every run compile the package anew, which takes longer than a boot.
BUILD = $(BIN)/python hatch_build.py && $(BIN)/python -m compileall -q paravirt backends

.DELETE_ON_ERROR:
.PHONY: help boot build test lint guests bench pages clean distclean

help:
	@echo 'make boot    build, then boot the reference kernel'
	@echo 'make test    lint, then the tests'
	@echo 'make lint    ruff and mypy'
	@echo 'make guests  fetch the real i386 guests (needs a network) into guests/'
	@echo 'make bench   the benchmarks'
	@echo 'make fuzz    random hypercalls and VMI calls: SEED=1 CALLS=1000000'
	@echo 'make pages   the generated pages of docs/'
	@echo 'make clean   remove what was built; distclean: and what was installed and fetched'

# What running needs, without what testing needs. hatch_build.py is always asked: it knows in 0.1 s whether
# anything is stale, and a file's date would miss a deleted image.
.venv/run.stamp: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'hatchling>=1.25' 'editables>=0.5' ziglang==0.15.2
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable .
	touch $@

.venv/dev.stamp: .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable '.[dev]'
	touch $@

build: .venv/run.stamp
	@$(BUILD)

# Without a terminal on stdin the guest's time is virtual, so every run prints the same.
boot: build
	$(BIN)/paravirt boot </dev/null

lint: .venv/dev.stamp
	$(BIN)/ruff check
	$(BIN)/mypy

guests: .venv/run.stamp
	$(BIN)/python tools/guests.py

test: .venv/dev.stamp lint
	@$(BUILD)
	$(BIN)/python tools/guests.py --tolerant
	$(BIN)/pytest -n 2

bench: .venv/dev.stamp
	@$(BUILD)
	$(BIN)/python -m benchmarks

pages: .venv/dev.stamp
	@$(BUILD)
	$(BIN)/python -m tools.pages
	$(BIN)/python tools/xen_tables.py
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python tools/op_coverage.py

SEED ?= 1
CALLS ?= 1000000
fuzz: .venv/dev.stamp
	@$(BUILD)
	$(BIN)/python -m tests.xenfuzz --seed $(SEED) --calls $(CALLS)
	$(BIN)/python -m tests.vmifuzz --seed $(SEED) --calls $$(($(CALLS) / 100))

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f paravirt/data/accel.so paravirt/data/native.o paravirt/data/paravirt-kernel paravirt/data/plugins.toml
	rm -f paravirt/data/*.stamp backends/*/paravirt_*/*.o backends/*/paravirt_*/*.so backends/*/paravirt_*/*.stamp

distclean: clean
	rm -rf .venv guests
