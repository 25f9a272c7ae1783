"""gitleaks' rules (``data/gitleaks.toml``, MIT) as secret rules: vendors' keys and tokens.

Go's regular expressions are RE2's, so that google-re2 runs them as they are, in time linear in the text. gitleaks reads
source code; two things differ in prose. A key ends before a comma or a full stop too. Rules for files with certain names say
nothing, nor does ``generic-api-key``, whose 1,400 exceptions are words of source code: ``assigned_secret`` takes its place.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import re2

from tasks.confidential.rules import SecretRule, entropy

_CODE_END, _PROSE_END = r"""(?:[\x60'"\s;]|\\[nr]|$)""", r"""(?:[\x60'"\s;,.:!?)\]}>*]|\\[nr]|$)"""
_NOT_FOR_TEXTS = frozenset({"generic-api-key"})
_SURE_KEYWORDS: Mapping[str, tuple[str, ...]] = {"jwt": (".ey",)}
"""Literals that a rule demands and that are rarer than its keyword: ``they`` holds ``ey``."""


@cache
def gitleaks_rules() -> tuple[SecretRule, ...]:
    """The rules for texts, in the file's order."""
    table = tomllib.loads(files("tasks.confidential").joinpath("data", "gitleaks.toml").read_text(encoding="utf-8"))
    rules = (rule for rule in table["rules"] if "path" not in rule and rule["id"] not in _NOT_FOR_TEXTS)
    return tuple(_rule(rule, table["allowlist"]) for rule in rules)


def _rule(rule: Mapping[str, Any], everywhere: Mapping[str, Any]) -> SecretRule:
    allowlists = [everywhere, *(each for each in rule.get("allowlists", ()) if "paths" not in each)]
    allowed = [re2.compile(regex) for each in allowlists for regex in each.get("regexes", ())]
    stopwords = [word for each in allowlists for word in each.get("stopwords", ())]
    least = float(rule.get("entropy", 0))

    def is_secret(value: str) -> bool:
        if least and entropy(value) <= least:
            return False
        lower = value.lower()
        return not any(regex.search(value) for regex in allowed) and not any(word in lower for word in stopwords)

    pattern = re2.compile(rule["regex"].replace(_CODE_END, _PROSE_END))
    group = rule.get("secretGroup", 1 if pattern.groups else 0)
    keywords = _SURE_KEYWORDS.get(rule["id"], tuple(rule["keywords"]))
    return SecretRule(
        id=rule["id"], keywords=keywords, pattern=pattern, validator=is_secret, group=group, source="gitleaks (MIT)"
    )
