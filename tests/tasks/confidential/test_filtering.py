"""Secrets and denied terms are found, ordinary talk about passwords is not, and every row is accounted for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.confidential import ConfidentialConfig, SecretPattern, filter_confidential
from tasks.confidential.filtering import ConfidentialMatcher, filter_rows
from tasks.confidential.terms import TermMatcher, fold, read_terms
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ConfigError, InputError, QualityLimitError
from tasks.core.quarantine import count_reasons
from tasks.core.storage import open_store, run_store

SECRETS = {
    "aws_access_key": "AKIAIOSFODNN7EXAMPLE",
    "github_token": "ghp_" + "aB3dE6gH9jK2" * 3,
    "slack_token": "xoxb-123456789012-abcdefABCDEF123456",
    "stripe_key": "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
    "openai_or_anthropic_key": "sk-proj-Ab3dE6gH9jK2mN5pQ8sT1vW4",
    "private_key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV",
    "connection_string": "postgres://svc:tr0ub4dor@db.internal/prod",
    "password_in_prose": "the password is hunter2!",
    "assigned_secret": "client_secret: 9f8a7b6c5d4e3f2a1b0c",
    "pin_code": "my card pin is 4821",
}


def row(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Done."}]}


@pytest.fixture(scope="module")
def matcher() -> ConfidentialMatcher:
    return ConfidentialMatcher(ConfidentialConfig(denied_terms=("Project Falcon", "Bluefinch")))


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_each_kind_of_secret_is_found_where_it_stands(matcher: ConfidentialMatcher, name: str) -> None:
    text = f"Hello, {SECRETS[name]} and bye"
    found = [hit for hit in matcher.find(text) if hit.pattern == name]
    assert found
    assert text[found[0].start : found[0].end] in SECRETS[name]


@pytest.mark.parametrize(
    "text",
    [
        "My password is not working",
        "The password was changed yesterday, is it still valid?",
        "How do I reset my passcode?",
        "Which key is the enter key: left or right?",
        "Your pin is on its way",
        "See https://example.com/path:80/x@y for the token of appreciation",
        "The secret is out: basil.",
    ],
)
def test_talk_about_secrets_is_no_secret(matcher: ConfidentialMatcher, text: str) -> None:
    assert matcher.find(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "PROJECT FALCON",
        "project-falcon",
        "Project\u00a0 Falcon",
        "Pro\u200bject Falcon",
        "Ｐroject Ｆalcon",
        "project_falcon",
    ],
)
def test_terms_are_found_whatever_their_writing(matcher: ConfidentialMatcher, text: str) -> None:
    padded = f"é about {text}, yes"
    (hit,) = matcher.find(padded)
    assert padded[hit.start : hit.end] == text


def test_accents_match_however_they_are_stored() -> None:
    composed, apart = "Projet Éclair", "Projet E\u0301clair"
    for term in (composed, apart):
        for text in (composed, apart):
            assert [hit.pattern for hit in TermMatcher([term]).find(f"le {text}, oui")] == ["denied_term_1"]
        assert not list(TermMatcher([term]).find("le projet eclair"))


@pytest.mark.parametrize("text", ["projectfalcon", "Project Falconry", "bluefinches", "ultrabluefinch"])
def test_terms_inside_words_are_not_found(matcher: ConfidentialMatcher, text: str) -> None:
    assert matcher.find(f"about {text}, yes") == []


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_folding_keeps_a_way_back(text: str) -> None:
    folded, offsets = fold(text)
    assert offsets is None or (len(offsets) == len(folded) and all(0 <= offset < len(text) for offset in offsets))
    assert offsets is not None or len(folded) == len(text)


@given(st.lists(st.text(alphabet="abc -_", min_size=1, max_size=8), max_size=5), st.text(alphabet="abcABC -_", max_size=40))
@settings(max_examples=200, deadline=None)
def test_terms_match_as_a_plain_search_would(terms: list[str], text: str) -> None:
    folded = fold(text)[0]
    wanted = {fold(term)[0].strip() for term in terms} - {""}
    expected = {
        (start, term)
        for term in wanted
        for start in range(len(folded))
        if folded.startswith(term, start)
        and not (start and folded[start - 1].isalnum() and term[0].isalnum())
        and not (start + len(term) < len(folded) and folded[start + len(term)].isalnum() and term[-1].isalnum())
    }
    assert len(list(TermMatcher(terms).find(text))) == len(expected)


def test_a_text_that_makes_patterns_slow_is_read_in_time(matcher: ConfidentialMatcher) -> None:
    for text in ("password is " * 8000, "eyJ" + "a" * 100_000, "://" * 30_000, "secret=" * 10_000, "login " * 15_000):
        matcher.find(text)


def test_rows_are_split_by_policy_and_nothing_is_said_of_values() -> None:
    rows = [row("a", "hello"), row("b", SECRETS["password_in_prose"]), row("c", "Bluefinch ships"), row("d", "x" * 2000)]
    matcher = ConfidentialMatcher(ConfidentialConfig(denied_terms=("bluefinch",)))
    kept = filter_rows(rows, matcher, max_text_chars=1000)
    dropped = filter_rows(rows, matcher, action="drop", max_text_chars=1000)
    assert [each["id"] for each in kept.kept] == ["a"]
    assert count_reasons(kept.removed, "quarantined") == {"secret": 1, "denied_term": 1, "too_long": 1}
    assert "hunter2" in kept.removed[0]["content"]
    assert [(each["disposition"], each["content"]) for each in dropped.removed[:2]] == [("dropped", None)] * 2
    assert dropped.removed[2]["disposition"] == "quarantined"
    assert "hunter2" not in str(kept.findings)
    assert "luefinch" not in str(kept.findings)


def test_own_patterns_join_and_unknown_names_are_refused() -> None:
    own = SecretPattern(name="badge", keyword="BDG-", regex=r"bdg-\d{4}")
    matcher = ConfidentialMatcher(ConfidentialConfig(secrets=False, extra_patterns=(own,)))
    assert [hit.pattern for hit in matcher.find("card BDG-1234")] == ["badge"]
    with pytest.raises(ConfigError, match="1 of 1 names"):
        ConfidentialMatcher(ConfidentialConfig(disabled_patterns=("no_such",)))
    with pytest.raises(ValueError, match="compile"):
        SecretPattern(name="bad", keyword="xx", regex="(x")


def test_the_deny_list_file_is_read_without_its_comments() -> None:
    assert read_terms("# ours\nFalcon\n\n  Blue Finch # bird\n") == ("Falcon", "Blue Finch")


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    rows = [row("a", "hello"), row("b", f"use {SECRETS['aws_access_key']}"), row("c", "all about Falcon")]
    return open_store(tmp_path / "store").write_rows(rows, kind="messages", passed=["ingested"])


def test_the_task_accounts_for_every_row(dataset: DatasetRef, tmp_path: Path) -> None:
    terms = tmp_path / "terms.txt"
    terms.write_text("falcon\n", encoding="utf-8")
    report = filter_confidential.fn(dataset, ConfidentialConfig(denied_terms_file=str(terms), max_removed_share=1))
    store = run_store()
    assert [each["id"] for each in store.read_rows(report.dataset)] == ["a"]
    assert report.quarantined == {"denied_term": 1, "secret": 1}
    assert report.dataset.passed == ("ingested", "confidential_filtered")
    assert report.dataset.parents == (dataset.sha256,)
    assert report.hits == {"aws_access_key": 1, "denied_term_1": 1}
    assert {each["id"] for each in store.read_table(report.findings).to_pylist()} == {"b", "c"}


def test_a_pattern_that_is_too_broad_fails_the_run(dataset: DatasetRef) -> None:
    with pytest.raises(QualityLimitError, match="too broad") as caught:
        filter_confidential.fn(dataset, ConfidentialConfig(denied_terms=("falcon", "hello"), max_removed_share=0.5))
    assert "falcon" not in str(caught.value).lower()


def test_a_missing_deny_list_is_the_users_to_mend(dataset: DatasetRef) -> None:
    with pytest.raises(InputError, match="UTF-8"):
        filter_confidential.fn(dataset, ConfidentialConfig(denied_terms_file="/no/such/file"))


# -------------------------------------------------------------------------------------------------------------------- tools


def called(arguments: dict[str, Any], tool: str = "lookup", description: str = "", result: str = "{}") -> dict[str, Any]:
    schema = {"name": tool, "description": description, "parameters": {"type": "object", "properties": {}}}
    call = {"id": "call00000", "name": tool, "arguments": json.dumps(arguments)}
    return {
        "id": "r1",
        "messages": [
            {"role": "user", "content": "Look it up."},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": result, "tool_call_id": "call00000"},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": [json.dumps({"type": "function", "function": schema})],
    }


@pytest.mark.parametrize(
    ("bad", "reason", "place"),
    [
        (called({"auth": {"key": SECRETS["aws_access_key"]}}), "secret", "messages.1.tool_calls.0.auth.key"),
        (called({"client_secret": "9f8a7b6c5d4e3f2a1b0c"}), "secret", "messages.1.tool_calls.0.client_secret"),
        (called({SECRETS["github_token"]: 1}), "secret", "messages.1.tool_calls.0.#0"),
        (called({}, result=json.dumps([SECRETS["stripe_key"]])), "secret", "messages.2.content.0"),
        (called({"q": "project  falcon"}), "denied_term", "messages.1.tool_calls.0.q"),
        (called({}, tool="bluefinch_lookup"), "denied_term", "tools.0.function.name"),
        (called({"bluefinch": 1}), "denied_term", "messages.1.tool_calls.0.bluefinch"),
        (called({}, description="Of Project Falcon."), "denied_term", "tools.0.function.description"),
    ],
)
def test_what_is_confidential_is_found_inside_calls(
    matcher: ConfidentialMatcher, bad: dict[str, Any], reason: str, place: str
) -> None:
    result = filter_rows([bad, called({"q": "my order"})], matcher)
    assert [(removed["reason"], removed["field"]) for removed in result.removed] == [(reason, place)]
    assert len(result.kept) == 1
