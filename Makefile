# sqkit: make alone prints help. Every target works as the first command on a new machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGET := $(BIN)/python -m sqkit.research.maketargets
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
CHAOS_SECONDS ?= 300
NAUTILUS := .venv-nautilus
export VERSION SYMBOLS START END MODEL_TYPE REASON SLOT DAYS CHAOS_SECONDS

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-nautilus lab train validate checklist report dashboard \
	dashboard-static promote rollback demo tour test test-fast chaos lint bench clean

help: ## print this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python $(NAUTILUS)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) or sys.version_info >= (3, 14))' || \
		{ echo "sqkit needs Python 3.11 to 3.13; run: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/.research: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sqkit with its research room into $(VENV) (about a minute)"
	@PIP_CONSTRAINT=constraints.txt $(INSTALL) -e '.[research]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing sqkit with everything the tests need into $(VENV) (about two minutes)"
	@PIP_CONSTRAINT=constraints.txt $(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.research

$(NAUTILUS)/.base: pyproject.toml constraints-nautilus.txt | $(NAUTILUS)/bin/python
	@echo "installing nautilus_trader and sqkit's base install into $(NAUTILUS) (about a minute)"
	@PIP_CONSTRAINT=constraints-nautilus.txt $(NAUTILUS)/bin/python -m pip install --disable-pip-version-check \
		--quiet -c constraints-nautilus.txt nautilus_trader -e .
	@touch $@

setup: $(VENV)/.research ## install sqkit and its research room into .venv

setup-dev: $(VENV)/.dev ## install what tests, lint and benchmarks need as well

setup-nautilus: $(NAUTILUS)/.base ## what docs/examples/nautilus_strategy.py needs, in an environment of its own

demo: setup ## the main job on the bundled bars: train, validate, report, decide
	@$(TARGET) demo

lab: setup ## explore the notebooks in JupyterLab
	@$(BIN)/jupyter lab notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

train: setup ## train teacher and student (SYMBOLS="..." START= END= VERSION= MODEL_TYPE=)
	@$(TARGET) train

validate: setup ## judge a student out of sample and write its report (VERSION= SYMBOLS="..." START= END=)
	@$(TARGET) validate

checklist: setup ## decide again from a student's stored artifacts (VERSION=)
	@$(TARGET) checklist

report: setup ## rebuild the index of all reports and say what the newest decided
	@$(TARGET) report

dashboard-static: setup ## how the live model does now, as a page under reports/live (SLOT= DAYS=)
	@$(TARGET) dashboard-static

dashboard: setup ## the same, served live in the browser by Voila until interrupted
	@$(TARGET) dashboard

promote: setup ## put an approved student into production (VERSION=)
	@$(TARGET) promote

rollback: setup ## go back to the release before the present one (REASON="...")
	@$(TARGET) rollback

tour: setup ## a planted market through the whole loop, up to an automatic rollback (under three minutes)
	@$(BIN)/python -m sqkit.cli.tour

test: setup-dev lint ## lint, then every test
	@$(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: setup-dev ## the tests that take less than five seconds each
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

chaos: setup-dev ## kill promotions and rollbacks at random moments (CHAOS_SECONDS=300)
	@$(BIN)/python -m pytest tests/chaos_promotion.py --timeout 0

lint: setup-dev ## ruff, mypy, import contracts, notebooks stored without outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports
	@$(BIN)/python -m sqkit.research.notebooks check notebooks/*.ipynb

bench: setup-dev ## measure; every benchmark prints one JSON object
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script --json; done

clean: ## remove caches and the virtual environments, never data or reports
	@rm -rf $(VENV) $(NAUTILUS) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
