"""The examples' scripts, which are no package, as modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "support_desk"


@pytest.fixture(scope="session")
def load_script() -> Callable[[str], ModuleType]:
    """A function that loads a script of the support desk by its name."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"support_desk_{name}", FOLDER / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load
