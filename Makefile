# `make help` explains itself. Every target calls `setup` by itself; a second call of it costs nothing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
ARGS ?=
# torch's threads soon sleep while they wait: beside other work, spinning ones take each other's time slices
export GOMP_SPINCOUNT ?= 10000

.PHONY: help setup run test test-all e2e e2e-kfp check format images bench pins clean

help: ## this list
	@echo "make TARGET [VARIABLE=value]"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "PYTHON=python3.12 names the interpreter of a new $(VENV) (3.11 or newer)."

setup: $(VENV)/.ready ## make .venv with pinned packages (about a minute, 3 GB)

$(VENV)/.ready: requirements/dev.txt requirements/models.txt requirements/install pyproject.toml
	@MAKECMDGOALS="$(MAKECMDGOALS)" requirements/install "$(PYTHON)" "$(VENV)"
	@touch $@

run: setup ## play one round: train, judge, gate, promote or hold; again: the next round (CONFIG=file.yaml, ARGS="--line x")
	@$(PY) -m pipelines run $(if $(CONFIG),--config "$(CONFIG)") $(ARGS)

test: setup ## the fast tests (ARGS="-k gate")
	@$(PY) -m pytest -n auto $(ARGS)

test-all: setup ## all tests that need no cluster: the fast and the slow ones
	@$(PY) -m pytest -n auto -m "not e2e" $(ARGS)

e2e: setup ## images, every overlay, rounds in pods, on a real Kubernetes (KUBECONFIG; docs/operate.md)
	@$(PY) -m pytest -m e2e tests/e2e $(ARGS)

e2e-kfp: setup ## rounds on a real Kubeflow (KFP_ENDPOINT, KUBECONFIG, a store it starts itself; tests/e2e_kfp/conftest.py)
	@$(PY) -m pytest -m e2e tests/e2e_kfp $(ARGS)

check: setup ## format, lint, types, import directions
	@$(PY) -m ruff format --check --quiet || { echo "make format mends it"; exit 1; }
	@$(PY) -m ruff check --quiet
	@$(PY) -m mypy
	@$(PY) -m pytest -q tests/test_imports.py tests/test_style.py

format: setup ## mend the format and what the linter can mend
	@$(PY) -m ruff format --quiet
	@$(PY) -m ruff check --fix --quiet

images: ## build the container images with buildah, podman or docker (IMAGES="control train judge"; docs/images.md)
	@images/build $(IMAGES)

bench: setup ## measure against the named peers (ARGS=--quick: a minute each)
	@for file in benchmarks/[a-z]*.py; do $(PY) -m benchmarks $$(basename $$file .py) $(ARGS) || exit 1; done

COMPILE := pip compile pyproject.toml --universal --python-version 3.11 --quiet --upgrade \
	--no-emit-index-url --no-emit-find-links --no-header --no-annotate

pins: setup ## renew requirements/*.txt from pyproject.toml (needs uv)
	uv $(COMPILE) --all-extras -o requirements/dev.txt
	uv $(COMPILE) --extra pipelines --extra sign --extra train -c requirements/dev.txt -o requirements/train.txt
	uv $(COMPILE) --extra pipelines --extra sign -c requirements/dev.txt -o requirements/control.txt
	echo "trl[vllm]" | uv $(subst --universal,--python-platform x86_64-manylinux_2_28,$(COMPILE)) - \
		--extra pipelines --extra sign --extra train -o requirements/vllm.txt

clean: ## remove .venv and caches; stores with rounds and champions stay
	rm -rf $(VENV) $(VENV).lock dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
