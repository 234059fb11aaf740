# Everything runs in .venv at the root; `make setup` makes it, and is quick when it is there.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
FRAMES ?= 5000000
PYTEST := $(BIN)/pytest

.PHONY: help setup demo test test-slow test-chaos test-conformance fuzz check check-client clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: ## .venv, DOLFINx (Debian packages, as root), compiled forms
	@bash deploy/setup.sh

demo: setup ## MPI heat solvers train a network while they run: error and picture
	@$(BIN)/penstock demo

test: setup ## the tests, without those below
	$(PYTEST) tests -m "not slow and not chaos and not cluster"

test-slow: setup ## the long tests, those with several nodes
	$(PYTEST) tests -m "(slow or cluster) and not chaos"

test-chaos: ## ten campaigns with 20 faults each: about an hour
	@bash deploy/setup.sh network
	$(PYTEST) tests/chaos -m chaos

fuzz: setup ## mutated frames on both ports, coverage-guided: FRAMES=5000000 on each
	$(BIN)/python -m pip install -q -c constraints.txt atheris
	$(BIN)/python tests/fuzz/run.py data --frames $(FRAMES)
	$(BIN)/python tests/fuzz/run.py control --frames $(FRAMES)

test-conformance: ## the clients in Python, C, C++ and Fortran against a scripted server
	@bash deploy/setup.sh compilers
	$(MAKE) -C tests/conformance

check: setup ## ruff, format, mypy --strict, who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) -q tests/unit/test_dependencies.py

check-client: setup ## the bare client in an empty environment: no torch, no ray
	@bash deploy/check_client.sh

clean: ## everything that was made here, .venv too
	rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
