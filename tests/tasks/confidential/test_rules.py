"""Every rule for secrets finds what its examples hold: the project's own as marked, gitleaks' drawn from its expression."""

from __future__ import annotations

import random
import re
import re._constants as sre
import re._parser as sre_parser
from string import ascii_letters, digits
from typing import Any

import pytest

from tasks.confidential.gitleaks import gitleaks_rules
from tasks.confidential.rules import OWN_RULES, SecretRule
from tasks.confidential.secrets import SecretMatcher, built_in_rules

MATCHER = SecretMatcher(built_in_rules())
CATEGORIES = {sre.CATEGORY_DIGIT: digits, sre.CATEGORY_WORD: ascii_letters + digits + "_", sre.CATEGORY_SPACE: " "}


def drawn(expression: str, source: random.Random) -> str:
    """A text that an expression of Go's matches, letters in either case where it says so."""
    plain = re.sub(r"\(\?[is]\)", "", expression).replace("(?-i:", "(?:").replace("(?s:", "(?:").replace("\\z", "\\Z")
    plain = plain.replace("[:alnum:]", "a-zA-Z0-9")
    return _drawn(sre_parser.parse(plain), source)


def _drawn(nodes: Any, source: random.Random) -> str:
    parts = []
    for kind, detail in nodes:
        match kind:
            case sre.LITERAL:
                parts.append(chr(detail))
            case sre.ANY:
                parts.append(".")  # of a host's name, mostly
            case sre.NOT_LITERAL:
                parts.append(source.choice(ascii_letters))
            case sre.IN:
                parts.append(source.choice(_members(detail)))
            case sre.BRANCH:
                parts.append(_drawn(source.choice(detail[1]), source))
            case sre.SUBPATTERN:
                parts.append(_drawn(detail[3], source))
            case sre.MAX_REPEAT | sre.MIN_REPEAT:
                least, most, repeated = detail
                parts += [_drawn(repeated, source) for _ in range(source.randint(least, min(most, least + 8)))]
            case sre.AT:
                pass
            case _:
                raise AssertionError(kind)
    return "".join(parts)


def _members(members: Any) -> list[str]:
    named: set[str] = set()
    for kind, detail in members:
        if kind is sre.LITERAL:
            named.add(chr(detail))
        elif kind is sre.RANGE:
            named |= {chr(code) for code in range(detail[0], detail[1] + 1)}
        elif kind is sre.CATEGORY:
            named |= set(CATEGORIES.get(detail, ascii_letters))
    is_negated = members[0][0] is sre.NEGATE
    return sorted(set(ascii_letters + digits) - named or " ") if is_negated else sorted(named)


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in OWN_RULES])
def test_a_rule_hits_and_misses_as_its_examples_say(rule: SecretRule) -> None:
    matcher = SecretMatcher([rule])
    assert rule.hits
    assert rule.misses
    for example in rule.hits:
        before, marked, _ = re.split("[«»]", example)
        plain = example.replace("«", "").replace("»", "")
        assert [plain[hit.start : hit.end] for hit in matcher.find(plain)] == [marked], example
        assert next(matcher.find(plain)).start == len(before)
    for example in rule.misses:
        assert list(matcher.find(example)) == [], example


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in gitleaks_rules()])
def test_a_rule_of_gitleaks_compiles_and_hits_what_it_describes(rule: SecretRule) -> None:
    source, matcher = random.Random(rule.id), SecretMatcher([rule])
    texts = [f"by {rule.keywords[0]} use {drawn(rule.pattern.pattern, source)} here" for _ in range(40)]
    assert any(list(matcher.find(text)) for text in texts)


def test_no_two_rules_share_a_name() -> None:
    names = [rule.id for rule in built_in_rules()]
    assert len(names) == len(set(names)) > 200


TOKENS = (
    "ghp_" + "aB3dE6gH9jK2" * 3,
    "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "AKIAIOSFODNN7QXAMPLE",
    "api_key=9f8a7b6c5d4e3f2a1b0c",
)
HIDDEN = ("\u200b", "\u00ad", "\u2060", "\ufeff", "\u034f", "\ufe0f", "&shy;", "&#8203;")
BREAKS = ("\n", "\r\n", "=\n", " \\\n", "\n> ", "\u2028", "<br>", "<wbr/>", "\\n")


@pytest.mark.parametrize("token", TOKENS)
@pytest.mark.parametrize("inside", [*HIDDEN, *BREAKS])
@pytest.mark.parametrize("before", ["é with ", "two lines\n"])
def test_what_stands_inside_a_secret_hides_none(token: str, inside: str, before: str) -> None:
    for place in range(13, len(token) - 5):
        broken = f"{token[:place]}{inside}{token[place:]}"
        text = f"{before}{broken} please"
        assert any(inside in text[hit.start : hit.end] for hit in MATCHER.find(text)), place


def test_wide_letters_hide_no_secret() -> None:
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in TOKENS[0])
    assert next(hit.pattern for hit in MATCHER.find(f"see {wide} here")) in {"github_token", "github-pat"}


@pytest.mark.parametrize(
    "text",
    [
        "Your password:\n1. Click Reset.\n2. Wait.",
        "the token is\nShipment arrives 2024",
        "What is the pin\n4821 times two?",
        "sign in\nanna / bob",
        "keys: akia\nABCDEFGHIJ\nKLMNOP",
        "The secret is\npatience,\nand 3 eggs.",
    ],
)
def test_a_new_line_is_no_secret(text: str) -> None:
    assert list(MATCHER.find(text)) == []
