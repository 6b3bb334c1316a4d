# Every target sets up what it needs in .venv; Python 3.11.4 or later and make are all that must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The original tensorflow_hub, for the tests that hand it our modules: it can't live beside Keras 3.
TFHUB_VENV ?= .venv-tfhub
export TOPWORK_TFHUB_PYTHON ?= $(abspath $(TFHUB_VENV))/bin/python

.PHONY: demo bench extras test test-fast check lint types clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

$(VENV)/demo-ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(TFHUB_VENV)/ready: tests/requirements-tfhub.txt
	$(PYTHON) -m venv $(TFHUB_VENV)
	$(TFHUB_VENV)/bin/python -m pip install --quiet --upgrade pip
	$(TFHUB_VENV)/bin/python -m pip install --quiet --requirement tests/requirements-tfhub.txt
	touch $@

demo: $(VENV)/demo-ready   ## train on 2,624 solar cells and print the score beside the published ones
	$(BIN)/topwork demo --out runs/demo --overwrite

bench: $(VENV)/ready   ## the README's figures, measured and written; QUICK=1 prints some in five minutes
	$(BIN)/python -m benchmarks.figures $(if $(QUICK),--quick)
	$(BIN)/python -m benchmarks.speed.growth --quick

test: $(VENV)/ready $(TFHUB_VENV)/ready   ## all tests, each file by one of two processes
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: $(VENV)/ready $(TFHUB_VENV)/ready   ## all but the slow ones
	$(BIN)/python -m pytest -m "not slow"

extras:   ## each extra alone in an environment of its own, and what the docs say it is for; EXTRAS="core serve" for some
	$(PYTHON) tests/extras.py $(EXTRAS)

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test   ## what CI runs

clean:
	rm -rf $(VENV) $(TFHUB_VENV) build dist .pytest_cache .ruff_cache .mypy_cache
