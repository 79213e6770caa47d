# `make search` and `make test` each need nothing but Python 3.11 or newer and a network to install from.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup search test test-lowest lint audit benchmark clean

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

# The suite with the oldest releases that pyproject.toml allows; torch's are some 3 GB.
test-lowest:
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --python .venv-lowest/bin/python --resolution lowest-direct --editable ".[dev]"
	.venv-lowest/bin/python -m pytest -o filterwarnings=default # old releases warn of each other

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry .

# Known vulnerabilities of what is installed; asks the index's advisories, and fails where it has none of a package.
audit: setup
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	$(BIN)/python -m pip freeze --exclude-editable > .venv-audit/installed.txt
	.venv-audit/bin/pip-audit --strict --disable-pip --no-deps --requirement .venv-audit/installed.txt

benchmark: setup
	$(BIN)/python -m benchmarks.basics

clean:
	rm -rf .venv .venv-lowest .venv-audit build dist .pytest_cache .mypy_cache .ruff_cache .coverage
