"""Rules for secrets: gitleaks' table of vendors' formats, and this project's own for what people write in prose.

The project's own expressions hold no nested repetition, so that no text makes them slow. Assignments and passwords in prose
must also look random: entropy and character classes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class SecretRule:
    """One kind of secret.

    Args:
        id: The name in findings, reports and settings.
        keywords: Lower-case literals of which every such secret holds one; the pattern is tried only where one stands.
        pattern: A regular expression of :mod:`re` or of google-re2.
        validator: Whether a match looks like a secret; cuts false hits.
        group: The group that is the secret; None takes the named group that matched, or else the whole match.
        lookback: Characters before the first keyword in which the secret may begin; None reads the text from its start.
        hits: Texts in which the rule finds what stands between « and ».
        misses: Texts in which it finds nothing.
        source: Who wrote the rule.
        is_loose: Whether any characters may be the secret, so that a line's last word and the next line's first are no
            secret unless each looks like a part of one.
    """

    id: str
    keywords: tuple[str, ...]
    pattern: Any
    validator: Callable[[str], bool] | None = None
    group: int | None = None
    lookback: int | None = None
    hits: tuple[str, ...] = ()
    misses: tuple[str, ...] = ()
    source: str = "own"
    is_loose: bool = False


def entropy(value: str) -> float:
    """Shannon entropy in bits per character; random base-62 of 20 characters has about 4, an English word about 3."""
    total = len(value)
    return -sum(count / total * math.log2(count / total) for count in Counter(value).values()) if total else 0.0


def looks_random(value: str) -> bool:
    """Letters and digits, many of them different."""
    if value.startswith(("<", "{", "$", "[", "%")) or len(set(value)) < 6:
        return False
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value)) and entropy(value) >= 3.0


def looks_like_password(value: str) -> bool:
    """Letters with a digit or a symbol among them: ``hunter2`` and ``Tr0ub4dor&3``, not ``expired``."""
    value = value.rstrip(".,;:!?)")
    if value.startswith(("<", "{", "[", "$", "http")) or len(set(value)) < 4:
        return False
    has_symbol = any(not character.isalnum() for character in value.strip("-'’.,/"))
    is_word = value.replace("-", "").replace("'", "").replace("’", "").replace("/", "").isalpha()
    return not is_word and any(map(str.isalpha, value)) and (any(map(str.isdigit, value)) or has_symbol)


def _is_login_pair(value: str) -> bool:
    password = re.split(r"[/:]", value, maxsplit=1)[1].strip(" .,;!?)")
    return looks_like_password(password) and not password.isalnum()


def _is_no_example(value: str) -> bool:
    is_placeholder = value.strip("*x.X<>{}$ ") == ""
    return not is_placeholder and value.lower() not in {"password", "pass", "user", "secret", "pwd", "changeme"}


_EDGE, _END = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9_-])"
_SECRET_NAME = (
    r"(?:api|access|auth|account|client|consumer|app|service|secret|private|encryption|signing|webhook|bearer|refresh|db)?"
    r"[ _.-]?(?:key|token|secret|passwd|password|pwd|credential|passphrase)s?"
)


def _vendor(
    name: str,
    keywords: tuple[str, ...],
    expression: str,
    hit: str,
    miss: str,
    validator: Callable[[str], bool] | None = None,
    lookback: int = 0,
) -> SecretRule:
    return SecretRule(
        id=name,
        keywords=keywords,
        pattern=re.compile(expression),
        validator=validator,
        lookback=lookback,
        hits=(hit,),
        misses=(miss,),
    )


_EXAMPLE = "Ab3dE6gH9jK2mN5pQ8sT1vW4xY7zAb3dE6gH9jK2"
_HEX = "0123456789abcdef"
"""Made-up values for the examples."""
_VENDOR_RULES = (
    _vendor(
        "github_token",
        ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
        _EDGE + r"(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{40,255})",
        f"clone with «ghp_{_EXAMPLE}» please",
        "clone with ghp_token please",
    ),
    _vendor(
        "slack_token",
        ("xox",),
        "(?i)" + _EDGE + r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}",
        f"use «xoxb-123456789012-{_EXAMPLE}».",
        "use xoxb-none.",
    ),
    _vendor(
        "slack_webhook",
        ("hooks.slack.com",),
        r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,120}",
        f"post to https://«hooks.slack.com/services/T0/B0/{_EXAMPLE}» now",
        "see hooks.slack.com/services",
    ),
    _vendor(
        "stripe_key",
        ("sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"),
        _EDGE + r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{10,250}|whsec_[A-Za-z0-9+/=]{20,100})",
        f"the key is «sk_live_{_EXAMPLE}».",
        "the prefix sk_live_ is for keys",
    ),
    _vendor(
        "google_oauth_token",
        ("ya29.", "gocspx-"),
        _EDGE + r"(?:ya29\.[A-Za-z0-9_-]{20,400}|GOCSPX-[A-Za-z0-9_-]{20,60})",
        f"send «ya29.{_EXAMPLE}»",
        "send ya29.",
    ),
    _vendor(
        "openai_or_anthropic_key",
        ("sk-",),
        _EDGE + r"sk-(?:[a-z]{2,10}[0-9]{0,2}-)*[A-Za-z0-9_-]{20,250}",
        f"export KEY=«sk-proj-{_EXAMPLE}»",
        "the sk-learn-like-estimators-of-this-kind",
        looks_random,
    ),
    _vendor("huggingface_token", ("hf_",), _EDGE + r"hf_[A-Za-z0-9]{30,64}" + _END, f"use «hf_{_EXAMPLE}».", "use hf_hub."),
    _vendor("pypi_token", ("pypi-",), _EDGE + r"pypi-[A-Za-z0-9_-]{50,250}" + _END, f"«pypi-{_EXAMPLE * 2}»", "pypi-up"),
    _vendor(
        "sendgrid_key",
        ("sg.",),
        _EDGE + r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}",
        f"it is «SG.{_EXAMPLE[:22]}.{_EXAMPLE}»",
        "it is SG.1",
    ),
    _vendor("mailgun_key", ("key-",), _EDGE + r"key-[0-9a-f]{32}" + _END, f"see «key-{_HEX}{_HEX}».", "a key-value store"),
    _vendor(
        "twilio_key",
        ("ac", "sk"),
        r"(?<![A-Za-z0-9])(?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])",
        f"sid «AC{_HEX}{_HEX}»",
        "sid AC12",
        looks_random,
    ),
    _vendor(
        "square_token",
        ("eaaa", "sq0"),
        _EDGE + r"(?:EAAA[A-Za-z0-9_-]{60}|sq0[a-z]{3}-[A-Za-z0-9_-]{22,43})" + _END,
        f"«sq0csp-{_EXAMPLE}»",
        "sq0csp-12",
    ),
    _vendor(
        "telegram_token",
        (":aa",),
        r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_-]{32,35}" + _END,
        f"bot «123456789:AA{_EXAMPLE[:33]}»",
        "bot 123456789:AA",
        lookback=12,
    ),
    _vendor(
        "discord_webhook",
        ("discord",),
        r"discord(?:app)?\.com/api/webhooks/\d{15,21}/[A-Za-z0-9_-]{30,100}",
        f"https://«discord.com/api/webhooks/123456789012345678/{_EXAMPLE}»",
        "the discord server",
    ),
)
"""Formats that gitleaks has more narrowly: of a fixed length, or beside the vendor's name only."""

