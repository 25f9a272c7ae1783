"""Credentials found by vendor patterns, each tried only where its keyword occurs.

One Aho-Corasick pass over the lower-cased text finds the keywords; only the patterns whose keyword is there run, each from
a window around the keyword. The formats are those their vendors document, as collected in gitleaks' and
detect-secrets' rule sets; the expressions are this project's own, without nested repetition, so that no text makes
them slow. Generic assignments and passwords in prose must also look random: entropy and character classes.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import ahocorasick

from tasks.confidential.terms import Hit

Check = Callable[[str], bool]
_WINDOW = 64
"""Characters before a keyword in which its secret may begin (a connection string's scheme, an assignment's name)."""


@dataclass(frozen=True)
class Pattern:
    """One kind of secret: what it looks like, the literal that every one of them holds, and a check that cuts false hits."""

    name: str
    keywords: tuple[str, ...]
    regex: re.Pattern[str]
    check: Check | None = None
    lookback: int = 0


def entropy(value: str) -> float:
    """Shannon entropy in bits per character; random base-62 of 20 characters has about 4, an English word about 3."""
    total = len(value)
    return -sum(count / total * math.log2(count / total) for count in Counter(value).values()) if total else 0.0


def _looks_random(value: str) -> bool:
    if value.startswith(("<", "{", "$", "[", "%")) or len(set(value)) < 6:
        return False
    has_digit = any(character.isdigit() for character in value)
    has_letter = any(character.isalpha() for character in value)
    return has_digit and has_letter and entropy(value) >= 3.0


def _looks_like_password(value: str) -> bool:
    """Letters with a digit or a symbol among them: ``hunter2`` and ``Tr0ub4dor&3``, not ``expired``."""
    if value.startswith(("<", "{", "[", "$", "http")) or len(set(value)) < 4:
        return False
    has_digit = any(character.isdigit() for character in value)
    has_letter = any(character.isalpha() for character in value)
    has_symbol = any(not character.isalnum() for character in value.strip("-'’.,/"))
    is_word = value.replace("-", "").replace("'", "").replace("’", "").replace("/", "").isalpha()
    return not is_word and (has_letter and (has_digit or has_symbol))


def _is_credential_free_example(value: str) -> bool:
    return value.strip("*x.X<>{}$ ") == "" or value.lower() in {"password", "pass", "user", "secret", "pwd", "changeme"}


def _url_password(value: str) -> bool:
    return not _is_credential_free_example(value)


def _compile(expression: str, *, ignore_case: bool = False) -> re.Pattern[str]:
    return re.compile(expression, re.IGNORECASE if ignore_case else 0)


_EDGE = r"(?<![A-Za-z0-9_-])"
_END = r"(?![A-Za-z0-9_-])"
_SECRET_NAME = (
    r"(?:api|access|auth|account|client|consumer|app|service|secret|private|encryption|signing|webhook|bearer|refresh|db)?"
    r"[ _.-]?(?:key|token|secret|passwd|password|pwd|credential|passphrase)s?"
)


def built_in_patterns() -> tuple[Pattern, ...]:
    """The secret formats looked for by default, most specific first."""

    def prefixed(name: str, prefix: str, rest: str, check: Check | None = None) -> Pattern:
        return Pattern(name, (prefix.lower(),), _compile(_EDGE + re.escape(prefix) + rest + _END), check)

    return (
        Pattern(
            "private_key",
            ("private key",),
            _compile(
                r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:[^-]{0,20000}-----END [A-Z0-9 ]{0,40}-----)?"
            ),
            lookback=_WINDOW,
        ),
        Pattern("putty_key", ("putty-user-key-file",), _compile(r"PuTTY-User-Key-File-\d")),
        Pattern(
            "aws_access_key",
            ("akia", "asia", "aroa", "aida", "agpa", "anpa"),
            _compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA|AROA|AIDA|AGPA|ANPA)[A-Z2-7]{16}(?![A-Za-z0-9])"),
        ),
        Pattern(
            "aws_secret_key",
            ("aws",),
            _compile(
                r"aws[^\n]{0,40}?(?:secret|key)[^\n]{0,20}?[=:\s\"']+(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
                ignore_case=True,
            ),
            _looks_random,
        ),
        Pattern(
            "github_token",
            ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
            _compile(_EDGE + r"(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{40,255})"),
        ),
        prefixed("gitlab_token", "glpat-", r"[A-Za-z0-9_-]{20,64}"),
        Pattern(
            "slack_token", ("xox",), _compile(_EDGE + r"xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}", ignore_case=True)
        ),
        Pattern(
            "slack_webhook",
            ("hooks.slack.com",),
            _compile(r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,120}"),
        ),
        Pattern(
            "stripe_key",
            ("sk_live_", "rk_live_", "sk_test_", "rk_test_", "whsec_"),
            _compile(_EDGE + r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{10,250}|whsec_[A-Za-z0-9+/=]{20,100})"),
        ),
        Pattern("google_api_key", ("aiza",), _compile(_EDGE + r"AIza[A-Za-z0-9_-]{35}" + _END)),
        Pattern(
            "google_oauth_token",
            ("ya29.", "gocspx-"),
            _compile(_EDGE + r"(?:ya29\.[A-Za-z0-9_-]{20,400}|GOCSPX-[A-Za-z0-9_-]{20,60})"),
        ),
        Pattern(
            "openai_or_anthropic_key",
            ("sk-",),
            _compile(_EDGE + r"sk-(?:[a-z]{2,10}[0-9]{0,2}-)*[A-Za-z0-9_-]{20,250}"),
            _looks_random,
        ),
        prefixed("huggingface_token", "hf_", r"[A-Za-z0-9]{30,64}"),
        prefixed("npm_token", "npm_", r"[A-Za-z0-9]{36}"),
        prefixed("pypi_token", "pypi-", r"[A-Za-z0-9_-]{50,250}"),
        Pattern("sendgrid_key", ("sg.",), _compile(_EDGE + r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}")),
        Pattern("mailgun_key", ("key-",), _compile(_EDGE + r"key-[0-9a-f]{32}" + _END)),
        Pattern(
            "twilio_key", ("ac", "sk"), _compile(r"(?<![A-Za-z0-9])(?:AC|SK)[0-9a-f]{32}(?![A-Za-z0-9])"), _looks_random
        ),
        Pattern("shopify_token", ("shp",), _compile(_EDGE + r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}" + _END)),
        Pattern("digitalocean_token", ("do",), _compile(_EDGE + r"do[opr]_v1_[a-f0-9]{64}" + _END)),
        Pattern(
            "square_token",
            ("eaaa", "sq0"),
            _compile(_EDGE + r"(?:EAAA[A-Za-z0-9_-]{60}|sq0[a-z]{3}-[A-Za-z0-9_-]{22,43})" + _END),
        ),
        Pattern("telegram_token", (":aa",), _compile(r"(?<!\d)\d{8,10}:AA[A-Za-z0-9_-]{32,35}" + _END), lookback=12),
        Pattern(
            "discord_webhook", ("discord",), _compile(r"discord(?:app)?\.com/api/webhooks/\d{15,21}/[A-Za-z0-9_-]{30,100}")
        ),
        Pattern(
            "azure_key",
            ("accountkey", "sharedaccesskey", "sig="),
            _compile(
                r"(?:AccountKey|SharedAccessKey)\s*=\s*(?P<secret>[A-Za-z0-9+/]{40,90}={0,2})|[?&]sig=(?P<sig>[A-Za-z0-9%]{40,120})",
                ignore_case=True,
            ),
            lookback=2,
        ),
        Pattern(
            "jwt",
            ("eyj",),
            _compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{4,8000}(?:\.[A-Za-z0-9_-]{0,2000})?"),
        ),
        Pattern(
            "connection_string",
            ("://",),
            _compile(
                r"(?<![A-Za-z0-9])[a-z][a-z0-9+.-]{1,30}://[^\s:@/'\"<>]{0,100}:(?P<secret>[^\s@/'\"<>]{3,200})@[^\s'\"<>]{2,}",
                ignore_case=True,
            ),
            _url_password,
            lookback=40,
        ),
        Pattern(
            "connection_password",
            ("pwd=", "password="),
            _compile(r"(?:;|\b)(?:pwd|password)\s?=\s?(?P<secret>[^\s;'\"<>&]{4,200})\s?;", ignore_case=True),
            _url_password,
            lookback=1,
        ),
        Pattern(
            "authorization_header",
            ("bearer ", "basic ", "authtoken"),
            _compile(
                r"(?:authorization[\"']?\s?[:=]\s?[\"']?(?:bearer|basic)\s{1,3}|\bbearer\s{1,3}|_authToken\s?=\s?)(?P<secret>[A-Za-z0-9+/=_.~-]{16,4000})",
                ignore_case=True,
            ),
            _looks_random,
            lookback=_WINDOW,
        ),
        Pattern(
            "assigned_secret",
            ("key", "token", "secret", "passwd", "credential", "passphrase"),
            _compile(
                r"(?<![A-Za-z])"
                + _SECRET_NAME
                + r"[\"']?\s{0,3}(?:=>|:=|=|:|\bis\b)\s{0,3}[\"'`]?(?P<secret>[A-Za-z0-9+/=_.~!@#$%^&*-]{12,400})",
                ignore_case=True,
            ),
            _looks_random,
            lookback=24,
        ),
        Pattern(
            "password_in_prose",
            ("password", "passcode", "passphrase", "passwd", "pwd", "passwort", "contraseña", "mot de passe"),
            _compile(
                r"(?<![A-Za-z])(?:password|passcode|passphrase|passwd|pwd|passwort|contraseña|mot de passe)s?\b"
                r"(?:\s(?:for|to|on|of|at)(?:\s[\w.'-]{1,30}){1,4}?)?"
                r"\s{0,3}(?:[:=]|\b(?:is|was|to|ist|es|est)\b(?:\s(?:now|currently|still|set to|this|also))?)"
                r"\s{0,3}:?\s{0,2}[\"'`“‘]?"
                r"(?P<secret>[^\s\"'`“”‘’<>]{4,128})",
                ignore_case=True,
            ),
            lambda value: _looks_like_password(value.rstrip(".,;:!?)")),
        ),
        Pattern(
            "login_pair",
            ("login", "credential", "username", "log in", "sign in"),
            _compile(
                r"\b(?:login|credentials?|username|log in|sign in)\b[^\n]{0,40}?\s"
                r"(?P<secret>[\w.@-]{3,64}\s?[/:]\s?[^\s/:]{6,64})",
                ignore_case=True,
            ),
            lambda value: (
                _looks_like_password(re.split(r"[/:]", value, maxsplit=1)[1].strip(" .,;!?)"))
                and any(not character.isalnum() for character in re.split(r"[/:]", value, maxsplit=1)[1].strip(" .,;!?)"))
            ),
        ),
        Pattern(
            "pin_code",
            ("pin",),
            _compile(
                r"\b(?:my|the|your|his|her|their|card|sim|account)\s(?:\w{1,12}\s)?pin(?:\s?(?:code|number))?\s{0,2}(?:is|was|:|=)\s{0,2}(?:now\s)?(?P<secret>\d{4,8})\b",
                ignore_case=True,
            ),
            lookback=32,
        ),
    )


class SecretMatcher:
    """Finds secrets in a text; keywords first, then only the patterns they call for."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = tuple(patterns)
        by_keyword: dict[str, list[int]] = {}
        for index, pattern in enumerate(self._patterns):
            for keyword in pattern.keywords:
                by_keyword.setdefault(keyword, []).append(index)
        self._automaton = ahocorasick.Automaton()
        for keyword, indices in by_keyword.items():
            self._automaton.add_word(keyword, (len(keyword), tuple(indices)))
        self.is_empty = not by_keyword
        if not self.is_empty:
            self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[Hit]:
        """Yields each secret's span and pattern name, by pattern, then by position; spans may overlap across patterns."""
        if self.is_empty:
            return
        lowered = text.lower()
        if len(lowered) != len(text):
            lowered = "".join(low if len(low := character.lower()) == 1 else character for character in text)
        first: dict[int, int] = {}
        for last, (length, indices) in self._automaton.iter(lowered):
            for index in indices:
                first.setdefault(index, last - length + 1)
        for index in sorted(first):
            pattern = self._patterns[index]
            for match in pattern.regex.finditer(text, max(0, first[index] - pattern.lookback)):
                group = next((name for name, value in match.groupdict().items() if value is not None), 0)
                start, end = match.span(group)
                if pattern.check is None or pattern.check(match.group(group)):
                    yield Hit(start, end, pattern.name)
