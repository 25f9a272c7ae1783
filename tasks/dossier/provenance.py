"""What a dossier publishes about the run's environment: settings without secrets, and installed versions."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

from tasks.core.addresses import without_secrets
from tasks.core.term_lists import CONFIDENTIAL

PACKAGES = (
    "perennial-llm",
    "prefect",
    "mlflow",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "great-expectations",
    "presidio-analyzer",
    "onnxruntime",
    "tokenizers",
    "cleanlab",
    "scikit-learn",
    "fairlearn",
    "sacrebleu",
    "rapidfuzz",
    "pyarrow",
    "numpy",
)
_PRIVATE_WORDS = ("password", "secret_key", "api_key", "access_key", "auth_token")


def installed_versions() -> dict[str, str]:
    """The versions of Python and of the main libraries that are installed."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def public_settings(settings: Any) -> Any:
    """The settings without deny-listed terms, and without credentials by their keys and within addresses."""
    if isinstance(settings, Mapping):
        return {str(name): _public_value(str(name), value) for name, value in settings.items()}
    if isinstance(settings, list | tuple):
        return [public_settings(item) for item in settings]
    return without_secrets(settings) if isinstance(settings, str) else settings


def _public_value(name: str, value: Any) -> Any:
    if name in CONFIDENTIAL and value:
        count = value.get("num_items", "?") if isinstance(value, Mapping) else len(value)
        return f"({count} terms, not shown)"
    if value and isinstance(value, str) and any(word in name.lower() for word in _PRIVATE_WORDS):
        return "(not shown)"
    return public_settings(value)
