# make setup   the environment in .venv (first time 15 to 20 minutes: MMCV's operators are compiled)
# make demo    the whole path on demo data, on a CPU: data, training, submission, both evaluators, report
# make test    all tests
# make lint    ruff and mypy
# make parity  thousands of generated cases against the official evaluator
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV_PYTHON := .venv/bin/python
CASES ?= 2000

.PHONY: setup demo test lint parity
.DEFAULT_GOAL := setup

setup:
	@$(PYTHON) tools/setup_environment.py

demo: setup
	@$(VENV_PYTHON) tools/demo.py

test: setup
	@$(VENV_PYTHON) -m pytest

lint: setup
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

parity: setup
	@$(VENV_PYTHON) -m tests.evaluation.parity_cases --cases $(CASES)
