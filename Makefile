# `make` explains itself. Everything runs in .venv, which is created on the first use.

PYTHON ?= python3
SHARE  ?= 0.5
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
SOURCE := toolchain targets benchmarks tests examples

.DEFAULT_GOAL := help
.PHONY: help demo model always runner firmware board test test-all check lint format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY) ## train a small CNN on digits, compress it to half its own latency, show the report
	$(BIN)/python -m benchmarks.digits.demo --out demo --share $(SHARE)

# What `make model` is asked, and where the result goes. FLAGS has more flags of `compress`.
TARGET    ?= host
BUDGET_MS ?=
DATA      ?=
FLAGS     ?=
EDGEFIT   ?= $(BIN)/edgefit
RESULT    := build/$(subst :,-,$(TARGET))/$(basename $(notdir $(MODEL)))
WANTED     = $(MODEL) --target $(TARGET) $(if $(BUDGET_MS),--budget-ms $(BUDGET_MS)) $(if $(DATA),--data $(DATA)) $(FLAGS)
TOOL       = $(if $(filter $(BIN)/edgefit,$(EDGEFIT)),$(READY)) \
             $(shell find toolchain targets \( -name '*.py' -o -name '*.json' \) 2>/dev/null)

ifeq ($(MODEL),)
model: ## compress MODEL=net.pt2 for BUDGET_MS=5 [TARGET=host] [DATA=images/] [FLAGS=...] into build/TARGET/NAME
	@echo "error: MODEL is not set" >&2
	@echo "hint: make model MODEL=net.pt2 BUDGET_MS=5 [TARGET=host] [DATA=images/] [FLAGS=...]" >&2; exit 2
else
model: $(RESULT)/report.json

# A model that is there needs nothing; one that is not says so.
$(MODEL):
	@echo "error: no model at $@" >&2; exit 2

# What is asked and what the data are: changes only when they do.
$(RESULT).asked: always
	@mkdir -p $(@D)
	@{ echo '$(subst ','\'',$(WANTED))'; \
	   [ -z '$(DATA)' ] || [ ! -e '$(DATA)' ] || \
	   find -L '$(DATA)' -type f -printf '%P %s %T@\n' | LC_ALL=C sort | sha256sum; } > $@.new
	@if cmp -s $@.new $@; then rm -f $@.new; else mv $@.new $@; fi

# The folder appears in one step, and only when every limit is held and every check passed; what an interrupted
# run has finished is kept beside it.
$(RESULT)/report.json: $(MODEL) $(RESULT).asked $(TOOL)
	@$(EDGEFIT) compress $(WANTED) --out $(RESULT).new || { code=$$?; \
	  [ $$code -ne 1 ] || echo "error: a limit is not held or a check failed: see $(RESULT).new/report.md" >&2; \
	  exit $$code; }
	@rm -rf $(RESULT) && mv $(RESULT).new $(RESULT) && touch $@
endif
always:

runner: ## build the C program that measures on a device: ARCH=x86_64, aarch64 or armv7
	@$(MAKE) --no-print-directory -C targets/runner $(if $(ARCH),ARCH=$(ARCH)) BUILD=$(CURDIR)/build/runner

# MODEL is an .onnx file, or a network that `make model` compresses first (with BUDGET_MS and the rest).
ARCH       ?= $(shell uname -m)
LINKED      = $(abspath $(if $(filter %.onnx,$(MODEL)),$(MODEL),$(RESULT)/$(basename $(notdir $(MODEL))).onnx))
ifeq ($(MODEL),)
firmware: ## a static program with MODEL=net.onnx linked in: ARCH=x86_64, aarch64 or armv7
	@echo "error: MODEL is not set" >&2
	@echo "hint: make firmware MODEL=net.onnx ARCH=aarch64, or MODEL=net.pt2 BUDGET_MS=5 ARCH=aarch64" >&2; exit 2
else
firmware: $(if $(filter %.onnx,$(MODEL)),$(MODEL),$(RESULT)/report.json) $(if $(filter $(BIN)/edgefit,$(EDGEFIT)),$(READY))
	@$(MAKE) --no-print-directory -C targets/runner firmware ARCH=$(ARCH) MODEL=$(LINKED) \
	  BUILD=$(CURDIR)/build/firmware EDGEFIT=$(if $(findstring /,$(EDGEFIT)),$(abspath $(EDGEFIT)),$(EDGEFIT))
endif

board: $(READY) ## fetch a root file system for the tests of ssh and adb: sshd, adbd, BusyBox of Debian 13; installs nothing
	@$(BIN)/python -m tests.debian

test: $(READY) ## run the tests (under 10 minutes on 2 cores)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -m "not slow"

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
	rm -rf $(VENV) build .mypy_cache .ruff_cache .hypothesis .import_linter_cache demo demo.work *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: Python 3.11 or newer is needed, $(PYTHON) is older"; echo "hint: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "error: $(PYTHON) cannot create environments"; echo "hint: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
