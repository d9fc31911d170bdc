# Every target sets up what it needs by itself; `make help` lists them.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long power lint clean

# Absolute, so that `make -f <repository>/Makefile` works from any folder; quoted below, since it may hold spaces.
ROOT := $(shell cd "$$(dirname "$(strip $(MAKEFILE_LIST))")" && pwd)
HERE := cd "$(ROOT)" &&

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' "$(ROOT)/Makefile" | expand -t 11

setup: ## make or update .venv (seconds where nothing has changed)
	@"$(ROOT)/requirements/setup.sh"

demo: setup ## run every framework on two photographs and report how they agree, in reports/ (CKPT=file, ARGS="...")
	@ckpt="$(CKPT)"; [[ -z $$ckpt ]] || ckpt=$$(realpath -m -- "$$ckpt"); $(HERE) \
	if [[ -n $$ckpt ]]; then set -- --weights "$$ckpt"; else set -- --model mae_vit_base_patch16; fi; \
	.venv/bin/polymae compare "$$@" --images demo/photos/*.jpg --out reports/ $(ARGS)

test: setup ## lint, types and tests; all of them run, any failure fails, what was not tested is said (ARGS="..." goes to pytest)
	@$(HERE) failed=0; \
	$(LINT); \
	.venv/bin/pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS) || failed=1; \
	exit $$failed

test-long: setup ## only the tests that draw their examples, thirty times as many, and every file under every Python (ARGS="...")
	@$(HERE) .venv/bin/pytest -n auto --maxprocesses 4 --dist worksteal -m "hypothesis or drawn" --hypothesis-profile=long $(ARGS)

power: setup ## plant over a hundred porting faults in every backend: what would a comparison notice? (ARGS="--frameworks torch")
	@$(HERE) PYTHONPATH=tests .venv/bin/python -m mutants $(ARGS)

lint: setup ## ruff, mypy and the directions of imports only
	@$(HERE) failed=0; $(LINT); exit $$failed

LINT = .venv/bin/ruff check || failed=1; .venv/bin/ruff format --check || failed=1; .venv/bin/mypy || failed=1; \
	.venv/bin/lint-imports --no-logo || failed=1

clean: ## remove caches and build leftovers; .venv, reports/ and pretrained/ stay
	@$(HERE) rm -rf build ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis rank_0 log
	@$(HERE) find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +
