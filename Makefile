# Two commands, each doing all its own set-up: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test setup lint types floors docs check clean

demo: $(VENV)/.demo  ## the main job on scikit-learn's digits: train, fine-tune, compare, report
	$(BIN)/python examples/compare_checkpoints.py --output $(DEMO)

test: $(VENV)/.test  ## the tests
	$(BIN)/python -m pytest

lint: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.check
	$(BIN)/mypy

floors: $(VENV)/.check
	$(BIN)/lint-imports

docs: $(VENV)/.check
	$(BIN)/mkdocs build --strict

check: lint types floors docs  ## everything besides the tests

clean:
	rm -rf $(VENV) site $(DEMO)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "vitlens needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[digits]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,docs]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
