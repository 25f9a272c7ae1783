"""The queue goes out, answers come back in parts, and stay."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tasks.core.errors import InputError
from tasks.core.storage import open_store
from tasks.labels.policy import Decision, Issue
from tasks.labels.review import (
    export_jsonl,
    export_label_studio,
    import_decisions,
    keep_decisions,
    label_studio_config,
    read_decisions,
    row_hash,
)


def queue(rows: list[dict]) -> bytes:
    issues = [
        Issue(rows[0]["id"], "wrong_label", 0.7, "review", rows[0]["label"], "device"),
        Issue(rows[1]["id"], "truncated_response", 0.9, "review"),
        Issue(rows[1]["id"], "wrong_label", 0.6, "review", rows[1]["label"], "device"),
        Issue(rows[2]["id"], "wrong_label", 0.9, "automatic", action="drop"),
    ]
    return export_jsonl(rows, issues)


def test_each_waiting_row_is_one_line_surest_first(clean_rows: list[dict]) -> None:
    lines = [json.loads(line) for line in queue(clean_rows).splitlines()]
    assert [line["id"] for line in lines] == [clean_rows[1]["id"], clean_rows[0]["id"]]
    assert lines[0]["kinds"] == ["truncated_response", "wrong_label"]
    assert lines[1]["given"] == clean_rows[0]["label"]
    assert lines[1]["suggested"] == "device"
    assert lines[0]["texts"]["messages.1.content"] == clean_rows[1]["messages"][1]["content"]


def test_answers_may_come_in_parts(clean_rows: list[dict]) -> None:
    lines = [json.loads(line) for line in queue(clean_rows).splitlines()]
    lines[0]["decision"] = "drop"
    answers = "\n".join(json.dumps(line) for line in lines).encode()
    assert import_decisions(answers, "answers") == {row_hash(clean_rows[1]): Decision("drop")}
    lines[1] |= {"decision": "fix", "label": " shipping "}
    answers = "\n".join(json.dumps(line) for line in lines).encode()
    assert import_decisions(answers, "answers")[row_hash(clean_rows[0])] == Decision("fix", "shipping")


def test_the_same_answers_twice_change_nothing_and_newer_ones_replace(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert read_decisions(store, "desk") == {}
    first = keep_decisions(store, "desk", {"a" * 64: Decision("keep"), "b" * 64: Decision("drop")})
    assert keep_decisions(store, "desk", {"b" * 64: Decision("drop")}) == first
    keep_decisions(store, "desk", {"b" * 64: Decision("fix", "x")})
    assert read_decisions(store, "desk") == {"a" * 64: Decision("keep"), "b" * 64: Decision("fix", "x")}
    assert read_decisions(store, None) == {}


def test_a_row_is_known_by_what_a_person_judges(clean_rows: list[dict]) -> None:
    row = clean_rows[0]
    assert row_hash({**row, "id": "other", "created_at": "2027", "split_group": "g"}) == row_hash(row)
    assert row_hash({**row, "label": "device"}) != row_hash({**row, "label": "billing"})
    assert row_hash({**row, "messages": row["messages"][:1]}) != row_hash(row)


def test_label_studio_and_back(clean_rows: list[dict]) -> None:
    tasks = json.loads(export_label_studio(queue(clean_rows)))
    choice = lambda name, value: {"from_name": name, "value": {"choices": [value]}}  # noqa: E731
    tasks[0]["annotations"] = [{"was_cancelled": True, "result": [choice("decision", "keep")]}]
    tasks[1]["annotations"] = [{"result": [choice("decision", "fix"), choice("label", "device")]}]
    found = import_decisions(json.dumps(tasks).encode(), "export")
    assert found == {row_hash(clean_rows[0]): Decision("fix", "device")}


def test_the_label_studio_interface_is_well_formed_and_offers_every_label() -> None:
    view = ElementTree.fromstring(label_studio_config(['a"b', "c<d>", "c<d>"]))
    assert [one.get("value") for one in view.findall("Choices[@name='label']/Choice")] == ['a"b', "c<d>"]
    assert ElementTree.fromstring(label_studio_config([])).find("Choices[@name='label']") is None


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        (b"not json", "not JSON"),
        (b'[{"x": 1}]', "Label Studio"),
        (b'{"row_sha256": "ab", "decision": "keep"}', "no row_sha256"),
        (b'{"row_sha256": "%s", "decision": "maybe"}' % (b"a" * 64), "none of keep, drop, fix"),
        (b'{"row_sha256": "%s", "decision": "fix"}' % (b"a" * 64), "without a label"),
        (b"[1, 2]", "Label Studio"),
        (b"3", "none of keep"),
    ],
)
def test_answers_that_mean_nothing_are_refused_whole(answers: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_decisions(answers, "answers.jsonl")


def test_an_error_never_repeats_a_text() -> None:
    with pytest.raises(InputError) as caught:
        import_decisions(b'{"row_sha256": "x", "decision": "SECRETTEXT", "texts": {"a": "SECRETTEXT"}}', "answers")
    assert "SECRETTEXT" not in str(caught.value)
