# make demo: watch the whole system work. make test: lint, types and tests.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test
demo: .venv/installed
	$(BIN)/python tools/demo.py

test: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

.venv/installed: setup.py
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
