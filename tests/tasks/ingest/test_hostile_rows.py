"""Two hundred hostile rows through ingestion, validation, deduplication and splitting: no crash, no row lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest

from tasks.contracts.preparation import StageReport
from tasks.core.storage import run_store
from tasks.deduplication import DeduplicationConfig, deduplicate
from tasks.ingest import SourceConfig, take_snapshot
from tasks.splitting import SplitConfig, decontaminate, freeze_test_set, split
from tasks.validation import ValidationConfig, validate
from tests.support.hostile import hostile_lines, ordinary_lines


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Sequence[StageReport]:
    folder = tmp_path_factory.mktemp("hostile")
    ordinary, hostile = ordinary_lines(), hostile_lines()
    assert len(hostile) == 200
    mixed = [line for number, line in enumerate(hostile) for line in (line, *ordinary[number : number + 1])]
    (folder / "rows.jsonl").write_text("\n".join(mixed) + "\n", encoding="utf-8")
    snapshot = take_snapshot.fn(SourceConfig(path=str(folder / "rows.jsonl")), str(folder / "store"))
    validated = validate.fn(snapshot.dataset, ValidationConfig(max_quarantine_share=1.0))
    unique = deduplicate.fn(validated.dataset, DeduplicationConfig())
    frozen = freeze_test_set.fn(unique.dataset, SplitConfig(), "hostile")
    clean = decontaminate.fn(unique.dataset, frozen, SplitConfig())
    split.fn(clean.dataset, SplitConfig())
    return snapshot, validated, unique, clean


def test_every_row_is_accounted_for_by_id(reports: Sequence[StageReport]) -> None:
    store = run_store()
    assert reports[0].num_rows_in == 260
    for before, after in pairwise(reports):
        refused = [row["id"] for row in store.read_rows(after.quarantine)] if after.quarantine else []
        kept = [row["id"] for row in store.read_rows(after.dataset)]
        assert sorted(kept + refused) == sorted(row["id"] for row in store.read_rows(before.dataset))
    refused_at_first = reports[0].quarantine
    assert refused_at_first is not None
    assert refused_at_first.num_rows + reports[0].dataset.num_rows == 260


def test_every_reason_is_met(reports: Sequence[StageReport]) -> None:
    reasons = {reason for report in reports for reason in (*report.quarantined, *report.dropped)}
    assert reasons >= {
        "malformed_json", "not_an_object", "nested_too_deeply", "not_text", "missing_field", "lone_surrogate",
        "nul_character", "duplicate_id", "repeated_row", "empty_reply", "empty_prompt", "reply_too_long", "prompt_too_long",
        "control_characters", "held_out",
    }  # fmt: skip


def test_ordinary_rows_come_through_untouched(reports: Sequence[StageReport]) -> None:
    store = run_store()
    expected = {json.loads(line)["id"]: json.loads(line) for line in ordinary_lines()}
    found = {row["id"]: row for row in store.read_rows(reports[2].dataset)}
    assert set(expected) <= set(found)
    for name, line in expected.items():
        assert [message["content"] for message in found[name]["messages"]] == [line["instruction"], line["output"]]
