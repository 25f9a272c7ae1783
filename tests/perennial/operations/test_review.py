"""`perennial review`: the queue out as a file, answers back in parts, nothing overwritten, every mistake explained."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from typer.testing import CliRunner, Result

from perennial.cli.app import app
from tasks.core.storage import open_store
from tasks.labels.policy import Issue
from tasks.labels.review import export_jsonl, publish_queue, read_decisions

ROWS = [
    {
        "id": f"t{number}",
        "messages": [{"role": "user", "content": f"Question {number}?"}, {"role": "assistant", "content": "An answer."}],
        "label": "billing",
    }
    for number in range(3)
]


@pytest.fixture
def workplace(workplace: Path) -> Path:
    """A store whose review awaits two answers."""
    store = open_store(workplace / "store")
    issues = [
        Issue("t0", "wrong_label", 0.9, "review", "billing", "device"),
        Issue("t2", "truncated_response", 0.6, "review"),
    ]
    publish_queue(store, "desk", "messages", store.write_bytes(export_jsonl(ROWS, issues), ".jsonl"))
    settings = {"name": "desk", "store": str(workplace / "store"), "examples": {"path": "rows.jsonl"}}
    (workplace / "config.yaml").write_text(yaml.safe_dump(settings))
    return workplace


def review(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["review", *arguments, "--config", "config.yaml"])


def answer(path: Path, **by_id: tuple[str, str | None]) -> None:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line["decision"], line["label"] = by_id.get(line["id"], (None, None))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_queue_goes_out_and_answers_come_back_in_parts(workplace: Path) -> None:
    assert "2 rows await a decision: queue.jsonl" in review("export", "--out", "queue.jsonl").output
    answer(workplace / "queue.jsonl", t0=("fix", "device"))
    for _ in range(2):
        told = " ".join(review("import", "queue.jsonl").output.split())
        assert "0 keep, 0 drop, 1 fix. 1 rows still await one." in told
    assert "1 rows await a decision" in review("export", "--out", "rest.jsonl").output
    answer(workplace / "rest.jsonl", t2=("keep", None))
    assert "0 rows still await" in " ".join(review("import", "rest.jsonl").output.split())
    assert "0 rows await a decision: nothing to write" in review("export", "--out", "none.jsonl").output
    assert not (workplace / "none.jsonl").exists()
    assert len(read_decisions(open_store(workplace / "store"), "desk")) == 2


def test_answers_on_rows_that_nobody_asked_about_are_refused(workplace: Path) -> None:
    pairs = {"id": "pair-1", "row_sha256": "a" * 64, "chosen": [], "rejected": [], "decision": "keep"}
    (workplace / "pairs.jsonl").write_text(json.dumps(pairs) + "\n")
    result = review("import", "pairs.jsonl")
    assert result.exit_code == 2
    assert "under `preferences`" in " ".join(result.output.split())
    assert read_decisions(open_store(workplace / "store"), "desk") == {}


def test_label_studio_gets_tasks_and_an_interface(workplace: Path) -> None:
    assert review("export", "--out", "tasks.json", "--label-studio").exit_code == 0
    assert len(json.loads((workplace / "tasks.json").read_bytes())) == 2
    view = ElementTree.parse(workplace / "tasks.xml")
    assert {choice.get("value") for choice in view.iter("Choice")} == {"keep", "drop", "fix", "billing", "device"}


def test_a_file_that_may_hold_answers_is_not_overwritten(workplace: Path) -> None:
    (workplace / "queue.jsonl").write_text("mine")
    result = review("export", "--out", "queue.jsonl")
    assert result.exit_code == 2
    assert (workplace / "queue.jsonl").read_text() == "mine"


@pytest.mark.parametrize("content", [None, b"\x00\xff", b'{"decision": "perhaps"}'])
def test_answers_that_cannot_be_read_are_explained(workplace: Path, content: bytes | None) -> None:
    if content is not None:
        (workplace / "answers.jsonl").write_bytes(content)
    result = review("import", "answers.jsonl")
    assert result.exit_code == 2
    assert "answers.jsonl" in result.output
    assert "Traceback" not in result.output
    assert read_decisions(open_store(workplace / "store"), "desk") == {}
