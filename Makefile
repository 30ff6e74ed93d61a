# make setup   the environment in .venv (first time four minutes: MMCV's operators are compiled)
# make demo    the whole path on demo data, on a CPU: data, training, submission, both evaluators, report
# make test    all tests
# make lint    ruff and mypy
# make gpu-check  on a machine with a GPU: what needs one, and how fast training and testing are there
# make parity  thousands of generated cases against the official evaluator
# An environment that is there keeps its Python.
PYTHON ?= $(shell for name in "$$(readlink -f .venv/bin/python)" \
	python3.11 python3.12 python3.13 python3.10 python3; do \
	$$name -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& echo $$name && break; done)
VENV_PYTHON := .venv/bin/python
CASES ?= 2000

.PHONY: setup demo test lint parity gpu-check
.DEFAULT_GOAL := setup

setup:
	@test -n "$(PYTHON)" || { echo 'error: no Python 3.10 to 3.13 is found; uv gets one without' \
	'root: uv python install 3.11, then make setup PYTHON="$$(uv python find 3.11)"'; exit 1; }
	@$(PYTHON) tools/setup_environment.py

demo: setup
	@$(VENV_PYTHON) tools/demo.py

test: setup
	@$(VENV_PYTHON) -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: setup
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m mypy

parity: setup
	@$(VENV_PYTHON) -m tests.evaluation.parity_cases --cases $(CASES)

# Operators for the GPU are compiled by setup where there is one and torch is a CUDA build.
gpu-check: setup
	@$(VENV_PYTHON) -c "import torch; torch.cuda.is_available() or exit('error: no GPU here, or torch is the CPU build')"
	@$(VENV_PYTHON) -m pytest -m gpu
	@$(VENV_PYTHON) benchmarks/train_speed.py --arms stock ours fast recipe recipe-fast
	@$(VENV_PYTHON) benchmarks/rpn_speed.py
	@$(VENV_PYTHON) benchmarks/mask_head_speed.py
	@$(VENV_PYTHON) benchmarks/test_time_gpu.py
