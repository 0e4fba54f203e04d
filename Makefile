# Everything a contributor runs. Needs python3 (3.11 or newer) with venv, and a package index; nothing installed by hand.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A second interpreter, of another minor version than the first. A name on PATH proves nothing (a pyenv shim may
# refuse to run), so each candidate has to say its version.
minor = $(shell $(1) -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
candidates := python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) \
              $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python)
SECOND ?= $(firstword $(foreach python,$(candidates),\
              $(if $(filter-out $(call minor,$(PYTHON)),$(call minor,$(python))),$(python))))
SECOND_VENV = .venv-$(call minor,$(SECOND))

# Test files on two processes at a time; SPREAD= runs them one after the other.
SPREAD ?= -n 2 --dist loadfile --max-worker-restart 0

# Hypothesis draws more examples where CI=true says so.
export HYPOTHESIS_PROFILE ?= $(if $(filter true,$(CI)),ci,dev)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

say_interpreter = $(1) -c 'import sys; print("==> tests on Python", sys.version.split()[0], "with the", "$(HYPOTHESIS_PROFILE)", "profile")'

.PHONY: help demo test test-second test-stores test-stores-second test-slurm test-hosts test-kubernetes test-services lint types layers check laws mutants bench bench-quick bench-targets bench-floor bench-growth bench-planning bench-cluster bench-dataframes bench-remote clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 20

demo: $(VENV)/.demo  ## Run the documented first scan, docs/demo.py
	$(BIN)/python docs/demo.py

test: $(VENV)/.installed  ## Run the tests (ARGS="-k name" narrows them)
	@$(call say_interpreter,$(BIN)/python)
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

test-second:  ## Run the tests on a second interpreter, where there is one
ifneq ($(SECOND),)
	@$(MAKE) --no-print-directory $(SECOND_VENV)/.installed
	@$(call say_interpreter,$(SECOND_VENV)/bin/python)
	$(SECOND_VENV)/bin/python -m pytest $(SPREAD) $(ARGS)
else
	@echo "==> no second interpreter (3.12 or 3.13) here: tests ran on one only"
endif

test-stores: $(VENV)/.stores  ## Run the tests that need an S3 server and nginx, which they start
	@$(call say_interpreter,$(BIN)/python)
	$(BIN)/python -m pytest -m stores $(SPREAD) $(ARGS) tests/services/stores

test-stores-second:  ## The same on a second interpreter, where there is one
ifneq ($(SECOND),)
	@$(MAKE) --no-print-directory $(SECOND_VENV)/.stores
	@$(call say_interpreter,$(SECOND_VENV)/bin/python)
	$(SECOND_VENV)/bin/python -m pytest -m stores $(SPREAD) $(ARGS) tests/services/stores
endif

lint: $(VENV)/.installed  ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed  ## Check types
	$(BIN)/mypy

layers: $(VENV)/.installed  ## Check which module imports which
	$(BIN)/lint-imports

test-slurm: $(VENV)/.installed  ## Run the tests on a SLURM, which they install and start; needs root on Debian or Ubuntu
	$(BIN)/python -m pytest -m slurm --durations=5 $(ARGS) tests/services/test_slurm.py

test-hosts: $(VENV)/.installed  ## Run the tests on network namespaces as hosts; needs root
	$(BIN)/python -m pytest -m hosts $(ARGS) tests/services/test_hosts.py

test-kubernetes: $(VENV)/.stores  ## Run the tests on a Kubernetes; needs root on Debian 12, and ten minutes to build it the first time
	bash cluster/kubernetes/build.sh .cluster/kubernetes/bin
	$(BIN)/python -m pytest -m kubernetes -o timeout=600 -o faulthandler_timeout=700 -s $(ARGS) tests/services/test_kubernetes.py

# In CI they have to run. Elsewhere it takes root and apt, and who has not got them is told what is left out.
test-services:
ifneq ($(or $(filter true,$(CI)),$(shell [ "$$(id -u)" = 0 ] && command -v apt-get)),)
	@$(MAKE) --no-print-directory test-slurm test-hosts
else
	@echo "==> left out: the tests on SLURM and on several hosts, which take root on Debian or Ubuntu (make test-slurm test-hosts)"
