# What a user does with the lab; 'make help' lists it. Variables, all optional:
#   PYTHON=python3.12    the interpreter that makes the environment
#   VENV=.venv           where the environment goes
#   TORCH_INDEX=URL      index for torch alone, such as https://download.pytorch.org/whl/cpu,
#                        which spares a Linux machine without a GPU the CUDA libraries

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
MODEL ?= smollm2-135m

BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
OFFLINE = HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1
RUNS = tests/notebooks/test_runs.py

.PHONY: help install demo test notebooks docs lab lint bench constraints clean

help:
	@echo "make demo         locate, edit, audit and export one fact on a real model"
	@echo "make test         the test suite, offline once installed"
	@echo "make notebooks    every notebook from top to bottom on the pocket model"
	@echo "make docs         the site, into docs/build/html; nothing is fetched"
	@echo "make lab          open JupyterLab on notebooks/"
	@echo "make install      environment in $(VENV) and the default model, once"
	@echo "make lint         ruff and mypy"
	@echo "make bench        the timings of LOG.md"
	@echo "make constraints  write the installed versions to constraints.txt"
	@echo "make clean        remove the environment and all build products"

# Reinstalls only when the project's dependencies change.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 15))' || \
	  { echo "Python 3.11 to 3.14 is needed; '$(PYTHON)' is not: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[dev]'
	@touch $@

install: $(STAMP)
	$(BIN)/labkit fetch $(MODEL)

demo: install
	$(OFFLINE) $(BIN)/labkit demo

# Two processes with a thread each: most of the suite is Python, which does not share cores.
test: install
	$(OFFLINE) $(BIN)/python -m pytest -n 2 --dist worksteal --ignore $(RUNS)

notebooks: install
	$(OFFLINE) $(BIN)/python -m pytest -n 2 --dist load $(RUNS)

# On the pocket model it takes minutes; 'make docs MODEL=smollm2-135m' is the real thing.
docs: install
	$(OFFLINE) LABKIT_SITE_MODEL=$(if $(filter file,$(origin MODEL)),pocket,$(MODEL)) \
	  $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/build/html
	@echo "open docs/build/html/index.html"

lab: install
	$(BIN)/jupyter lab notebooks

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(OFFLINE) $(BIN)/python -m tests.benchmarks.core
	$(OFFLINE) $(BIN)/python -m tests.benchmarks.locate
	$(OFFLINE) $(BIN)/python -m tests.benchmarks.editing

constraints: $(STAMP)
	{ grep '^#' constraints.txt; \
	  $(BIN)/python -m pip freeze --all --exclude-editable --exclude pip \
	    | sed -e 's/+[A-Za-z0-9.]*$$//' -e '/^nvidia-/d' -e '/^triton/d' -e '/^cuda-/d'; \
	} > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build docs/build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find labkit probes editing tests notebooks -name __pycache__ -type d -prune -exec rm -rf {} +
