# Everything that is done to this repository by hand or by a machine is a target here; `make` alone lists them.
# It takes make, Python 3.11 or newer, and pip; all else is installed into .venv.

VENV := .venv
BIN := $(VENV)/bin
# Which interpreter makes the environment: PYTHON if it is set, or else the first of these that is new enough.
PYTHON ?=
CANDIDATES := python3 python3.11 python3.12 python3.13 python3.14
# Processes that run tests.
WORKERS ?= auto
EXPERIMENT ?= experiments/quickstart.yaml

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo papers test lint format types tests test-slow fuzz test-gpu audit bench pictures clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

demo: $(VENV)/installed ## make the environment, run the quickstart experiment
	$(BIN)/clipbench run $(EXPERIMENT)

papers: $(VENV)/installed ## train what articles and papers claim, and report which claims are supported
	@for experiment in experiments/papers/*.yaml experiments/articles/*.yaml; do \
		echo "== $$experiment"; $(BIN)/clipbench run --quiet --no-mlflow $$experiment || exit 1; \
	done
	$(BIN)/clipbench report experiments/papers/*.yaml experiments/articles/*.yaml

test: lint types tests ## make the environment, check style and types, run the tests

lint: $(VENV)/installed-dev ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/installed-dev ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/installed-dev ## check types
	$(BIN)/mypy

tests: $(VENV)/installed-dev ## run the tests without the slow ones
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal --maxprocesses 8

test-slow: $(VENV)/installed-dev ## run the slow tests, which take long
	$(BIN)/python -m pytest -q -m slow

fuzz: $(VENV)/installed-dev ## try 10,000 spoilt experiments and 2,000 command lines, others each time
	$(BIN)/python -m pytest -q -m slow tests/fuzz

test-gpu: $(VENV)/installed-dev ## run the tests of training on a GPU; requires CUDA
	$(BIN)/python -m pytest -q -m gpu

audit: $(VENV)/installed ## look up known vulnerabilities of what is installed; requires a network
	@if $(BIN)/python -c 'from urllib.request import urlopen; urlopen("https://pypi.org/pypi/pip/24.0/json", timeout=5)' 2>/dev/null; \
	then $(BIN)/python -m pip install --disable-pip-version-check --quiet pip-audit && $(BIN)/python -m pip_audit --skip-editable --progress-spinner off; \
	else echo "pypi.org does not answer: no vulnerabilities were looked up."; fi

bench: $(VENV)/installed ## measure the cohort engine beside the plain PyTorch loop
	$(BIN)/clipbench bench

pictures: $(VENV)/installed ## draw the pictures of the documentation from a real run; requires Chromium
	$(BIN)/python results/pictures.py

clean: ## remove the environment and caches; results stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find clipbench tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp says what was installed, and is older than pyproject.toml when that is no longer so.
$(VENV)/installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/installed

$(BIN)/python:
	@for python in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
		echo "Making $(VENV) with $$("$$python" --version)"; \
		"$$python" -m venv $(VENV) && exit 0; \
		rm -rf $(VENV); \
		echo "$$python cannot make an environment: install its venv module (Debian: python3-venv)." >&2; exit 1; \
	done; \
	echo "No Python 3.11 or newer found (tried: $(or $(PYTHON),$(CANDIDATES)))." \
		"Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1
