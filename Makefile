# Skerry: every command a contributor or CI needs. `make` prints this list.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
JOBS ?= 2
export ORT_DISABLE_TELEMETRY := 1

.DEFAULT_GOAL := help

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | awk -F ':.*  ## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml requirements/dev.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

venv: $(VENV)/.installed  ## Create .venv with the locked dependencies

demo: venv  ## The main job on real input: train, pack, sign, roll out, break, undo (about 90 s)
	@$(BIN)/skerry demo

test: venv  ## Every test
	$(BIN)/python -m pytest -n $(JOBS)

test-fast: venv  ## The inner loop: units and contracts, no real processes
	$(BIN)/python -m pytest -n $(JOBS) -m "not slow" tests/unit tests/contracts

check: venv  ## Format, lint, types, import contracts, size gates, device closure
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/architecture
	@cat build/device-figures.txt

format: venv  ## Rewrite the code in house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: venv  ## Print the measured figures, each against a floor of the same run (many minutes; installs peers once)
	@for script in benchmarks/bench_*.py "benchmarks/serving.py --quick"; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lock: venv  ## Resolve the dependencies anew and write requirements/*.lock
	$(BIN)/python scripts/lock.py

clean:  ## Remove what the other targets made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

.PHONY: help venv demo test test-fast check format bench lock clean
