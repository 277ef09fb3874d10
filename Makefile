# `make` explains itself. Everything runs in .venv, which is created on the first use.

PYTHON ?= python3
SHARE  ?= 0.5
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SOURCE := toolchain targets benchmarks tests

.DEFAULT_GOAL := help
.PHONY: help demo runner test test-all check lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## train a small CNN on digits, compress it to half its own latency, show the report
	$(BIN)/python -m benchmarks.digits.demo --out demo --share $(SHARE)

runner: ## build the C program that measures on a device: ARCH=x86_64, aarch64 or armv7
	@$(MAKE) --no-print-directory -C targets/runner $(if $(ARCH),ARCH=$(ARCH)) BUILD=$(CURDIR)/build/runner

test: $(READY) ## run the tests (under 10 minutes on 2 cores)
	$(BIN)/pytest -m "not slow"

test-all: $(READY) ## run the thorough tests too
	$(BIN)/pytest

check: lint test ## formatting, lint, types, architecture, tests: what has to pass before a commit

lint: $(READY) ## formatting, lint, types, architecture
	$(BIN)/ruff format --check $(SOURCE)
	$(BIN)/ruff check $(SOURCE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## format the code
	$(BIN)/ruff format $(SOURCE)
	$(BIN)/ruff check --fix $(SOURCE)

clean: ## remove the environment, caches and the demo
	rm -rf $(VENV) build/runner .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo demo.work *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older"; echo "hint: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) cannot create environments"; echo "hint: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
