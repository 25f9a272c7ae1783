"""Model files from the hub, or from its local cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tasks.core.errors import ModelNotFoundError


def download(source: str, *, setting: str, revision: str | None = None, patterns: Sequence[str]) -> Path:
    """The folder that holds a hub model's files.

    Args:
        source: A hub id.
        setting: The setting that names it, for the error.
        revision: Commit, tag or branch; None is the main branch.
        patterns: The files to fetch.

    Raises:
        ModelNotFoundError: The local cache does not hold the model, and the hub does not deliver it.
    """
    from huggingface_hub import snapshot_download

    # The base of every error of the HTTP client that this release of the hub uses: httpx in 1.x, httpx2 in 2.x.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(patterns)))
    except (HTTPError, OSError, ValueError) as error:
        raise ModelNotFoundError(
            setting,
            f"hub model `{source}` not in the local cache and not downloadable ({type(error).__name__})",
            "a readable model",
            "Check the id, the network and HF_HUB_OFFLINE, or name a folder that holds the model.",
        ) from error
