# Everything a developer runs. Needs Python 3.11+, git and make; all else is installed into .venv and .tools.
PYTHON ?= python3
UV := .tools/bin/uv
RUN := $(UV) run --frozen --no-sync
export UV_PROJECT_ENVIRONMENT := .venv
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: help install demo replay lint check test bench format clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Millpond needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv .tools
	@.tools/bin/python -m pip install --quiet 'uv>=0.9'

.venv/.installed: pyproject.toml uv.lock | $(UV)
	@$(UV) sync --frozen --quiet --compile-bytecode --python $(PYTHON)
	@touch $@

.venv/.extras: .venv/.installed
	@$(UV) sync --frozen --quiet --all-extras --python $(PYTHON)
	@touch $@

install: .venv/.installed ## create the environment from uv.lock

demo: install ## the whole walk on real flights
	@$(RUN) python examples/flights/demo.py

replay: install ## December event by event, then the skew of what was served (after make demo)
	@$(RUN) python examples/flights/replay.py

lint: install ## lint, types, import contracts
	@$(RUN) ruff check --quiet .
	@$(RUN) ruff format --check --quiet .
	@$(RUN) mypy --no-error-summary
	@$(RUN) lint-imports --no-cache > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }

check: lint ## a minute: that, and fast tests
	@$(RUN) pytest -q -n 2 -m 'not slow' tests/unit tests/architecture

test: lint .venv/.extras ## all of it
	@$(RUN) python tests/requirements.py
	@$(RUN) pytest -n 2 --dist loadfile --no-loadscope-reorder  # whole walks first: unit tests even out the end

bench: install .venv/.extras ## figures, as ratios, into benchmarks/RESULTS.md
	@$(RUN) python -m benchmarks

format: install ## rewrite the code as the linters want it
	@$(RUN) ruff check --quiet --fix .
	@$(RUN) ruff format --quiet .

clean: ## remove the environment and all caches
	rm -rf .venv .venv-peers .tools .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
