"""Secrets that a configuration names and never holds: loaded in one place, and named by an id that gives nothing away."""

from __future__ import annotations

import hashlib
import hmac
import os

from tasks.core.errors import ConfigError


def load_secret(setting: str, *, variable: str, block: str | None = None) -> str | None:
    """The secret, from the Prefect Secret block when one is named, else from the environment; None without one.

    Args:
        setting: The setting that names the block, for errors, such as ``pii.key_block``.
        variable: The environment variable.
        block: Name of the Prefect Secret block.

    Raises:
        ConfigError: No block has that name.
    """
    if block is None:
        return os.environ.get(variable) or None
    from prefect.blocks.system import Secret

    try:
        return str(Secret.load(block).get())  # type: ignore[union-attr]
    except ValueError as error:
        raise ConfigError(
            setting,
            "a Prefect Secret block that does not exist",
            "the name of a Secret block of this Prefect server",
            f"Create the block, or set {setting} to null and use the environment variable {variable}.",
        ) from error


def id_of_key(key: bytes) -> str:
    """A short name of a key, from which the key cannot be found."""
    return hmac.new(key, b"perennial key id", hashlib.sha256).hexdigest()[:12]
