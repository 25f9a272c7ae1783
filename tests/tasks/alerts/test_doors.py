"""Secrets and rates: who gets in, and how often."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.accept import AcceptRule
from tasks.alerts.authentication import (
    Credential,
    Secrets,
    admits,
    credentials_of,
    has_token,
    is_signed,
    may_be_signed,
    read_secrets,
)
from tasks.alerts.expressions import Received
from tasks.alerts.limits import RateLimit
from tasks.core.errors import ConfigError

TOKEN, KEY = "0123456789abcdef0123", "k" * 16
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


def received(body: bytes = b"body", now: float = 1_777_615_200.0, **headers: str) -> Received:
    lower = {name.replace("_", "-").lower(): value for name, value in headers.items()}
    return Received(body, datetime.fromtimestamp(now, UTC), lower)


def hmac_by(secret: str = KEY, **settings: Any) -> Credential:
    """A way in with one valid secret, as its environment variable gives it."""
    auth = {"kind": "hmac", "header": "X-Signature", **settings}
    rule = AcceptRule.model_validate({"sender": "own", "name": "name", "auth": auth})
    return credentials_of(rule, {"PERENNIAL_ALERT_OWN": secret})[0]


def test_a_signature_covers_every_byte() -> None:
    way = hmac_by()
    assert is_signed(way, received(X_Signature=signature(b"body")))
    assert is_signed(way, received(X_Signature="sha256=" + signature(b"body").upper()))
    assert not is_signed(way, received(b"bodY", X_Signature=signature(b"body")))
    assert not is_signed(way, received(X_Signature=signature(b"body", b"x" * 16)))
    assert not is_signed(way, received())
    assert not is_signed(Credential(way.auth, ()), received(X_Signature=signature(b"body")))


def digest(signed: bytes, key: bytes = KEY.encode(), algorithm: str = "sha256") -> bytes:
    return hmac.new(key, signed, algorithm).digest()


NOW = 1_777_615_200
STAMPED = b"1777615200.body"
RAW_KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("settings", "secret", "headers"),
    [
        # PagerDuty: several signatures while a secret is being replaced.
        ({"prefix": "v1="}, KEY, {"X_Signature": f"v1={'00' * 32},v1={digest(b'body').hex()}"}),
        # GitHub's form, in another hash.
        ({"prefix": "sha1=", "algorithm": "sha1"}, KEY, {"X_Signature": "sha1=" + digest(b"body", algorithm="sha1").hex()}),
        # Shopify's: base64 without a prefix.
        ({"encoding": "base64"}, KEY, {"X_Signature": base64.b64encode(digest(b"body")).decode()}),
        # Stripe's: time and signature in one header.
        (
            {"prefix": "v1=", "signed": "{timestamp}.{body}", "timestamp_prefix": "t="},
            KEY,
            {"X_Signature": f"t={NOW},v1={digest(STAMPED).hex()},v0=00"},
        ),
        # Slack's: the time in a header of its own.
        (
            {"prefix": "v0=", "signed": "v0:{timestamp}:{body}", "timestamp_header": "X-Slack-Request-Timestamp"},
            KEY,
            {"X_Signature": "v0=" + digest(b"v0:1777615200:body").hex(), "X_Slack_Request_Timestamp": str(NOW)},
        ),
        # Standard Webhooks: a key in base64, and another header signed.
        (
            {
                "header": "webhook-signature",
                "prefix": "v1,",
                "encoding": "base64",
                "key_encoding": "base64",
                "signed": "{webhook-id}.{timestamp}.{body}",
                "timestamp_header": "webhook-timestamp",
            },
            "whsec_" + base64.b64encode(RAW_KEY).decode(),
            {
                "webhook_signature": "v1," + base64.b64encode(digest(b"msg_1.1777615200.body", RAW_KEY)).decode(),
                "webhook_id": "msg_1",
                "webhook_timestamp": str(NOW),
            },
        ),
    ],
)
def test_signatures_are_written_in_many_forms(settings: dict[str, Any], secret: str, headers: dict[str, str]) -> None:
    way = hmac_by(secret, **settings)
    assert may_be_signed(way, received(**headers))
    assert is_signed(way, received(**headers))
    assert not is_signed(way, received(b"bodY", **headers))
    for absent in headers:
        assert not is_signed(way, received(**{name: value for name, value in headers.items() if name != absent}))
    if "{timestamp}" in settings.get("signed", ""):
        assert is_signed(way, received(now=NOW + 299, **headers))
        assert is_signed(way, received(now=NOW - 299, **headers))
        assert not is_signed(way, received(now=NOW + 301, **headers))
        assert not is_signed(way, received(now=NOW - 301, **headers))
        wide = hmac_by(secret, **settings, tolerance_seconds=3600)
        assert is_signed(wide, received(now=NOW + 3599, **headers))


def test_a_signed_time_is_a_plain_number() -> None:
    way = hmac_by(signed="{timestamp}.{body}", timestamp_header="X-Time")
    for odd in ("", "-1777615200", "1777615200.0", "1e9", "١٧٧٧٦١٥٢٠٠", "9" * 40):
        written = digest(odd.encode() + b".body").hex()
        assert not is_signed(way, received(X_Signature=written, X_Time=odd))
    in_ms = "1777615200000"
    assert is_signed(way, received(X_Signature=digest(in_ms.encode() + b".body").hex(), X_Time=in_ms))


def test_a_token_may_stand_in_several_places_and_is_always_the_whole_token() -> None:
    def way(**auth: Any) -> Credential:
        rule = AcceptRule.model_validate({"sender": "own", "name": "name", "auth": auth})
        return credentials_of(rule, {"PERENNIAL_ALERT_OWN": f"another-valid-token\n{TOKEN}"})[0]

    basic = base64.b64encode(f"perennial:{TOKEN}".encode()).decode()
    other = base64.b64encode(f"someone:{TOKEN}".encode()).decode()
    assert admits(way(kind="bearer"), received(Authorization=f"Bearer {TOKEN}"))
    assert admits(way(kind="basic"), received(Authorization=f"Basic {basic}"))
    for odd in (f"Basic {other}", f"Bearer {basic}", "Basic", "Basic é", f"Basic {basic}x"):
        assert not admits(way(kind="basic"), received(Authorization=odd))
    in_header = way(kind="header", header="X-Token", prefix="Token ")
    assert admits(in_header, received(X_Token=f"Token {TOKEN}"))
    assert not admits(in_header, received(X_Token=TOKEN))
    assert not admits(in_header, received(X_Token=f"Token {TOKEN}x"))
    query = way(kind="query", parameter="code")
    assert admits(query, replace(received(), query={"code": TOKEN}))
    assert not admits(query, replace(received(), query={"token": TOKEN}))
    assert admits(way(kind="path"), received(), TOKEN)
    for absent in (None, "", TOKEN[:-1]):
        assert not admits(way(kind="path"), received(), absent)


def test_a_sender_without_a_good_secret_stops_the_start() -> None:
    rule = AcceptRule.model_validate("new-relic")
    with pytest.raises(ConfigError, match="PERENNIAL_ALERT_NEW_RELIC"):
        credentials_of(rule, {})
    with pytest.raises(ConfigError) as raised:
        credentials_of(rule, {"PERENNIAL_ALERT_NEW_RELIC": "short"})
    assert "short" not in raised.value.found
    with pytest.raises(ConfigError, match="not hex"):
        hmac_by(secret="no hexadecimal text", key_encoding="hex")
    absent = AcceptRule.model_validate({"preset": "sns", "auth": {"kind": "sns", "certificates": ["/no"]}})
    with pytest.raises(ConfigError, match="FileNotFoundError"):
        credentials_of(absent, {})


def test_a_secret_may_stand_in_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.alerts.authentication.load_secret", lambda setting, *, variable, block: TOKEN)
    rule = AcceptRule.model_validate({"preset": "datadog", "auth": {"kind": "bearer", "block": "datadog"}})
    (way,) = credentials_of(rule, {})
    assert admits(way, received(Authorization=f"Bearer {TOKEN}"))


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


def test_with_accept_rules_the_usual_secret_may_be_absent() -> None:
    assert read_secrets({}, required=False) == Secrets()


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
