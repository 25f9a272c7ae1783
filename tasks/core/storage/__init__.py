"""The artifact store; see :mod:`tasks.core.storage.store`."""

from tasks.core.storage.digests import digests_in, sha256_of, sha256_of_file, sha256_of_files, sha256_of_json
from tasks.core.storage.store import MIXED, Store, is_removable, open_store, run_store, thing_of
from tasks.core.storage.writing import write_file_atomically

__all__ = [
    "MIXED",
    "Store",
    "digests_in",
    "is_removable",
    "open_store",
    "run_store",
    "sha256_of",
    "sha256_of_file",
    "sha256_of_files",
    "sha256_of_json",
    "thing_of",
    "write_file_atomically",
]
