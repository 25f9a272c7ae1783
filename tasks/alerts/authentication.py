"""Authentication of senders: a bearer token, or the HMAC-SHA256 of the body, each compared in constant time.

The secrets come from the environment or from files, never from a configuration or a parameter. Several may be valid at
once, one per line, so that one can be replaced without losing an alert.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import ConfigError

TOKEN_VARIABLE = "PERENNIAL_ALERT_TOKEN"
HMAC_KEY_VARIABLE = "PERENNIAL_ALERT_HMAC_KEY"
MIN_SECRET_LENGTH = 16
MAX_SIGNATURE_AGE_SECONDS = 300.0


@dataclass(frozen=True)
class Secrets:
    """Valid bearer tokens, and valid keys of signatures."""

    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    hmac_keys: tuple[bytes, ...] = field(default=(), repr=False)


def read_secrets(environment: Mapping[str, str]) -> Secrets:
    """The secrets in ``PERENNIAL_ALERT_TOKEN``, ``PERENNIAL_ALERT_HMAC_KEY``, or the files named by ``..._FILE``.

    Raises:
        ConfigError: There is none, one is short, or a file cannot be read.
    """
    secrets = Secrets(_lines(environment, TOKEN_VARIABLE), _lines(environment, HMAC_KEY_VARIABLE))
    if not secrets.tokens and not secrets.hmac_keys:
        raise ConfigError(
            f"environment variable {TOKEN_VARIABLE}",
            "no secret",
            f"a token, or a key in {HMAC_KEY_VARIABLE}, or a file with one in {TOKEN_VARIABLE}_FILE",
            "Make one with `openssl rand -hex 32`, set it here and at the sender.",
        )
    return secrets


def _lines(environment: Mapping[str, str], name: str) -> tuple[bytes, ...]:
    where, text = f"environment variable {name}", environment.get(name, "")
    if path := environment.get(f"{name}_FILE"):
        where = f"{name}_FILE={path}"
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                where, type(error).__name__, "a readable text file with one secret per line", "Correct it."
            ) from error
    secrets = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if any(len(secret) < MIN_SECRET_LENGTH for secret in secrets):
        raise ConfigError(
            where,
            f"a secret of fewer than {MIN_SECRET_LENGTH} characters",
            "a longer one",
            "Make one with `openssl rand -hex 32`.",
        )
    return secrets


def has_token(secrets: Secrets, authorization: str | None) -> bool:
    """Whether an ``Authorization`` header holds a valid bearer token."""
    scheme, _, token = (authorization or "").partition(" ")
    return scheme.lower() == "bearer" and _equals_one(token.strip().encode("utf-8", "surrogateescape"), secrets.tokens)


def has_signature(secrets: Secrets, body: bytes, signature: str | None) -> bool:
    """Whether ``signature`` is the hexadecimal HMAC-SHA256 of ``body`` under a valid key."""
    given = (signature or "").strip().lower().removeprefix("sha256=").encode("utf-8", "surrogateescape")
    expected = [hmac.new(key, body, hashlib.sha256).hexdigest().encode() for key in secrets.hmac_keys]
    return _equals_one(given, expected)


def signed_bytes(body: bytes, timestamp: str | None, now: float) -> bytes | None:
    """The signed bytes of a request with a timestamp, ``<time>:<body>``; None for an absent, invalid or distant time."""
    given = (timestamp or "").strip()
    if not (given.isascii() and given.isdigit() and len(given) <= 12) or abs(now - int(given)) > MAX_SIGNATURE_AGE_SECONDS:
        return None
    return given.encode() + b":" + body


def _equals_one(given: bytes, secrets: Sequence[bytes]) -> bool:
    """Compares with every secret, so that the duration does not reveal which one was similar."""
    return any([hmac.compare_digest(given, secret) for secret in secrets])
