"""Who a signed token (JWT) names. Pure but for the key, which the environment or a Prefect block holds.

The algorithm is the configured one, whatever a token says of itself. Source: RFC 7519 and RFC 8725.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from typing import Any

from pydantic_core import from_json

from tasks.core.errors import ConfigError, NotAnApproverError
from tasks.core.secrets import load_secret
from tasks.core.typed_text import NAME_CHARACTERS, cut
from tasks.registry.config import IdentityConfig

_LEEWAY_SECONDS = 60.0
_MOST_CHARACTERS = 10_000
_MIN_SECRET_LENGTH = 32
_PEM = re.compile(r"-----BEGIN [A-Z ]+-----.+?-----END [A-Z ]+-----", re.DOTALL)


def name_in_token(token: str, config: IdentityConfig, now: float) -> str:
    """The person that a token names.

    Args:
        token: The token; no error repeats it.
        config: How it must be signed, and for whom.
        now: Unix time at which it was used.

    Raises:
        ConfigError: There is no key, or it does not fit the algorithm.
        NotAnApproverError: The token is not valid; the message says why.
    """
    key = load_secret("registry.identity.block", variable=config.variable, block=config.block)
    if not key:
        where = f"Secret block {config.block}" if config.block else f"environment variable {config.variable}"
        raise ConfigError(where, "no key", f"the key that verifies {config.algorithm}", "Set it where answers are read.")
    try:
        header, payload, signature = token.strip()[:_MOST_CHARACTERS].split(".")
        claims, named = from_json(_decoded(payload)), from_json(_decoded(header))
        signed = _is_signed(f"{header}.{payload}".encode(), _decoded(signature), key, config)
    except (ValueError, binascii.Error):
        raise _refusal("a text that is no token") from None
    if not isinstance(claims, dict) or not isinstance(named, dict) or named.get("alg") != config.algorithm or not signed:
        raise _refusal(f"a token that is not signed with {config.algorithm} and the configured key")
    return _name_in(claims, config, now)


def _name_in(claims: dict[str, Any], config: IdentityConfig, now: float) -> str:
    expires, begins, meant_for = claims.get("exp"), claims.get("nbf", 0), claims.get("aud")
    if not isinstance(expires, int | float) or not isinstance(begins, int | float):
        raise _refusal("a token that never expires")
    if now > expires + _LEEWAY_SECONDS or now < begins - _LEEWAY_SECONDS:
        raise _refusal("a token that has expired, or does not hold yet")
    if config.audience not in (meant_for if isinstance(meant_for, list) else [meant_for]):
        raise _refusal("a token for another audience")
    if config.issuer is not None and claims.get("iss") != config.issuer:
        raise _refusal("a token of another issuer")
    name = claims.get(config.claim)
    if not isinstance(name, str) or not name.strip():
        raise _refusal(f"a token without the claim {config.claim}")
    return cut(name.strip(), NAME_CHARACTERS)


def _refusal(found: str) -> NotAnApproverError:
    return NotAnApproverError("the identity of an answer", found, "a valid token", "Get a new one, and answer again.")


def _is_signed(signed: bytes, signature: bytes, key: str, config: IdentityConfig) -> bool:
    """Whether a signature is valid.

    Raises:
        ConfigError: The key does not fit the algorithm.
    """
    if config.algorithm == "HS256":
        if len(key) < _MIN_SECRET_LENGTH:
            raise _bad_key(config, f"a secret of fewer than {_MIN_SECRET_LENGTH} characters")
        return hmac.compare_digest(hmac.new(key.encode(), signed, "sha256").digest(), signature)
    return any([_is_signed_by(pem, signed, signature, config) for pem in _PEM.findall(key) or [key]])


def _is_signed_by(pem: str, signed: bytes, signature: bytes, config: IdentityConfig) -> bool:
    """Whether a signature is valid under one public key."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(pem.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise _bad_key(config, "no public key in PEM") from None
    try:
        if config.algorithm == "RS256" and isinstance(public, rsa.RSAPublicKey):
            public.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
        elif config.algorithm == "ES256" and isinstance(public, ec.EllipticCurvePublicKey) and public.key_size == 256:
            if len(signature) != 64:
                return False
            pair = encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))
            public.verify(pair, signed, ec.ECDSA(hashes.SHA256()))
        else:
            raise _bad_key(config, "a key of another kind")
    except InvalidSignature:
        return False
    return True


def _bad_key(config: IdentityConfig, found: str) -> ConfigError:
    where = f"Secret block {config.block}" if config.block else f"environment variable {config.variable}"
    return ConfigError(where, found, f"a key for {config.algorithm}", "Correct it, or registry.identity.algorithm.")


def _decoded(part: str) -> bytes:
    return base64.b64decode(part.replace("-", "+").replace("_", "/") + "=" * (-len(part) % 4), validate=True)
