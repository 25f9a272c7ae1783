"""Which backend serves a path or URL."""

from __future__ import annotations

import importlib
from pathlib import Path

import fsspec

from tasks.core.errors import MissingDependencyError, StoreError
from tasks.core.storage.backends import Backend, FolderBackend, MemoryBackend
from tasks.core.storage.buckets import BucketBackend


def open_backend(root: str) -> Backend:
    """The backend of a path or URL.

    Raises:
        StoreError: This kind of storage has no compare-and-set.
        MissingDependencyError: This kind of storage needs a package that is not installed.
    """
    protocol = fsspec.utils.get_protocol(root)
    if protocol in ("file", "local"):
        return FolderBackend(Path(fsspec.core.url_to_fs(root)[1]))
    if protocol == "memory":
        return MemoryBackend(root)
    if protocol not in ("s3", "s3a"):
        raise StoreError(
            "store",
            f"storage of the kind `{protocol}`",
            "a folder, or S3-compatible storage (s3://), which support conditional writes",
            "Set `store` to one of them.",
        )
    try:
        importlib.import_module("s3fs")
    except ImportError as error:
        raise MissingDependencyError(
            "store", "an s3:// URL without s3fs", "the extra `s3`", "Install it: pip install 'perennial-llm[s3]'"
        ) from error
    return BucketBackend(root)
