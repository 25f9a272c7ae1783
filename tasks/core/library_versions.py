"""The versions of the libraries that a result depends on, so that a security fix or a changed rounding invalidates it.

Every imported library counts, unless :data:`CHANGES_NO_RESULT` excludes it with a reason. :data:`BEHIND` lists its own
dependencies that compute for it (tokens, arrays, telephone numbers), because the project does not import them.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from functools import cache

CHANGES_NO_RESULT: Mapping[str, str] = {
    "prefect": "runs stages and keeps their results",
    "pydantic": "checks settings and contracts, whose values are in the key themselves",
    "mlflow": "receives results",
    "optuna": "chooses settings, which are in the key themselves",
    "pyarrow": "reads and writes rows, which are known by their hash",
    "fsspec": "moves bytes, which are checked against their hash",
    "google": "reads a model, which is known by its hash or its package's version",
    "safetensors": "reads and writes weights, which are known by their hash",
    "gguf": "makes a base model, which is known by its hash",
    "huggingface_hub": "fetches models",
    "httpx": "carries requests",
    "yaml": "writes pages",
    "psutil": "measures the machine",
    "threadpoolctl": "sets the number of threads",
}
"""Imported names whose version is in no cache key, and why."""

BEHIND: Mapping[str, tuple[str, ...]] = {
    "presidio-analyzer": ("phonenumbers", "regex"),
    "spacy": ("thinc", "blis", "numpy"),
    "onnxruntime": ("numpy",),
    "transformers": ("tokenizers", "regex", "numpy"),
    "trl": ("accelerate", "liger-kernel"),
    "peft": ("accelerate",),
    "scikit-learn": ("scipy", "numpy"),
    "cleanlab": ("scikit-learn", "scipy", "numpy"),
    "fairlearn": ("scikit-learn", "scipy", "pandas", "numpy"),
    "great-expectations": ("pandas", "numpy"),
    "pandas": ("numpy",),
    "py3langid": ("numpy",),
    "sacrebleu": ("regex", "numpy"),
    "nltk": ("regex",),
    "jsonschema": ("referencing", "rpds-py"),
    "lm-eval": ("evaluate", "datasets", "numpy"),
}
"""By distribution: its dependencies that affect results."""

_DISTRIBUTIONS = {"ahocorasick": "pyahocorasick", "re2": "google-re2", "sklearn": "scikit-learn", "stdnum": "python-stdnum"}
"""Imported names that differ from the name of their distribution."""


def versions_behind(imported: Iterable[str]) -> dict[str, str]:
    """The version of every distribution that affects the results of code with these imports, and Python's; sorted by name.

    Args:
        imported: Top-level names, such as ``sklearn``. One that is not installed has the version ``none``.
    """
    direct = {distribution_of(name) for name in imported if name not in CHANGES_NO_RESULT}
    behind = {name for library in direct for name in BEHIND.get(library, ())}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {"python": python} | {name: version_of(name) for name in sorted(direct | behind)}


def distribution_of(name: str) -> str:
    """The distribution that an imported top-level name comes from."""
    return _DISTRIBUTIONS.get(name, name.replace("_", "-"))


@cache
def version_of(distribution: str) -> str:
    """The installed version of a distribution, ``none`` if it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
