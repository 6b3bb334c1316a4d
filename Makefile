# Every target sets up what it needs in .venv; Python 3.11 or later and make are all that must be there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast check lint types clean

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: $(VENV)/ready   ## train on 2,624 solar cells and print the score beside the published ones
	$(BIN)/topwork demo --out runs/demo --overwrite

test: $(VENV)/ready   ## all tests
	$(BIN)/python -m pytest

test-fast: $(VENV)/ready   ## all but the slow ones
	$(BIN)/python -m pytest -m "not slow"

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/ready
	$(BIN)/mypy

check: lint types test   ## what CI runs

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache
