# Everything lives in .venv; deleting it undoes the set-up. `make` alone lists the targets.
# Needed beforehand: Python 3.11, make, and network access to the package registries (for the first run only).

PYTHON     ?= $(shell command -v python3.11 || command -v python3)
# The build back-end in pyproject.toml has the same version, so that building downloads nothing.
UV_VERSION := 0.13.9
VENV       := .venv
READY      := $(VENV)/.headrace-ready
RUN        := $(VENV)/bin
SPARK      := $(VENV)/.headrace-spark
# Tests mostly wait (for a JVM, a rebalance, a timeout), so two processes halve the time even on two cores. Each has a
# broker and a Redis of its own, and a file's tests stay together.
AT_ONCE    := --numprocesses 2 --dist loadfile

export UV_PROJECT_ENVIRONMENT := $(VENV)
export UV_PYTHON_DOWNLOADS    := never

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow lint bench faults spark flink clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## make .venv: the locked Python packages and Kafka's jars

demo: setup ## run the main job on real flights
	@$(RUN)/headrace demo

test: lint ## lint, types and the tests that fit into a quarter of an hour on two cores
	@$(RUN)/pytest $(AT_ONCE) -m "not slow and not bench and not faults and not spark"

slow: setup ## the laws of all cells, parity of the whole language, other runners, a Redis Cluster
	@$(RUN)/pytest -m "slow and not spark"

lint: setup ## ruff, its formatter and mypy
	@$(RUN)/ruff check .
	@$(RUN)/ruff format --check .
	@$(RUN)/mypy

bench: setup ## measure speeds
	@$(RUN)/pytest -m bench

faults: setup ## kill, pause and roll back real services while values are checked
	@$(RUN)/pytest -m faults

spark: $(SPARK) ## install Spark (needs Java 17) and run what runs on it
	@$(RUN)/pytest -m spark

flink: $(READY) ## install PyFlink (needs Java 17), in .venv-flink, for the bench to run beside
	@[ -x .venv-flink/bin/python ] || $(PYTHON) -m venv .venv-flink
	@.venv-flink/bin/python -m pip install --quiet --disable-pip-version-check apache-flink==2.3.0 redis==7.4.1
	@$(RUN)/python -m headrace.local.jars flink

clean: ## stop the local services and delete .venv and all caches; data in HEADRACE_HOME stays
	@if [ -x $(RUN)/headrace ]; then $(RUN)/headrace down; fi
	@rm -rf $(VENV) .venv-flink .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is newer than everything that decides what is in .venv, so a second run does nothing and stays offline.
$(READY): pyproject.toml uv.lock Makefile headrace/local/jars.py $(wildcard headrace/local/kafka-*.sha256)
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "error: set-up needs Python 3.11; got '$(PYTHON)' ($$($(PYTHON) --version 2>&1)). Install python3.11, or name it: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@[ -x $(RUN)/python ] && $(RUN)/python -m pip --version >/dev/null 2>&1 || { echo "set-up: making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); } || { \
	  echo "error: '$(PYTHON) -m venv $(VENV)' failed; on Debian and Ubuntu the package python3.11-venv is missing" >&2; exit 1; }
	@[ "$$($(RUN)/uv --version 2>/dev/null | cut -d' ' -f2)" = "$(UV_VERSION)" ] || $(RUN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) || { \
	  echo "error: pip could not install uv $(UV_VERSION); check that this machine reaches its Python package index, then run make again" >&2; exit 1; }
	@echo "set-up: installing the locked packages"
	@$(RUN)/uv sync --quiet --frozen --extra all --python $(RUN)/python || { \
	  echo "error: the packages of uv.lock could not be installed (the reason stands above); check the network, then run make again" >&2; exit 1; }
	@echo "set-up: Kafka's jars"
	@$(RUN)/python -m headrace.local.jars || { echo "error: set-up stopped at Kafka's jars; run make again once the reason above is gone" >&2; exit 1; }
	@touch $@

$(SPARK): $(READY) headrace/local/spark-4.0.sha256
	@echo "set-up: Spark and its connector to Kafka"
	@$(RUN)/uv sync --quiet --frozen --extra all --extra spark --python $(RUN)/python || { \
	  echo "error: Spark could not be installed (the reason stands above); check the network, then run make again" >&2; exit 1; }
	@$(RUN)/python -m headrace.local.jars spark
	@touch $@
