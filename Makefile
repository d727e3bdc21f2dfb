# What a contributor types. `make` alone lists the verbs. PYTHON=.venv/bin/python unless another one is named.
PYTHON ?= .venv/bin/python

.PHONY: help test fast lint types bench docs

help:
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

fast: ## the tests that take less than a minute on two cores
	$(PYTHON) -m pytest -n 2 -m "not slow"

test: ## every test
	$(PYTHON) -m pytest -n 2

lint: ## lint and import order
	$(PYTHON) -m ruff check .

types: ## static types
	$(PYTHON) -m mypy

bench: ## speed of the engine, of dreams and of the whole loop on ShadowHandOver
	for suite in engine imagine train; do $(PYTHON) scripts/bench.py suite=$$suite task=ShadowHandOver || exit; done

docs: ## the pages that are made from the tasks
	$(PYTHON) scripts/gen_task_docs.py
