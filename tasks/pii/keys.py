"""The name of the secret behind pseudonyms and fingerprints."""

from __future__ import annotations

import hashlib
import hmac


def id_of_key(key: bytes) -> str:
    """A short name of a key, from which the key cannot be found."""
    return hmac.new(key, b"perennial key id", hashlib.sha256).hexdigest()[:12]
