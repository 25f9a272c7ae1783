"""The libraries behind a result, with their versions: what a security fix or another rounding must not leave unnoticed.

A library that code imports counts, unless :data:`CHANGES_NO_RESULT` says why not; so a new import counts by itself. What
does the work behind it (tokens, arrays, telephone numbers) is in :data:`BEHIND`, because nobody imports it here.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from functools import cache

CHANGES_NO_RESULT: Mapping[str, str] = {
    "prefect": "runs stages and keeps their results",
    "pydantic": "checks settings and contracts, whose values are in the key themselves",
    "mlflow": "is told of results",
    "optuna": "chooses settings, which are in the key themselves",
    "pyarrow": "reads and writes rows, which are known by their hash",
    "fsspec": "moves bytes, which are checked against their hash",
    "safetensors": "reads and writes weights, which are known by their hash",
    "gguf": "makes a base model, which is known by its hash",
    "huggingface_hub": "fetches models",
    "httpx": "carries requests",
    "yaml": "writes pages",
    "psutil": "measures the machine",
    "threadpoolctl": "sets the number of threads",
}
"""Imported names whose version is in no key, and why."""

BEHIND: Mapping[str, tuple[str, ...]] = {
    "presidio-analyzer": ("phonenumbers", "regex"),
    "spacy": ("thinc", "blis", "numpy"),
    "transformers": ("tokenizers", "regex", "numpy"),
    "trl": ("accelerate", "liger-kernel"),
    "peft": ("accelerate",),
    "scikit-learn": ("scipy", "numpy"),
    "cleanlab": ("scikit-learn", "scipy", "numpy"),
    "fairlearn": ("scikit-learn", "scipy", "pandas", "numpy"),
    "great-expectations": ("pandas", "numpy"),
    "pandas": ("numpy",),
    "py3langid": ("numpy",),
    "rouge-score": ("nltk", "regex"),
    "sacrebleu": ("regex", "numpy"),
    "nltk": ("regex",),
    "jsonschema": ("referencing", "rpds-py"),
    "lm-eval": ("evaluate", "datasets", "numpy"),
}
"""By distribution: what computes for it."""

_DISTRIBUTIONS = {"ahocorasick": "pyahocorasick", "re2": "google-re2", "sklearn": "scikit-learn", "stdnum": "python-stdnum"}
"""Imported names that are not their distribution's."""


def versions_behind(imported: Iterable[str]) -> dict[str, str]:
    """The version of every distribution that decides what code with these imports gives, and Python's; sorted by name.

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
    """The installed version of a distribution, ``none`` where it is not installed."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "none"
