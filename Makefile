# Everything from nothing: each target sets up what it needs, and a second call takes seconds.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Never let pip choose torch or torchvision freely: see docs/dependencies.md.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Where it is set, every test and every process that a test starts would compile every module anew: half as much again.
export PYTHONDONTWRITEBYTECODE :=

# Debian keeps venv in a package of its own; root may install it, others are told its name.
VENV_PACKAGE := test "$$(id -u)" = 0 && { apt-get update -qq; apt-get install -y -qq python3-venv; }

.PHONY: demo test quick nightly wheel install runtime check bench docs studies gpu-studies clean

demo: $(VENV)/.runnable
	$(BIN)/phoropter demo -o runs/demo

# One thread a process: two test processes with two threads each would wait for one another.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Unit tests without subprocesses, browser, real data and what tests/slow.txt lists; under a minute on two cores.
quick: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not process and not real and not gpu"

# What nobody waits for: every test with all its rounds, slow ones included, trackers installed, and twenty killed studies.
nightly: check
	$(BIN)/pip install --quiet -e '.[dev,track]'
	PHOROPTER_THOROUGH=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu"
	$(BIN)/python tests/kills.py --kills 20
	scripts/check_wheel.sh $(PYTHON)

# Wheel and sdist, each installed and tried in an environment of its own.
wheel:
	scripts/check_wheel.sh $(PYTHON)

check: install
	$(BIN)/ruff check src tests benchmarks scripts examples docs/conf.py
	$(BIN)/ruff format --check src tests benchmarks scripts examples docs/conf.py
	$(BIN)/mypy

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

# The package alone, for a first look. Two thirds of the time of an installation go into compiling modules that nobody imports:
# --no-compile leaves each to its first import.
$(VENV)/.runnable: pyproject.toml constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --no-compile -e .
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "phoropter needs Python 3.11 or later: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); $(VENV_PACKAGE) && $(PYTHON) -m venv $(VENV); } || \
		{ echo "Python has no venv here: apt-get install python3-venv, then the same command again"; exit 1; }

# What serving a bundle needs and nothing else: what the Dockerfile builds.
runtime: $(BIN)/pip
	$(BIN)/pip install --quiet --no-cache-dir '.[signals,medical,deploy]'

bench: install
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# The small versions of the five papers' studies on what PHOROPTER_TEST_DATA holds in place of their data, and the table of the results.
studies: install
	OMP_NUM_THREADS=1 $(BIN)/python scripts/small_studies.py -o runs/studies

# The five papers' studies at full settings, smallest first, on a GPU, from the datasets in PHOROPTER_DATA (default: ./data). What was finished
# stays: stopped at any time, or when a study has had its BUDGET, the same command goes on. What cannot run is said, and the next begins.
GPU_STUDIES ?= alexnet-and-after sonic-wesad attention-or-convolution vit-teaches-cnn ctg-high-risk
DEVICE ?= cuda
BUDGET ?= 24h
gpu-studies: install
	@failed=; for study in $(GPU_STUDIES); do echo "== $$study"; \
		$(BIN)/phoropter run $$study -o runs/full/$$study --device $(DEVICE) --budget $(BUDGET) || failed="$$failed $$study"; done; \
		test -z "$$failed" || { echo "not finished:$$failed"; exit 1; }

# The reference of keys and the tree in docs/architecture.md are written anew; tests fail where they are out of date.
docs: install
	$(BIN)/python scripts/reference.py --write
	$(BIN)/python scripts/tree.py --write
	$(BIN)/python scripts/gallery.py
	$(BIN)/sphinx-build -W -q docs docs/_build
	@echo "docs: docs/_build/index.html"

clean:
	rm -rf $(VENV) build dist docs/_build docs/_pages .pytest_cache .mypy_cache .ruff_cache
