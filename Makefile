# A machine with make and Python 3.11 or newer is enough; PYTHON=/path/to/python chooses another one.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
OPEN_CLIP_PACKAGES := build/bench/open_clip_train

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu test-slurm check lint typecheck format bench bench-data bench-gpu soak clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with all that is needed (about 6 GB, once)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "timix-pl needs Python 3.11 or newer, and '$(PYTHON)' is not: install one, then make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "'$(PYTHON)' has no venv module: install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## Train a small model on the embedded data set, evaluate it, write runs/demo/report.html (4 to 9 minutes)
	$(BIN)/timix-train experiment=demo

test: setup ## Run the tests; TIMIX_REAL_DATA=DIR adds those on published data sets
	$(BIN)/pytest --quiet --numprocesses auto --maxprocesses 8

test-slurm: setup ## Preempt, requeue and sweep on a real SLURM of one node, which it starts on this machine (as root; 10 to 20 minutes)
	@command -v slurmctld > /dev/null && command -v munged > /dev/null || { apt-get update && apt-get install -y --no-install-recommends slurm-wlm munge; }
	TIMIX_TEST_SLURM=1 $(BIN)/pytest --quiet --capture=no tests/slurm

test-gpu: setup ## Run the tests that need a GPU (without one they are skipped)
	$(BIN)/pytest -rs tests/gpu

check: lint typecheck ## Lint, check types and formatting
	$(BIN)/ruff format --check .

lint: setup ## Check the code's rules and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/lint-imports

typecheck: setup ## Check types
	$(BIN)/mypy

format: setup ## Format the code and sort imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

bench: setup $(OPEN_CLIP_PACKAGES) ## Measure against open_clip, on the CPU: steps, whole runs, the loss; and TiMix against plain CLIP
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.step
	$(BIN)/python -m benchmarks.loss --rounds 1
	$(BIN)/python -m benchmarks.manifest

bench-gpu: setup ## Measure against open_clip on a GPU, measure by measure (skipped where there is none)
	$(BIN)/python -m benchmarks.gpu

soak: setup ## Kill a run of two ranks 100 times and show that it lost nothing (about 40 minutes)
	$(BIN)/python -m tests.soak.soak --kills 100

bench-data: setup $(OPEN_CLIP_PACKAGES) ## Measure the training loader against open_clip's; TIMIX_REAL_DATA=DIR takes COCO's photos
	$(BIN)/python -m benchmarks.data

# open_clip_train 3.3 cannot read tars with webdataset 1.0, and imports pandas: both go into a folder of their own, without a second torch.
$(OPEN_CLIP_PACKAGES):
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --target $@ \
		webdataset==0.2.86 pandas python-dateutil pytz six tzdata

clean: ## Remove caches and builds; .venv, data/ and runs/ stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src data_pipelines tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
