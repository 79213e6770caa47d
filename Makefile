# `make search` and `make test` each need nothing but Python 3.11 or newer and a network to install from.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup search test lint benchmark clean

setup: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,examples]"
	touch $@

search: setup
	$(BIN)/evoloss search --dataset digits

test: setup
	$(BIN)/python -m pytest --cov --cov-report=term --cov-fail-under=90

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

benchmark: setup
	$(BIN)/python -m benchmarks.basics

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .coverage
