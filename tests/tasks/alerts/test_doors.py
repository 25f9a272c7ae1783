"""Secrets and rates: who gets in, and how often."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.authentication import Secrets, has_signature, has_token, read_secrets, signed_bytes
from tasks.alerts.limits import RateLimit
from tasks.core.errors import ConfigError

TOKEN = "0123456789abcdef0123"
SECRETS = Secrets(tokens=(b"another-valid-token", TOKEN.encode()), hmac_keys=(b"k" * 16,))


def signature(body: bytes, key: bytes = b"k" * 16) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (f"Basic {TOKEN}", False),
        (TOKEN, False),
        (f"Bearer {TOKEN[:-1]}", False),
        ("Bearer ", False),
        ("Bearer é\udcff", False),
        (None, False),
    ],
)
def test_a_bearer_token_is_the_whole_token(header: str | None, allowed: bool) -> None:
    assert has_token(SECRETS, header) == allowed


def test_a_signature_covers_every_byte() -> None:
    assert has_signature(SECRETS, b"body", signature(b"body"))
    assert has_signature(SECRETS, b"body", "sha256=" + signature(b"body").upper())
    assert not has_signature(SECRETS, b"bodY", signature(b"body"))
    assert not has_signature(SECRETS, b"body", signature(b"body", b"x" * 16))
    assert not has_signature(SECRETS, b"body", None)
    assert not has_signature(Secrets(tokens=SECRETS.tokens), b"body", signature(b"body"))


def test_a_signed_time_is_close_to_now() -> None:
    assert signed_bytes(b"body", "1000", 1299.0) == b"1000:body"
    assert signed_bytes(b"body", "1000", 1301.0) is None
    for odd in (None, "", "-1", "1e3", "١٠٠٠", "9" * 40):
        assert signed_bytes(b"body", odd, 1000.0) is None


def test_secrets_come_from_the_environment_or_from_files_one_per_line(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("first-key-0123456\n\n  second-key-0123456\n")
    secrets = read_secrets({"PERENNIAL_ALERT_TOKEN": TOKEN, "PERENNIAL_ALERT_HMAC_KEY_FILE": str(tmp_path / "keys")})
    assert secrets == Secrets((TOKEN.encode(),), (b"first-key-0123456", b"second-key-0123456"))
    assert TOKEN not in repr(secrets)


@pytest.mark.parametrize(
    "environment",
    [{}, {"PERENNIAL_ALERT_TOKEN": "  "}, {"PERENNIAL_ALERT_TOKEN": "short"}, {"PERENNIAL_ALERT_TOKEN_FILE": "/no"}],
)
def test_without_a_good_secret_nothing_starts(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as raised:
        read_secrets(environment)
    assert "short" not in raised.value.found


@given(pauses=st.lists(st.floats(0, 2), max_size=60), per_second=st.floats(0.1, 50), burst=st.integers(1, 10))
def test_never_more_than_the_rate_allows_and_the_returned_pause_is_enough(
    pauses: list[float], per_second: float, burst: int
) -> None:
    now = 100.0
    limit = RateLimit(per_second, burst, now)
    for passed, pause in enumerate(pauses, start=1):
        now += pause
        wait = limit.take(now)
        if wait > 0:
            now += wait + 1e-6
            assert limit.take(now) == 0
        assert passed <= burst + (now - 100.0) * per_second + 1e-6
