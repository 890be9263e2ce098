# Needs make and Python 3.11 or newer. PYTHON=/path/to/python uses another Python than python3.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
OPEN_CLIP_PACKAGES := build/bench/open_clip_train

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu test-slurm check lint typecheck format bench bench-data bench-gpu soak clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Create .venv and install everything into it (once, about 7 GB)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "timix-pl needs Python 3.11 or newer, and '$(PYTHON)' is older: install one, then run make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "'$(PYTHON)' has no venv module: install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "Installed. For the commands: . $(VENV)/bin/activate, then timix-train --help"

demo: setup ## Train a small model on generated images, evaluate it, write runs/demo/report.html (4 to 9 minutes)
	$(BIN)/timix-train experiment=demo

test: setup ## Run the tests; TIMIX_REAL_DATA=DIR adds the tests on published data sets
	$(BIN)/pytest --quiet --numprocesses auto --maxprocesses 8

test-slurm: setup ## Start a one-node SLURM on this machine; test preemption, requeue and sweeps (as root; 10 to 20 minutes)
	@command -v slurmctld > /dev/null && command -v munged > /dev/null || { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; }
	TIMIX_TEST_SLURM=1 $(BIN)/pytest --quiet --capture=no tests/slurm

test-gpu: setup ## Run the tests that need a GPU (skipped without one)
	$(BIN)/pytest -rs tests/gpu

check: lint typecheck ## Lint, check types, check formatting
	$(BIN)/ruff format --check .

lint: setup ## Run ruff, and check the import rules between packages
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: setup ## Check types
	$(BIN)/mypy

format: setup ## Format the code and sort imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: setup $(OPEN_CLIP_PACKAGES) ## Compare with open_clip on the CPU (steps, whole runs, the loss), and TiMix with plain CLIP
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.loss --rounds 1
	$(BIN)/python -m benchmarks.manifest

bench-gpu: setup ## Compare with open_clip on a GPU (skipped without one)
	$(BIN)/python -m benchmarks.gpu

soak: setup ## Kill a two-rank run 100 times and show that it lost nothing (about 40 minutes)
	$(BIN)/python -m tests.soak.soak --kills 100

bench-data: setup $(OPEN_CLIP_PACKAGES) ## Compare the training loader with open_clip's; TIMIX_REAL_DATA=DIR uses COCO's photos
	$(BIN)/python -m benchmarks.data

# open_clip_train 3.3 imports pandas and cannot read tars with webdataset 1.0. Both go into a separate folder, so that .venv keeps its own
# webdataset; --no-deps avoids a second torch.
$(OPEN_CLIP_PACKAGES):
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $@ \
		webdataset==0.2.86 pandas python-dateutil pytz six tzdata

clean: ## Remove caches and build output; keep .venv, data/ and runs/
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src data_pipelines tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
