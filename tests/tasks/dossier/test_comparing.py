"""Quarter against quarter: the same run twice differs in nothing, and every removed row shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contracts.run import RunEvidence
from tasks.dossier.comparing import compare, compose_comparison, terminal_lines
from tasks.dossier.rendering import render_page
from tests.support.evidence import make_evidence


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> RunEvidence:
    return make_evidence(tmp_path_factory.mktemp("store"), champion=True)


def test_a_run_against_itself_differs_in_nothing(evidence: RunEvidence) -> None:
    for sheet in compare(evidence, evidence):
        assert all(len(row) == len(sheet.headers) for row in sheet.rows)
        for row in sheet.rows:
            assert row[1] == row[2]
            assert row[3:] in ((), ("=",))


def test_every_removed_row_shows(evidence: RunEvidence) -> None:
    sheets = {sheet.id: sheet for sheet in compare(evidence, evidence)}
    removed = sum(stage.num_quarantined + stage.num_dropped for stage in evidence.examples.stages)
    assert removed > 0
    assert sum(int(row[1]) for row in sheets["removed-examples"].rows) == removed
    assert dict((row[0], row[1]) for row in sheets["rows-examples"].rows)["Rows read"] == str(
        evidence.examples.snapshot.num_rows_in
    )


def test_changes_have_their_sign_and_what_one_run_lacks_is_a_dash(evidence: RunEvidence) -> None:
    fewer = evidence.split.train.model_copy(update={"num_rows": evidence.split.train.num_rows - 3})
    later = evidence.model_copy(
        update={"preferences": None, "split": evidence.split.model_copy(update={"train": fewer}), "run_name": "later"}
    )
    sheets = {sheet.id: sheet for sheet in compare(evidence, later)}
    assert dict((row[0], row[3]) for row in sheets["rows-examples"].rows)["to train on"] == "\u22123"
    assert {row[2:] for row in sheets["rows-preference-pairs"].rows} == {("\u2013", "\u2013")}


def test_rows_trained_on_are_those_of_the_ledger(evidence: RunEvidence) -> None:
    sft = evidence.sft.model_copy(update={"num_trained_rows": 17})
    short = evidence.model_copy(update={"sft": sft, "run_name": "short"})
    sheet = next(sheet for sheet in compare(evidence, short) if sheet.id == "rows-examples")
    assert dict((row[0], row[2]) for row in sheet.rows)["trained on"] == "17"
    assert "17 rows trained on" in render_page(compose_comparison(evidence, short, "1 July 2026")).decode()


def test_scores_on_different_frozen_sets_are_not_offered_for_comparison(evidence: RunEvidence) -> None:
    other = evidence.benchmark.model_copy(
        update={"dataset": evidence.benchmark.dataset.model_copy(update={"sha256": "f" * 64})}
    )
    sheet = compare(evidence, evidence.model_copy(update={"benchmark": other}))[1]
    assert "do not compare" in sheet.note
    assert compare(evidence, evidence)[1].note.startswith("Both were scored on the same")


def test_terminal_and_page_show_the_same(evidence: RunEvidence, tmp_path: Path) -> None:
    hold = make_evidence(tmp_path / "store", "HOLD")
    html = render_page(compose_comparison(evidence, hold, "1 November 2026")).decode()
    for _, lines, _ in terminal_lines(compare(evidence, hold)):
        for line in lines:
            assert line[0] == "" or line[0].replace("'", "&#39;") in html
    assert "Held" in html
    assert "Promoted" in html
