# Two commands, each doing all its own set-up: make demo, make test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
# In compat mode the package is found from the folder above a clone as well, where the clone's own name,
# vitlens, would otherwise be taken for an empty package.
INSTALL := $(BIN)/python -m pip install --quiet --config-settings editable_mode=compat --editable
# One thread each: the tests' models are tiny.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadscope

.PHONY: demo test lint types floors docs check package lowest clean

demo: $(VENV)/.demo  ## the main job on scikit-learn's digits: train, fine-tune, compare, report
	$(BIN)/python examples/compare_checkpoints.py --output $(DEMO)

test: $(VENV)/.test  ## the tests
	$(TESTS)

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
	$(TESTS:$(BIN)/%=$(VENV)-lowest/bin/%) -o filterwarnings=default

clean:
	rm -rf $(VENV) $(VENV)-lowest site $(DEMO)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "vitlens needs Python 3.11 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@echo 'installing vitlens and what it needs into $(VENV), once: torch alone can be some gigabytes'
	$(INSTALL) '.[digits]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@echo 'installing vitlens, what it needs and its tests into $(VENV), once'
	$(INSTALL) '.[test]'
	@touch $@ $(VENV)/.demo

$(VENV)/.check: pyproject.toml | $(BIN)/python
	$(INSTALL) '.[test,lint,docs,package]'
	@touch $@ $(VENV)/.test $(VENV)/.demo