OWN_RULES: tuple[SecretRule, ...] = (
    *_VENDOR_RULES,
    SecretRule(
        id="private_key",
        keywords=("private key",),
        pattern=re.compile(
            r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[^-]{0,20000}-----END [A-Z0-9 ]{0,40}-----)?"
        ),
        lookback=64,
        hits=("see «-----BEGIN OPENSSH PRIVATE KEY-----» there",),
        misses=("your private key is safe",),
    ),
    SecretRule(
        id="putty_key",
        keywords=("putty-user-key-file",),
        pattern=re.compile(r"PuTTY-User-Key-File-\d"),
        hits=("«PuTTY-User-Key-File-2»: ssh-rsa",),
        misses=("a PuTTY-User-Key-File is needed",),
    ),
    SecretRule(
        id="aws_access_key",
        keywords=("akia", "asia", "aroa", "aida", "agpa", "anpa"),
        pattern=re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
        hits=("use «AKIAIOSFODNN7EXAMPLE».",),
        misses=("ASIA is a continent",),
    ),
    SecretRule(
        id="aws_secret_key",
        keywords=("aws",),
        pattern=re.compile(
            r"aws[^\n]{0,40}?(?:secret|key)[^\n]{0,20}?[=:\s\"']+(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
            re.IGNORECASE,
        ),
        validator=looks_random,
        lookback=0,
        hits=(f"aws_secret_access_key = «{_EXAMPLE}»",),
        misses=("the aws key is in the drawer",),
    ),
    SecretRule(
        id="azure_key",
        keywords=("accountkey", "sharedaccesskey", "sig="),
        pattern=re.compile(
            r"(?:AccountKey|SharedAccessKey)\s*=\s*(?P<secret>[A-Za-z0-9+/]{40,90}={0,2})|[?&]sig=(?P<sig>[A-Za-z0-9%]{40,120})",
            re.IGNORECASE,
        ),
        lookback=2,
        hits=(f"AccountKey=«{_EXAMPLE}==»;", f"a?sv=1&sig=«{_EXAMPLE}»"),
        misses=("AccountKey=none",),
    ),
    SecretRule(
        id="jwt_in_prose",
        keywords=("eyj",),
        pattern=re.compile(
            r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{4,8000}(?:\.[A-Za-z0-9_-]{0,2000})?"
        ),
        lookback=0,
        hits=("send «eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV» along",),
        misses=("eyJhbGciOiJIUzI1NiJ9 alone",),
    ),
    SecretRule(
        id="connection_string",
        keywords=("://",),
        pattern=re.compile(
            r"(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,30}://[^\s:@/'\"<>]{0,100}:(?P<secret>[^\s@/'\"<>]{3,200})@[^\s'\"<>]{2,}",
            re.IGNORECASE,
        ),
        validator=_is_no_example,
        lookback=40,
        hits=("postgres://svc:«tr0ub4dor»@db.internal/prod",),
        misses=("https://example.com/path:80/x@y", "ftp://user:password@host"),
    ),
    SecretRule(
        id="connection_password",
        is_loose=True,
        keywords=("pwd=", "password="),
        pattern=re.compile(r"(?:;|\b)(?:pwd|password)\s?=\s?(?P<secret>[^\s;'\"<>&]{4,200})\s?;", re.IGNORECASE),
        validator=_is_no_example,
        lookback=1,
        hits=("Server=db;Pwd=«tr0ub4dor»;",),
        misses=("Server=db;Pwd=***;",),
    ),
    SecretRule(
        id="authorization_header",
        is_loose=True,
        keywords=("bearer ", "basic ", "authtoken"),
        pattern=re.compile(
            r"(?:authorization[\"']?\s?[:=]\s?[\"']?(?:bearer|basic)\s{1,3}|\bbearer\s{1,3}|_authToken\s?=\s?)(?P<secret>[A-Za-z0-9+/=_.~-]{16,4000})",
            re.IGNORECASE,
        ),
        validator=looks_random,
        lookback=64,
        hits=(f"Authorization: Bearer «{_EXAMPLE}»",),
        misses=("the bearer of good-news-everyone-today",),
    ),
    SecretRule(
        id="assigned_secret",
        is_loose=True,
        keywords=("key", "token", "secret", "passwd", "credential", "passphrase"),
        pattern=re.compile(
            r"(?<![A-Za-z])"
            + _SECRET_NAME
            + r"[\"']?\s{0,3}(?:=>|:=|=|:|\bis\b)\s{0,3}[\"'`]?(?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*-]{12,400})",
            re.IGNORECASE,
        ),
        validator=looks_random,
        lookback=24,
        hits=("client_secret: «9f8a7b6c5d4e3f2a1b0c»",),
        misses=("the key is responsibility", "The secret is out: basil."),
    ),
    SecretRule(
        id="password_in_prose",
        is_loose=True,
        keywords=("password", "passcode", "passphrase", "passwd", "pwd", "passwort", "contraseña", "mot de passe"),
        pattern=re.compile(
            r"(?<![A-Za-z])(?:password|passcode|passphrase|passwd|pwd|passwort|contraseña|mot de passe)s?\b"
            r"(?:\s(?:for|to|on|of|at)(?:\s[\w.'-]{1,30}){1,4}?)?"
            r"\s{0,3}(?:[:=]|\b(?:is|was|to|ist|es|est)\b(?:\s(?:now|currently|still|set to|this|also))?)"
            r"\s{0,3}:?\s{0,2}[\"'`“‘]?"
            r"(?P<secret>[^\s\"'`“”‘’<>]{4,128})",
            re.IGNORECASE,
        ),
        validator=looks_like_password,
        lookback=0,
        hits=("the password is «hunter2!»", "mein Passwort ist «geheim1»"),
        misses=("My password is not working", "The password was changed yesterday, is it still valid?"),
    ),
    SecretRule(
        id="login_pair",
        is_loose=True,
        keywords=("login", "credential", "username", "log in", "sign in"),
        pattern=re.compile(
            r"\b(?:login|credentials?|username|log in|sign in)\b[^\n]{0,40}?\s"
            r"(?P<secret>[\w.@-]{3,64}\s?[/:]\s?[^\s/:]{6,64})",
            re.IGNORECASE,
        ),
        validator=_is_login_pair,
        lookback=0,
        hits=("the login is «anna/Tr0ub4dor&3»",),
        misses=("sign in and/or register", "login: anna/password1"),
    ),
    SecretRule(
        id="pin_code",
        is_loose=True,
        keywords=("pin",),
        pattern=re.compile(
            r"\b(?:my|the|your|his|her|their|card|sim|account)\s(?:\w{1,12}\s)?pin(?:\s?(?:code|number))?\s{0,2}(?:is|was|:|=)\s{0,2}(?:now\s)?(?P<secret>\d{4,8})\b",
            re.IGNORECASE,
        ),
        lookback=32,
        hits=("my card pin is «4821»",),
        misses=("Your pin is on its way",),
    ),
)
