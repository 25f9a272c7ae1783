"""The whole prepare flow on hostile rows and on one quarter after another, with a real Prefect server."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

from flows.prepare import prepare_dataset
from flows.support.config import PrepareConfig
from tasks.contracts.preparation import PreparedDataset
from tasks.core.storage import run_store
from tasks.ingest import SourceConfig
from tests.support.hostile import hostile_lines, ordinary_lines
from tests.support.leaks import find_leaks

SETTINGS = PrepareConfig.model_validate(
    {
        "validation": {"max_quarantine_share": 1.0},
        "confidential": {"max_removed_share": 1.0},
        "pii": {"max_quarantined_share": 1.0},
        "labels": {"embedding_model": "tfidf", "control_share": 0.0, "review_name": "hostile"},
    }
)
EMAIL = "ada.byron{}@corp-mail.example"
PEOPLE = {
    "en": "Harriet Blankenship",
    "de": "Jürgen Hinterseer",
    "fr": "Hélène Quatrebarbes",
    "es": "Íñigo Zubizarreta",
    "it": "Giuseppina Passalacqua",
    "nl": "Sjoerd Hoekstra",
    "pl": "Zbigniew Szczepański",
}


def prepare(folder: Path, lines: list[str]) -> PreparedDataset:
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return prepare_dataset(SourceConfig(path=str(folder / "rows.jsonl")), SETTINGS, str(folder / "store"), "hostile")


@pytest.mark.slow
@pytest.mark.usefixtures("embedded_home")
def test_two_hundred_hostile_rows_lose_nothing_and_leak_nothing(tmp_path: Path) -> None:
    hidden = []
    for number, line in enumerate(ordinary_lines(70)[60:]):
        row, mail = json.loads(line), EMAIL.format(number)
        texts = {"instruction": f"{row['instruction']} Write to {mail}\u202e.", "output": f"{row['output']} Sent to {mail}."}
        hidden.append(json.dumps({"id": f"mail-{number}", **texts}))
    lines = [*hostile_lines(200), *ordinary_lines(60), *hidden]
    prepared = prepare(tmp_path, lines)
    assert prepared.stages[0].num_rows_in == len(lines)
    for before, after in pairwise(prepared.stages):
        assert after.num_rows_in == before.dataset.num_rows
    refused = sum(stage.num_quarantined + stage.num_dropped for stage in prepared.stages)
    assert prepared.dataset.num_rows + refused == len(lines)
    assert prepared.dataset.num_rows >= 50
    values = {EMAIL.format(number) for number in range(10)}
    assert find_leaks(tmp_path / "store", values) == []
    kept = run_store().read_rows(prepared.dataset)
    assert any(row["id"].startswith("mail-") for row in kept)


@pytest.mark.usefixtures("embedded_home")
def test_each_quarter_is_compared_with_the_one_before(tmp_path: Path) -> None:
    first = prepare(tmp_path, ordinary_lines(40))
    assert prepare(tmp_path, ordinary_lines(40)).validation == first.validation
    with get_client(sync_client=True) as client:
        named = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(like_="prepare-hostile-rows-")))
    assert len(named) >= 2, "a run's name tells its model and its source"
    longer = [json.dumps({**json.loads(line), "output": "a long reply " * 40}) for line in ordinary_lines(40)]
    second = prepare(tmp_path, longer)
    assert any(note.startswith("length_band_divergence") for note in second.validation.notes)
    assert prepare(tmp_path, longer).validation == second.validation


def test_no_value_beside_the_texts_is_left_in_the_store(tmp_path: Path, embedded_home: Path) -> None:
    """Names and numbers as labels, groups, annotations and ids, in seven languages: no file but raw rows holds one."""
    lines = [json.dumps({**json.loads(line), "created_at": "2026-01-11T08:00:00Z"}) for line in ordinary_lines(40)]
    values = set()
    for number, (language, name) in enumerate(PEOPLE.items()):
        ssn, mail = f"219-09-{9990 + number}", f"x{number}.{language}@corp-mail.example"
        values |= {name, ssn, mail, name.replace(" ", "-").lower()}
        columns = {"label": name, "team": f"{name} ({language})", "rater": mail, "created_at": f"by {name}"}
        for place, row_id in enumerate((ssn, name.replace(" ", "-").lower(), mail)):
            row = json.loads(lines[0])
            row |= {"id": row_id, "instruction": f"{row['instruction']} Case {number} {place}.", **columns}
            lines.append(json.dumps(row, ensure_ascii=False))
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {"label_column": "label", "group_columns": ("team",), "annotation_columns": ("rater",)}
    source = SourceConfig.model_validate({"path": str(path), **columns})
    prepared = prepare_dataset(source, SETTINGS, str(tmp_path / "store"), "desk")
    assert find_leaks(tmp_path, values, skip=[path]) + find_leaks(embedded_home, values) == []
    scrubbed = run_store().read_rows(prepared.scrub.dataset)
    assert len(scrubbed) >= len(lines) - 3
    assert any(row["groups"] and row["groups"][0]["value"].startswith("<PERSON>") for row in scrubbed)
