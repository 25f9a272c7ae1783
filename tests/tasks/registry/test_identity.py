"""Whom a signed token names, and which tokens name nobody."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any
from unittest.mock import patch

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import ConfigError, NotAnApproverError
from tasks.registry.config import IdentityConfig
from tasks.registry.identity import name_in_token

NOW = 1_777_615_200
CLAIMS = {"email": "ann@example.com", "aud": "perennial", "iss": "https://id.example.com", "exp": NOW + 60}
SECRET = "s" * 32
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: dict[str, Any], algorithm: str = "HS256", key: Any = SECRET, header: dict[str, Any] | None = None) -> str:
    signed = f"{encoded(json.dumps(header or {'alg': algorithm}).encode())}.{encoded(json.dumps(claims).encode())}"
    if algorithm == "HS256":
        signature = hmac.new(key.encode(), signed.encode(), "sha256").digest()
    elif algorithm == "RS256":
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    else:
        pair = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        signature = b"".join(number.to_bytes(32) for number in pair)
    return f"{signed}.{encoded(signature)}"


def pem(key: Any) -> str:
    public = key.public_key()
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(public.public_bytes(serialization.Encoding.PEM, kind).decode())


def name_of(text: str, *, key: str = SECRET, now: float = NOW, **settings: Any) -> str:
    config = IdentityConfig.model_validate({"algorithm": "HS256", "issuer": "https://id.example.com", **settings})
    with patch.dict("os.environ", {"PERENNIAL_IDENTITY_KEY": key}):
        return name_in_token(text, config, now)


@pytest.mark.parametrize(("algorithm", "key"), [("HS256", SECRET), ("RS256", RSA_KEY), ("ES256", EC_KEY)])
def test_a_token_names_a_person_and_no_change_of_it_does(algorithm: str, key: Any) -> None:
    verifying = key if isinstance(key, str) else pem(key)
    good = token(CLAIMS, algorithm, key)
    assert name_of(good, key=verifying, algorithm=algorithm) == "ann@example.com"
    head, claims, signature = good.split(".")
    other = encoded(json.dumps({**CLAIMS, "email": "eve@example.com"}).encode())
    none = encoded(b'{"alg": "none"}')
    for bad in (f"{head}.{other}.{signature}", f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{head}.{claims}."):
        with pytest.raises(NotAnApproverError) as raised:
            name_of(bad, key=verifying, algorithm=algorithm)
        assert "eve" not in str(raised.value)


def test_two_public_keys_hold_while_one_is_replaced() -> None:
    newer = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    for key in (RSA_KEY, newer):
        assert name_of(token(CLAIMS, "RS256", key), key=pem(RSA_KEY) + pem(newer), algorithm="RS256") == "ann@example.com"


def test_a_public_key_is_no_shared_secret() -> None:
    """The known attack: a token signed with HMAC, whose key is the public key."""
    public = pem(RSA_KEY)
    with pytest.raises(NotAnApproverError):
        name_of(token(CLAIMS, "HS256", public), key=public, algorithm="RS256")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"exp": NOW - 61}, "expired"),
        ({"exp": None}, "never expires"),
        ({"nbf": NOW + 61}, "does not hold yet"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "another audience"),
        ({"iss": "https://evil.example.com"}, "another issuer"),
        ({"email": " "}, "without the claim email"),
        ({"email": 7}, "without the claim email"),
    ],
)
def test_a_token_that_does_not_hold_here_names_nobody(changes: dict[str, Any], found: str) -> None:
    with pytest.raises(NotAnApproverError) as raised:
        name_of(token({**CLAIMS, **changes}))
    assert found in raised.value.found


def test_the_configuration_chooses_claim_and_audience() -> None:
    claims = {**CLAIMS, "aud": ["other", "models"], "name": " Ann Lee "}
    assert name_of(token(claims), audience="models", claim="name") == "Ann Lee"


def test_a_missing_or_unfit_key_is_an_error_of_the_configuration() -> None:
    for key, algorithm in (
        ("", "HS256"),
        ("short", "HS256"),
        (SECRET, "RS256"),
        (pem(EC_KEY), "RS256"),
        (pem(RSA_KEY), "ES256"),
    ):
        with pytest.raises(ConfigError):
            name_of(token(CLAIMS), key=key, algorithm=algorithm)


@given(text=st.one_of(st.text(max_size=60), st.from_regex(r"[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}\.[A-Za-z0-9_-]{0,20}")))
def test_any_other_text_names_nobody(text: str) -> None:
    with pytest.raises(NotAnApproverError):
        name_of(text)
