"""What is imported stays light, and every public face says what it offers."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest

import tasks

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "peft",
    "spacy",
    "presidio_analyzer",
    "cleanlab",
    "great_expectations",
    "mlflow",
    "sklearn",
)
SHARED = {"contracts", "core", "measures", "modeling", "stats", "text"}
STAGES = [module.name for module in pkgutil.iter_modules(tasks.__path__) if module.ispkg and module.name not in SHARED]


def test_the_page_imports_no_heavy_library() -> None:
    code = f"import sys, flows.retrain; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_imports_neither_prefect_nor_a_stage() -> None:
    code = "import sys, perennial.cli.app; print(sorted(n for n in sys.modules if n == 'prefect' or n.startswith('tasks.')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['tasks.core', 'tasks.core.addresses', 'tasks.core.errors', 'tasks.core.typed_text']"


def test_the_trainer_process_imports_no_prefect() -> None:
    program = "import sys, tasks.training.trainer.worker"
    code = f"{program}; print([name for name in ('prefect', 'mlflow') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_public_face(stage: str) -> None:
    face = importlib.import_module(f"tasks.{stage}")
    assert face.__doc__
    assert all(hasattr(face, name) for name in face.__all__)
