# `make help` lists what there is. Overrides follow: make train freezing=gradual seed=3. Those that begin with - + or ~, or
# hold quotes, go into ARGS: make train ARGS="-m seed=1,2,3".
VENV ?= .venv
PYTHON ?= python3
DEST ?= ..
ARGS ?=
# What was typed as key=value is a variable to make; a space within it comes as "\ ".
SPACE := $() $()
TYPED := $(filter-out ARGS=% VENV=% PYTHON=% NAME=% DEST=%,$(subst \$(SPACE),?,$(MAKEOVERRIDES)))
override ARGS += $(subst ?,\$(SPACE),$(TYPED))
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WANTED := --quiet -c constraints.txt -e ".[dev]"
# uv is faster, where it is there. It does not read the settings of pip, such as another index: then pip does it.
UV := $(if $(shell command -v uv),uv pip install --python $(BIN)/python $(WANTED) ||)

.DEFAULT_GOAL := help
.PHONY: help install train evaluate replay check predict export report summary soup doctor board cache sweep new test test-all lint format types clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(INSTALLED)  ## make .venv and install thaw with its tools; VENV=<folder> for another place

# Once per set of requirements. A virtual environment that serves several clones imports the clone that is used: see PYTHONPATH.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: thaw needs Python 3.10 or newer: type make PYTHON=python3.12 $(MAKECMDGOALS)")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(UV) { $(BIN)/python -m pip install --quiet --upgrade pip && $(BIN)/python -m pip install $(WANTED); }
	@touch $@

export PYTHONPATH := $(CURDIR)/src

train: install  ## train; data=... backbone=... freezing=...
	$(BIN)/python -m thaw.train $(ARGS)

check: install  ## look through data first; data=image_folder data.root=...
	$(BIN)/python -m thaw.check $(ARGS)

predict: install  ## classify images or texts; run=runs/... input=...
	$(BIN)/python -m thaw.predict $(ARGS)

export: install  ## a file to give away; run=runs/... format=onnx
	$(BIN)/python -m thaw.export $(ARGS)

report: install  ## write report.html of a run again; run=runs/...
	$(BIN)/python -m thaw.report $(ARGS)

summary: install  ## compare the trials of a sweep, also while it runs; folder=runs/...
	$(BIN)/python -m thaw.summary $(ARGS)

soup: install  ## average the weights of a sweep's trials; folder=runs/...
	$(BIN)/python -m thaw.soup $(ARGS)

doctor: install  ## look at this machine, and at what a run would wait for; data=... backbone=...
	$(BIN)/python -m thaw.doctor $(ARGS)

board: install  ## TensorBoard on all runs, at the address that it prints
	$(BIN)/tensorboard --logdir runs $(ARGS)

cache: install  ## what frozen stages computed and is kept; budget_gb=2 makes room
	$(BIN)/python -m thaw.cache $(ARGS)

evaluate: install  ## measure a finished run again; run=runs/...
	$(BIN)/python -m thaw.evaluate $(ARGS)

replay: install  ## run the step again that a run failed in; run=runs/...
	$(BIN)/python -m thaw.replay $(ARGS)

sweep: install  ## every combination, with a table at the end; optimizer.lr=1e-3,3e-3 seed=1,2
	$(BIN)/python -m thaw.train -m $(or $(ARGS),sweep=plans)

new: install  ## a project of your own, in DEST/NAME; NAME=my_project DEST=.. kind=whole
	$(BIN)/python -m thaw.new $(addprefix name=,$(NAME)) dest=$(DEST) $(ARGS)

test: lint types  ## format, lint and types, then the tests of the default tier, one of them on each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-all: lint types  ## the same with the whole commands, end to end
	$(BIN)/python -m pytest -m "not cluster"

test-cluster: install  ## trials on SLURM, Ray, joblib and submitit, each of which is skipped where it is not installed
	$(BIN)/python -m pytest -m cluster

lint: install  ## format, lint, the order of the rooms, and no code that could run a stranger's
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet --noconftest tests/test_unsafe.py

format: install  ## make it so
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: install  ## type-check
	$(BIN)/mypy

clean:  ## remove caches; runs and the virtual environment stay
	rm -rf .pytest_cache .ruff_cache .mypy_cache .hypothesis src/*.egg-info build
	find src tests scripts \( -name __pycache__ -o -name .ruff_cache \) -prune -exec rm -rf {} +
