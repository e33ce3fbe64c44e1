# Everything here runs on a fresh machine that has Python 3.11 or later, make, and access to a package index.

PYTHON ?= python3
PYTEST_ARGS ?=
# Tests that start processes share the machine with the others, so more workers than two gain little.
TEST_WORKERS ?= 2
SEEDS ?= 5000
FAULTS ?= 400

VENV := .venv
RUN := $(VENV)/bin/python -m
PYTEST_PARALLEL := $(RUN) pytest --numprocesses $(TEST_WORKERS) --dist worksteal
INSTALLED := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check format faults simulate soak bench lock clean

help: ## Say what each command does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make the virtual environment from the locked dependencies

# Hashes are checked, so a package that changed after it was locked is refused. The project itself is installed
# without build isolation: its build backend is in the lock file too.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Perdure needs Python 3.11 or later; name one with: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(RUN) pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(INSTALLED) ## Run an order through bugs, crashes and a killed server, and show its history
	$(RUN) examples.orders

test: $(INSTALLED) ## Run the tests
	$(PYTEST_PARALLEL) $(PYTEST_ARGS)

lint: $(INSTALLED) ## Check formatting, lint, types and import contracts
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(VENV)/bin/lint-imports

check: lint test ## Do what CI does

format: $(INSTALLED) ## Format the code and mend what can be mended
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

faults: $(INSTALLED) ## Run the store's suite on PostgreSQL with every fault at every statement
	PERDURE_TEST_FAULTS=all $(RUN) pytest tests/server/store $(PYTEST_ARGS)

simulate: $(INSTALLED) ## Run the deterministic simulation on many seeds (SEEDS=5000)
	PERDURE_SIMULATION_SEEDS=$(SEEDS) $(PYTEST_PARALLEL) --timeout=0 tests/simulation $(PYTEST_ARGS)

soak: $(INSTALLED) ## Let nodes and databases fail under load many times (FAULTS=400)
	PERDURE_CLUSTER_FAULTS=$(FAULTS) $(RUN) pytest tests/crash/test_cluster.py $(PYTEST_ARGS)

bench: $(INSTALLED) ## Measure what docs/performance.md reports
	$(RUN) benchmarks

lock: ## Write requirements.lock anew; LOCK_ARGS=--upgrade takes newer versions
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lock/bin/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.lock --quiet $(LOCK_ARGS)

clean: ## Remove the virtual environment and all caches
	rm -rf $(VENV) .venv-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