endif

check: lint types layers test test-second test-stores test-stores-second test-services  ## All of the above but demo: what CI runs

laws: $(VENV)/.installed  ## The laws of selecting and planning at 5,000 examples (minutes)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest $(SPREAD) -o timeout=0 -o faulthandler_timeout=0 --durations=10 tests/indexing/test_selection.py \
	    tests/planning/test_predicate.py tests/planning/test_plan.py $(ARGS)

mutants: $(VENV)/.installed  ## Put faults into a copy of the planner, and see which test sees each (minutes)
	$(BIN)/python -m tests.support.mutants $(ARGS)

bench: .venv-bench/.installed  ## Time and memory beside rainbear, xarray-sql and xarray, whole stores (half an hour), with pictures
	.venv-bench/bin/python -m benchmarks.run --plots benchmarks $(ARGS)

bench-quick: .venv-bench/.installed  ## The same on smaller stores (three minutes), and chunks read by form of question
	.venv-bench/bin/python -m benchmarks.run --quick --rounds 2 $(ARGS)
	.venv-bench/bin/python -m benchmarks.predicate_forms

bench-targets: .venv-bench/.installed  ## The four layouts beside rainbear alone, and which targets are reached (ten minutes)
	.venv-bench/bin/python -m benchmarks.run --suite layouts --reader rainbear $(ARGS)

bench-floor: .venv-bench/.installed  ## Scans in units of the time to read and decode their chunks, by layout and codec (five minutes)
	.venv-bench/bin/python -m benchmarks.floor $(ARGS)

bench-growth: .venv-bench/.installed  ## How time grows with rows, chunks and variables: slopes, and a picture (two minutes)
	.venv-bench/bin/python -m benchmarks.growth --plot benchmarks/growth.svg

bench-planning: $(VENV)/.installed  ## Time and memory of planning, on stores of up to 100 M chunks (half a minute)
	$(BIN)/python -m benchmarks.planning

bench-cluster: .venv-bench/.installed  ## A cluster of two processes: speed, a late store, memory while 20 GB stream (20 minutes)
	.venv-bench/bin/python -m benchmarks.cluster
	.venv-bench/bin/python -m benchmarks.latency
	.venv-bench/bin/python -m benchmarks.streaming

bench-dataframes: .venv-bench/.installed  ## Dask DataFrames beside xarray's, on a cluster of two processes (ten minutes; ARGS=--quick: three)
	.venv-bench/bin/python -m benchmarks.dataframes $(ARGS)

bench-remote: $(VENV)/.stores  ## An S3 server that answers late: seconds, requests, share of the ideal (three minutes)
	$(BIN)/python -m benchmarks.remote

clean:  ## Remove environments, caches and builds
	rm -rf .cluster .venv .venv-3.* .venv-bench .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# CMIP6 files that the tests read; without the package's own reader of them, which needs iris, GEOS and PROJ.
TEST_FILES := 'esmvaltool-sample-data>=0.0.4'

# The stamp is newer than pyproject.toml exactly when what it asks for is installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq -e '.[test,dev]'
	$(BIN)/python -m pip install -qq --no-deps $(TEST_FILES)
	@touch $@

.PRECIOUS: .venv-3.%/.installed
.venv-3.%/.installed: pyproject.toml
	$(SECOND) -m venv --clear .venv-3.$*
	.venv-3.$*/bin/python -m pip install -qq -e '.[test]'
	.venv-3.$*/bin/python -m pip install -qq --no-deps $(TEST_FILES)
	@touch $@

$(VENV)/.stores: $(VENV)/.installed
	$(BIN)/python -m pip install -qq -e '.[stores]'
	@touch $@

.venv-3.%/.stores: .venv-3.%/.installed
	.venv-3.$*/bin/python -m pip install -qq -e '.[stores]'
	@touch $@

$(VENV)/.demo: $(VENV)/.installed
	$(BIN)/python -m pip install -qq -e '.[demo]'
	@touch $@

# rainbear needs Python 3.12: the second interpreter, if there is one, else the only one, perhaps without rainbear.
.venv-bench/.installed: pyproject.toml
	$(or $(SECOND),$(PYTHON)) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install -qq -e '.[bench]'
	@touch $@
