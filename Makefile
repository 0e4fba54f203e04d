# All commands of a contributor. They need python3 (3.11 or newer) with venv, and a package index.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A second interpreter with another minor version. A name on PATH proves nothing, because a pyenv shim may refuse to
# run. So each candidate must report its version.
minor = $(shell $(1) -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
candidates := python3.13 python3.12 $(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python) \
              $(wildcard $(HOME)/.pyenv/versions/3.12.*/bin/python)
SECOND ?= $(firstword $(foreach python,$(candidates),\
              $(if $(filter-out $(call minor,$(PYTHON)),$(call minor,$(python))),$(python))))
SECOND_VENV = .venv-$(call minor,$(SECOND))

# Two processes run test files at a time. SPREAD= runs the files one after the other.
SPREAD ?= -n 2 --dist loadfile --max-worker-restart 0

# Hypothesis draws more examples if CI=true.
export HYPOTHESIS_PROFILE ?= $(if $(filter true,$(CI)),ci,dev)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# What depends most on the versions of Polars, zarr and NumPy.
CORE := tests/chunks tests/coding tests/indexing tests/planning tests/query tests/scan/test_scan.py tests/table

say_interpreter = $(1) -c 'import sys; print("==> tests on Python", sys.version.split()[0], "with the", "$(HYPOTHESIS_PROFILE)", "profile")'

.PHONY: help demo docs test test-second test-stores test-stores-second test-slurm test-hosts test-kubernetes test-services test-lowest test-upstream package workflows lint types layers check laws mutants bench bench-quick bench-targets bench-floor bench-engine bench-queries bench-groups bench-growth bench-guard bench-many bench-memory bench-planning bench-cluster bench-dataframes bench-points bench-regions bench-remote bench-sql bench-statistics bench-writing clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1\t/' | expand -t 20

demo: .venv-demo/.installed  ## Run the demo: a first scan on real data (docs/demo.py)
	.venv-demo/bin/python docs/demo.py

test: $(VENV)/.installed  ## Run the tests (ARGS="-k name" narrows them)
	@$(call say_interpreter,$(BIN)/python)
	$(BIN)/python -m pytest $(SPREAD) $(ARGS)

# The laws draw more examples on the first interpreter alone: they depend on the packages, not on Python.
test-second: export HYPOTHESIS_PROFILE := dev
test-second:  ## Run the tests on a second interpreter, if one exists
ifneq ($(SECOND),)
	@$(MAKE) --no-print-directory $(SECOND_VENV)/.installed
	@$(call say_interpreter,$(SECOND_VENV)/bin/python)
	$(SECOND_VENV)/bin/python -m pytest $(SPREAD) $(ARGS)
else
	@echo "==> skipped: no second interpreter (3.12 or 3.13) found, so the tests ran on one"
endif

test-stores: $(VENV)/.stores  ## Run the tests against servers of S3, Google, Azure and nginx, which they start
	@$(call say_interpreter,$(BIN)/python)
	$(BIN)/python -m pytest -m stores $(SPREAD) $(ARGS) tests/services/stores

test-stores-second:  ## The same on a second interpreter, if one exists
ifneq ($(SECOND),)
	@$(MAKE) --no-print-directory $(SECOND_VENV)/.stores
	@$(call say_interpreter,$(SECOND_VENV)/bin/python)
	$(SECOND_VENV)/bin/python -m pytest -m stores $(SPREAD) $(ARGS) tests/services/stores
endif

lint: $(VENV)/.installed  ## Check style and prose
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.support.prose

types: $(VENV)/.installed  ## Check types
	$(BIN)/mypy

layers: $(VENV)/.installed  ## Check that modules import downwards only
	$(BIN)/lint-imports

docs: .venv-docs/.installed  ## Build the site into site/, and run every example of its pages (minutes)
	.venv-docs/bin/python docs/hooks/build.py .docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet
	@echo "==> python3 -m http.server -d site"

test-slurm: $(VENV)/.installed  ## Run the tests on a SLURM, which they install and start (root on Debian or Ubuntu)
	$(BIN)/python -m pytest -m slurm --durations=5 $(ARGS) tests/services/test_slurm.py

test-hosts: $(VENV)/.installed  ## Run the tests on network namespaces as hosts (root)
	$(BIN)/python -m pytest -m hosts $(ARGS) tests/services/test_hosts.py

test-kubernetes: $(VENV)/.stores  ## Run the tests on a Kubernetes (root on Debian 12; the first build takes ten minutes)
	bash cluster/kubernetes/build.sh .cluster/kubernetes/bin
	$(BIN)/python -m pytest -m kubernetes -o timeout=600 -o faulthandler_timeout=700 -s $(ARGS) tests/services/test_kubernetes.py

# CI must run them. Elsewhere they need root and apt, and the target reports if it skips them.
test-services:
ifneq ($(or $(filter true,$(CI)),$(shell [ "$$(id -u)" = 0 ] && command -v apt-get)),)
	@$(MAKE) --no-print-directory test-slurm test-hosts
else
	@echo "==> skipped: the tests on SLURM and on several hosts need root on Debian or Ubuntu (make test-slurm test-hosts)"
endif

test-lowest: .venv-lowest/.installed  ## Run the core tests with the oldest version of each dependency that pyproject.toml allows
	HYPOTHESIS_PROFILE=dev .venv-lowest/bin/python -m pytest $(SPREAD) $(ARGS) $(CORE)

test-upstream: .venv-tools/.installed  ## Run the tests with the newest versions, also those before a release
	$(PYTHON) -m venv --clear .venv-upstream
	.venv-tools/bin/uv pip install -q --python .venv-upstream/bin/python --prerelease allow -e '.[all]' --group test
	.venv-upstream/bin/python -m pip install -qq --no-deps $(TEST_FILES)
	.venv-upstream/bin/python -m pytest $(SPREAD) $(ARGS)

package: .venv-tools/.installed  ## Build wheel and sdist, check them, and query the sample with the wheel alone
	rm -rf dist
	.venv-tools/bin/python -m build --outdir dist . > /dev/null
	.venv-tools/bin/twine check --strict dist/*
	$(PYTHON) -m venv --clear .venv-package
	.venv-package/bin/python -m pip install -qq dist/*.whl
	cd dist && ../.venv-package/bin/rainbear-dask --version
	cd dist && ../.venv-package/bin/python -c 'import rainbear_dask as rd; print(rd.open_sample("sst.zarr").head(3).collect())'

workflows: .venv-tools/.installed  ## Check the forge's workflows and the citation, without a network
	.venv-tools/bin/zizmor --offline --quiet .github
	.venv-tools/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	.venv-tools/bin/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

CHECKS := lint types layers workflows test test-second test-lowest test-stores test-stores-second test-services docs package bench-guard

check:  ## Run all checks and tests but the demo and Kubernetes, and tell the minutes of each: CI runs this
	@began=$$SECONDS; times=; for target in $(CHECKS); do \
	    start=$$SECONDS; $(MAKE) --no-print-directory $$target; \
	    times+=$$(printf '%5.1f  %s' "$$((10 * (SECONDS - start) / 60))e-1" $$target)$$'\n'; \
	done; printf '==> minutes\n%s%5.1f  in total\n' "$$times" "$$((10 * (SECONDS - began) / 60))e-1"

laws: $(VENV)/.installed  ## Run the laws on 5,000 examples, of output on 1,000 (many minutes)
	HYPOTHESIS_PROFILE=long $(BIN)/python -m pytest $(SPREAD) -o timeout=0 -o faulthandler_timeout=0 --durations=10 tests/indexing/test_selection.py \
	    tests/planning/test_predicate.py tests/planning/test_plan.py \
	    tests/planning/test_intervals.py tests/scan/test_statistics.py \
	    tests/geo/test_expressions.py tests/regions/test_zonal.py tests/sampling/test_sample.py \
	    tests/query/test_stencils.py tests/query/test_interpolation.py \
	    tests/writing/test_round_trip.py tests/export tests/engine/test_differential.py \
	    tests/engine/test_pruning.py tests/engine/test_ordered.py tests/engine/test_over.py \
	    tests/dialect/test_differential.py tests/dialect/test_literals.py tests/coding/test_time_units.py $(ARGS)

mutants: $(VENV)/.installed  ## Put faults into a copy of the planner, and report the test that detects each (minutes)
	$(BIN)/python -m tests.support.mutants $(ARGS)

bench: .venv-bench/.installed  ## Measure time and memory on whole stores beside rainbear, xarray-sql and xarray (half an hour)
	.venv-bench/bin/python -m benchmarks.run --plots benchmarks $(ARGS)

bench-quick: .venv-bench/.installed  ## The same on smaller stores, and the chunks that each form of query reads (three minutes)
	.venv-bench/bin/python -m benchmarks.run --quick --rounds 2 $(ARGS)
	.venv-bench/bin/python -m benchmarks.predicate_forms

bench-targets: .venv-bench/.installed  ## Measure the four layouts beside rainbear, and compare with the targets (ten minutes)
	.venv-bench/bin/python -m benchmarks.run --suite layouts --reader rainbear $(ARGS)

bench-floor: .venv-bench/.installed  ## Measure scans in units of the time to read and decode their chunks (five minutes)
	.venv-bench/bin/python -m benchmarks.floor $(ARGS)

bench-engine: .venv-bench/.installed  ## Measure aggregations in units of the floor, beside Parquet, xarray and rainbear (ten minutes)
	.venv-bench/bin/python -m benchmarks.engine $(ARGS)

bench-groups: .venv-bench/.installed  ## Measure 25 million groups, and row space on two workers (ten minutes; ARGS=--quick)
	.venv-bench/bin/python -m benchmarks.groups $(ARGS)

bench-queries: .venv-bench/.installed  ## Measure joins, first rows and anomalies beside plain collect() (ten minutes; ARGS=--quick: two)
	.venv-bench/bin/python -m benchmarks.queries $(ARGS)

bench-growth: .venv-bench/.installed  ## Measure time against rows, chunks and variables (two minutes)
	.venv-bench/bin/python -m benchmarks.growth --plot benchmarks/growth.svg

bench-guard: $(VENV)/.installed  ## Compare a dozen small measures with the recorded ones, loudly (ARGS=--record before a release)
	$(BIN)/python -m benchmarks.guard $(ARGS)

bench-many: .venv-bench/.installed  ## Measure how busy tasks of a second keep 16 to 256 workers, beside plain Dask (two minutes)
	.venv-bench/bin/python -m benchmarks.many_workers $(ARGS)

bench-memory: .venv-bench/.installed  ## Measure the memory of value filters, for tasks of any size (two minutes)
	.venv-bench/bin/python -m benchmarks.memory $(ARGS)

bench-planning: $(VENV)/.installed  ## Measure planning on stores of up to 100 M chunks (half a minute)
	$(BIN)/python -m benchmarks.planning

bench-cluster: .venv-bench/.installed  ## Measure a cluster of two processes: speed, latency, memory (20 minutes)
	.venv-bench/bin/python -m benchmarks.cluster
	.venv-bench/bin/python -m benchmarks.latency
	.venv-bench/bin/python -m benchmarks.streaming

bench-points: .venv-bench/.installed  ## Measure values at points beside xarray: speed, memory, latency, two workers (ten minutes)
	.venv-bench/bin/python -m benchmarks.points $(ARGS)
	.venv-bench/bin/python -m benchmarks.points memory $(ARGS)
	.venv-bench/bin/python -m benchmarks.points latency $(ARGS)
	.venv-bench/bin/python -m benchmarks.points cluster $(ARGS)
	.venv-bench/bin/python -m benchmarks.points interpolars $(ARGS)

bench-dataframes: .venv-bench/.installed  ## Measure Dask DataFrames beside xarray's (ten minutes; ARGS=--quick: three)
	.venv-bench/bin/python -m benchmarks.dataframes $(ARGS)

bench-regions: .venv-bench/.installed  ## Measure means over polygons beside exactextract and xvec (two minutes; ARGS=--quick)
	.venv-bench/bin/python -m benchmarks.regions $(ARGS)

bench-statistics: .venv-bench/.installed  ## Measure value filters with and without statistics of chunks (five minutes; ARGS=--quick)
	.venv-bench/bin/python -m benchmarks.statistics $(ARGS)

bench-writing: .venv-bench/.installed  ## Measure output to Parquet and Zarr beside xarray and pandas (half an hour; ARGS=--quick: three minutes)
	.venv-bench/bin/python -m benchmarks.writing $(ARGS)

bench-sql: .venv-bench/.installed  ## Measure nine jobs as LazyFrames, as SQL and by xarray-sql (two minutes; ARGS=--quick)
	.venv-bench/bin/python -m benchmarks.sql $(ARGS)

bench-remote: $(VENV)/.stores  ## Measure reads from an S3 server with added latency (three minutes; ARGS="--cloud gcs" or azure)
	$(BIN)/python -m benchmarks.remote $(ARGS)

clean:  ## Remove environments, caches and builds
	rm -rf .cluster .venv .venv-3.* .venv-bench .venv-demo .venv-docs .venv-lowest .venv-package .venv-tools .venv-upstream .demo .docs site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# CMIP6 files for tests. Their package is installed without its own reader, which needs iris, GEOS and PROJ.
TEST_FILES := 'esmvaltool-sample-data>=0.0.4'

# The first pip that installs dependency groups; a new environment may have an older one.
NEW_PIP := 'pip>=25.1'

# The stamp is newer than pyproject.toml exactly if the dependencies in it are installed.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq $(NEW_PIP)
	$(BIN)/python -m pip install -qq -e '.[all]' --group test --group dev
	$(BIN)/python -m pip install -qq --no-deps $(TEST_FILES)
	@touch $@

.PRECIOUS: .venv-3.%/.installed
.venv-3.%/.installed: pyproject.toml
	$(SECOND) -m venv --clear .venv-3.$*
	.venv-3.$*/bin/python -m pip install -qq $(NEW_PIP)
	.venv-3.$*/bin/python -m pip install -qq -e '.[all]' --group test
	.venv-3.$*/bin/python -m pip install -qq --no-deps $(TEST_FILES)
	@touch $@

$(VENV)/.stores: $(VENV)/.installed
	$(BIN)/python -m pip install -qq --group stores
	@touch $@

.venv-3.%/.stores: .venv-3.%/.installed
	.venv-3.$*/bin/python -m pip install -qq --group stores
	@touch $@

# An environment of its own: the demo needs a small part of the tests' packages.
.venv-demo/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-demo
	.venv-demo/bin/python -m pip install -qq $(NEW_PIP)
	.venv-demo/bin/python -m pip install -qq -e . --group demo
	@touch $@

.venv-docs/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install -qq $(NEW_PIP)
	.venv-docs/bin/python -m pip install -qq -e '.[dataframe,geo,http,icechunk,sample,xarray]' --group docs
	@touch $@

.venv-tools/.installed: pyproject.toml
	$(PYTHON) -m venv --clear .venv-tools
	.venv-tools/bin/python -m pip install -qq $(NEW_PIP)
	.venv-tools/bin/python -m pip install -qq --group tools
	@touch $@

# The oldest versions have wheels for the oldest Python alone.
.venv-lowest/.installed: .venv-tools/.installed
	$(or $(if $(call minor,python3.11),python3.11),$(PYTHON)) -m venv --clear .venv-lowest
	.venv-tools/bin/uv pip install -q --python .venv-lowest/bin/python --resolution lowest-direct -e '.[all]' --group test
	.venv-lowest/bin/python -m pip install -qq --no-deps $(TEST_FILES)
	@touch $@

# rainbear needs Python 3.12. So this uses the second interpreter if one exists. Otherwise rainbear may be missing.
.venv-bench/.installed: pyproject.toml
	$(or $(SECOND),$(PYTHON)) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install -qq $(NEW_PIP)
	.venv-bench/bin/python -m pip install -qq -e '.[geo,sample]' --group bench
	@touch $@
