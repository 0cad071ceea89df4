# `make train` and `make test` set up what they need: a .venv with pinned dependencies.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
QUICK := tests/test_batch.py tests/test_walls.py tests/envs tests/networks tests/returns tests/rollouts tests/learner \
	$(addprefix --ignore=tests/,rollouts/test_pool.py learner/test_hogwild.py \
	envs/test_single.py envs/test_shared_statistics.py envs/test_watchdog.py)

.PHONY: train test test-quick test-faults lint types docs format bench

train: $(INSTALLED)
	$(BIN)/python scripts/train.py $(ARGS)

# Four at a time: many tests wait for other processes. ARGS may name tests, which alone are run then.
test: $(INSTALLED)
	$(BIN)/python -m pytest -n 4 --dist worksteal $(ARGS)

# For between two edits: the rooms that a worker sees, but for what mostly waits for processes.
test-quick: $(INSTALLED)
	$(BIN)/python -m pytest $(QUICK) -n 2 $(ARGS)

# Four at a time: these tests mostly wait for other processes.
test-faults: $(INSTALLED)
	$(BIN)/python -m pytest tests/faults -n 4 --dist worksteal $(ARGS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

# The site, in site/; a warning or a broken link fails it.
docs: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/python docs/assemble.py
	$(BIN)/zensical build --clean --strict

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python scripts/benchmark.py $(ARGS)

# torch first, and pinned: asked for in any other way, pip may fetch another build with gigabytes of CUDA.
$(INSTALLED): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with pinned dependencies: some minutes, this once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev,box2d,atari,mujoco,onnx]'
	touch $@
