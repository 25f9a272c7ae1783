"""Authentication of senders: a token in one of its places, or a signature, each compared in constant time.

The secrets come from the environment, from files or from Prefect blocks, never from a configuration or a parameter. Several
may be valid at once, one per line, so that one can be replaced without losing an alert.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.alerts.accept import AcceptRule, SenderAuth, default_variable
from tasks.alerts.expressions import Received
from tasks.core.errors import ConfigError
from tasks.core.secrets import load_secret

TOKEN_VARIABLE = "PERENNIAL_ALERT_TOKEN"
HMAC_KEY_VARIABLE = "PERENNIAL_ALERT_HMAC_KEY"
MIN_SECRET_LENGTH = 16
_TIME = re.compile(r"[0-9]{9,13}", re.ASCII)
_MARK = re.compile(rb"\{([A-Za-z0-9-]+)\}")
_SNS_TYPE = "x-amz-sns-message-type"


@dataclass(frozen=True)
class Secrets:
    """Valid bearer tokens, and valid keys of signatures."""

    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    hmac_keys: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Credential:
    """One way in, with its valid secrets: tokens, keys of signatures, or certificates (PEM)."""

    auth: SenderAuth
    secrets: tuple[bytes, ...] = field(repr=False)

    @property
    def needs_body(self) -> bool:
        """Whether it is checked against the body."""
        return self.auth.kind in ("hmac", "sns")


def read_secrets(environment: Mapping[str, str], *, required: bool = True) -> Secrets:
    """The secrets in ``PERENNIAL_ALERT_TOKEN``, ``PERENNIAL_ALERT_HMAC_KEY``, or the files named by ``..._FILE``.

    Args:
        environment: The environment's variables.
        required: Whether there must be one: without accept rules, nobody else could send.

    Raises:
        ConfigError: There is none, one is short, or a file cannot be read.
    """
    secrets = Secrets(_lines(environment, TOKEN_VARIABLE), _lines(environment, HMAC_KEY_VARIABLE))
    if required and not secrets.tokens and not secrets.hmac_keys:
        raise ConfigError(
            f"environment variable {TOKEN_VARIABLE}",
            "no secret",
            f"a token, or a key in {HMAC_KEY_VARIABLE}, or a file with one in {TOKEN_VARIABLE}_FILE",
            "Make one with `openssl rand -hex 32`, set it here and at the sender.",
        )
    return secrets


def credentials_of(rule: AcceptRule, environment: Mapping[str, str]) -> tuple[Credential, ...]:
    """The ways in of a sender, with their secrets.

    Raises:
        ConfigError: A secret is absent or short, a file cannot be read, or no block has the name.
    """
    return tuple(_credential(rule, number, auth, environment) for number, auth in enumerate(rule.auth))


def _credential(rule: AcceptRule, number: int, auth: SenderAuth, environment: Mapping[str, str]) -> Credential:
    setting = f"accept of {rule.sender}, auth.{number}"
    if auth.kind == "sns":
        return Credential(auth, tuple(_read(Path(path), f"{setting}.certificates").encode() for path in auth.certificates))
    variable = auth.variable or default_variable(rule.sender)
    if auth.block is None:
        where, secrets = f"environment variable {variable}", _lines(environment, variable)
    else:
        where = f"Secret block {auth.block}"
        secrets = _secrets_in(load_secret(f"{setting}.block", variable=variable, block=auth.block) or "", where)
    if not secrets:
        raise ConfigError(
            where,
            f"no secret for the alerts of {rule.sender}",
            f"one in it{'' if auth.block else f', or in a file that {variable}_FILE names'}",
            "Make one with `openssl rand -hex 32` where the sender gives none, and set it at both ends.",
        )
    if auth.kind == "hmac":
        secrets = tuple(_key(secret, auth, where) for secret in secrets)
    return Credential(auth, secrets)


def _key(secret: bytes, auth: SenderAuth, where: str) -> bytes:
    """The key in a secret's text."""
    try:
        match auth.key_encoding:
            case "hex":
                return bytes.fromhex(secret.decode())
            case "base64":
                # Standard Webhooks writes `whsec_` before it.
                return base64.b64decode(secret.removeprefix(b"whsec_"), validate=True)
    except (ValueError, binascii.Error) as error:
        raise ConfigError(where, f"a key that is not {auth.key_encoding}", auth.key_encoding, "Correct it.") from error
    return secret


def _lines(environment: Mapping[str, str], name: str) -> tuple[bytes, ...]:
    where, text = f"environment variable {name}", environment.get(name, "")
    if path := environment.get(f"{name}_FILE"):
        where, text = f"{name}_FILE={path}", _read(Path(path), f"{name}_FILE={path}")
    return _secrets_in(text, where)


def _read(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            where, type(error).__name__, "a readable text file with one secret per line", "Correct it."
        ) from error


def _secrets_in(text: str, where: str) -> tuple[bytes, ...]:
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
    return scheme.lower() == "bearer" and _equals_one(_bytes(token.strip()), secrets.tokens)


