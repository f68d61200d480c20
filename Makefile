# Two commands, each doing all its own set-up: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo test lint types floors docs check package lowest clean

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

package: $(VENV)/.check  ## build the wheel, and try it in an environment of its own
	$(BIN)/python tests/packaging/try_wheel.py

lowest: $(BIN)/python  ## the tests with the lowest versions of dependencies that are allowed
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)-lowest
	$(BIN)/uv pip install --quiet --python $(VENV)-lowest/bin/python --resolution lowest-direct '.[test]'
	$(VENV)-lowest/bin/python -m pytest -o filterwarnings=default

clean:
	rm -rf $(VENV) $(VENV)-lowest site $(DEMO)

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
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,docs,package]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
