# The verbs of this project; CI calls the same ones. `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# Bytecode is written by the first process that imports a module; without it every trainer would compile 10 s long.
unexport PYTHONDONTWRITEBYTECODE

IMPORTED := flows.retrain, perennial.cli.app, tasks.training.trainer.worker, tasks.labels.audit, tasks.benchmark.scoring, tasks.redteam.probing, \
	tasks.pii.scrubbing, tasks.validation.checking, tasks.bias.comparison, tasks.dossier.rendering, mlflow, prefect.server.api.server

.PHONY: help demo test test-fast fuzz check format coverage lock bench bench-gpu failures server docs clean

help:  ## What each verb does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt requirements.lock
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Perennial needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# Every package but torch by version and hash; the lock is complete, so pip resolves nothing.
	@$(PIP) install --quiet --no-compile --no-deps --require-hashes -r requirements.lock
	@# torch without a hash: its build depends on the platform, and a CUDA build brings packages of its own.
	@$(PIP) install --quiet --no-compile -c constraints.txt torch
	@$(PIP) install --quiet --no-compile --no-deps --no-build-isolation -e .
	@# Bytecode of what a retrain imports, which its processes would otherwise compile one beside the other.
	@$(BIN)/python -c 'import $(IMPORTED)' 2>$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@touch $(STAMP)

demo: $(STAMP)  ## Runs the main job on sample data: a first champion, a better one, a bad candidate, a rollback
	@$(BIN)/python examples/support_desk/demo.py

# A file is one unit of work, in the order of collection: tests/conftest.py puts the longest first.
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
test: $(STAMP)  ## Every test that needs no GPU
	$(PYTEST) -m "not gpu"

test-fast: $(STAMP)  ## The default tier: a few minutes
	$(PYTEST)

fuzz: $(STAMP)  ## The property tests with new examples
	$(PYTEST) --hypothesis-profile=new $$(grep -rl --include='*.py' "^from hypothesis import" tests)

check: $(STAMP)  ## Lint, format, types, architecture, spelling, words, the documentation's site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tests/test_words.py
	@# Not --quiet: mkdocs then counts no warning, and --strict lets everything pass.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir $(VENV)/site

format: $(STAMP)  ## Formats the code, and corrects what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(STAMP)  ## The same tests with line coverage, held to the floor in pyproject.toml
	$(PYTEST) -m "not gpu" --cov --cov-report=term:skip-covered

server: $(STAMP)  ## Prefect's and MLflow's pages over the embedded state, until Ctrl-C
	@$(BIN)/perennial server

NOT_BENCH := demo_cost failure_matrix training_kernels gpu_survival
bench: $(STAMP)  ## Every benchmark script that needs no GPU, but that of failures, each printing its table
	@for script in $(filter-out $(NOT_BENCH:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-gpu: $(STAMP)  ## What needs a CUDA device with 80 GB
	@$(BIN)/python benchmarks/training_kernels.py
	@$(BIN)/python benchmarks/training_throughput.py --shape llama-8b --length 2048 --median 600 --steps 10
	@$(BIN)/python benchmarks/gpu_survival.py

failures: $(STAMP)  ## Runs a retrain under one fault after another, as root: half an hour
	@$(BIN)/python benchmarks/failure_matrix.py

RESOLVE := $(BIN)/uv pip compile --quiet pyproject.toml -c constraints.txt --universal --python-version 3.11 --generate-hashes \
	--no-emit-package torch --no-annotate --custom-compile-command "make lock"
lock: $(STAMP)  ## Resolves the lock files anew, under constraints.txt (needs a package index)
	@$(PIP) install --quiet -c constraints.txt uv
	@$(RESOLVE) --extra all --extra dev --group setup --output-file requirements.lock
	@$(RESOLVE) --extra servers --extra bridge --group build --output-file docker/server.lock
	@$(RESOLVE) --extra all --extra servers --extra s3 --extra gpu --group worker --output-file docker/worker.lock

docs: $(STAMP)  ## Generated pages of docs/
	@$(BIN)/python -m perennial.operations.reference > $(VENV)/configuration.md && cp $(VENV)/configuration.md docs/configuration.md
	@$(BIN)/typer perennial.cli.app utils docs --name perennial --title Commands --output docs/commands.md

clean:  ## Removes the environment and the embedded state
	rm -rf $(VENV) .perennial