def admits(credential: Credential, request: Received, in_path: str | None = None) -> bool:
    """Whether a request is let in by a credential that does not need its body.

    Args:
        credential: The way in.
        request: The request; its body is not looked at.
        in_path: The last part of its path.
    """
    auth, header = credential.auth, request.headers.get("authorization")
    match auth.kind:
        case "bearer":
            return has_token(Secrets(credential.secrets), header)
        case "basic":
            return _equals_one(_basic_password(header, auth.user), credential.secrets)
        case "header":
            given = request.headers.get(auth.header.lower(), "")
            has_prefix = given.startswith(auth.prefix)
            return _equals_one(_bytes(given[len(auth.prefix) :].strip()), credential.secrets) and has_prefix
        case "query":
            return _equals_one(_bytes(request.query.get(auth.parameter, "")), credential.secrets)
        case "path":
            return _equals_one(_bytes(in_path or ""), credential.secrets)
    return False


def may_be_signed(credential: Credential, request: Received) -> bool:
    """Whether it is worth to read the body of a request, to look for a signature: its header is there."""
    header = _SNS_TYPE if credential.auth.kind == "sns" else credential.auth.header.lower()
    return credential.needs_body and header in request.headers


def is_signed(credential: Credential, request: Received) -> bool:
    """Whether a request has a valid signature, and its signed time is close to its receipt."""
    if credential.auth.kind == "sns":
        from tasks.alerts.sns import has_sns_signature

        tolerance = credential.auth.tolerance_seconds
        return has_sns_signature(request.body, credential.secrets, request.now.timestamp(), tolerance)
    return _has_hmac(credential, request)


def _has_hmac(credential: Credential, request: Received) -> bool:
    auth = credential.auth
    written = request.headers.get(auth.header.lower(), "")
    signed = _signed_bytes(auth, request, written)
    if signed is None:
        return False
    digests = [hmac.new(key, signed, auth.algorithm).digest() for key in credential.secrets]
    if auth.encoding == "hex":
        expected = [digest.hex().encode() for digest in digests]
        given = [signature.lower() for signature in _signatures(written, auth)]
    else:
        # Padding and the alphabet for addresses differ between senders.
        expected = [base64.b64encode(digest).rstrip(b"=") for digest in digests]
        given = [signature.rstrip("=").replace("-", "+").replace("_", "/") for signature in _signatures(written, auth)]
    return any([_equals_one(_bytes(signature), expected) for signature in given])


def _signatures(written: str, auth: SenderAuth) -> list[str]:
    """The signatures in a header: several while a key is being replaced, each after the prefix."""
    if not auth.prefix:
        return [part.removeprefix(f"{auth.algorithm}=") for part in re.split(r"[,\s]+", written.strip()) if part][:10]
    return re.findall(rf"(?:^|[\s,;]){re.escape(auth.prefix)}([A-Za-z0-9+/_=-]+)", written, re.ASCII | re.IGNORECASE)[:10]


def _signed_bytes(auth: SenderAuth, request: Received, written: str) -> bytes | None:
    """What the signature covers; None where a part is absent, or the signed time is none or too far from now."""
    stamp = request.headers.get(auth.timestamp_header.lower(), "") if auth.timestamp_header else ""
    if auth.timestamp_prefix:
        found = re.search(rf"(?:^|[\s,;]){re.escape(auth.timestamp_prefix)}([0-9]+)", written, re.ASCII)
        stamp = found[1] if found else ""
    stamp = stamp.strip()
    if auth.timestamp_header or auth.timestamp_prefix:
        if not _TIME.fullmatch(stamp):
            return None
        seconds = int(stamp) / 1000 if len(stamp) == 13 else int(stamp)
        if abs(request.now.timestamp() - seconds) > auth.tolerance_seconds:
            return None
    parts = {b"body": request.body, b"timestamp": stamp.encode()}
    names = [name for name in _MARK.findall(auth.signed.encode()) if name not in parts]
    for name in names:
        value = request.headers.get(name.decode().lower())
        if value is None:
            return None
        parts[name] = _bytes(value)
    return _MARK.sub(lambda mark: parts[mark[1]], auth.signed.encode())


def _basic_password(header: str | None, user: str) -> bytes:
    """The password of a user in an ``Authorization`` header; empty for another user, and without one."""
    scheme, _, written = (header or "").partition(" ")
    try:
        name, _, password = base64.b64decode(written.strip(), validate=True).partition(b":")
    except (ValueError, binascii.Error):
        return b""
    return password if scheme.lower() == "basic" and hmac.compare_digest(name, user.encode()) else b""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _equals_one(given: bytes, secrets: Sequence[bytes]) -> bool:
    """Compares with every secret, so that the duration does not reveal which one was similar."""
    return any([hmac.compare_digest(given, secret) for secret in secrets])


def usual_credentials(secrets: Secrets, signature: SenderAuth) -> tuple[Credential, ...]:
    """The ways in of ``/alerts`` itself: the bearer token, and the signature that the bridge's settings describe."""
    return (Credential(SenderAuth(kind="bearer"), secrets.tokens), Credential(signature, secrets.hmac_keys))
