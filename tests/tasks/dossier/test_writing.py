"""The dossier lands in the store, under the run's name and in MLflow, and `perennial show` reads it back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.contracts.run import RunEvidence
from tasks.core.errors import InputError, IntegrityError
from tasks.core.storage import open_store
from tasks.dossier import DossierConfig, write_dossier
from tasks.dossier.summary import folder_of, read_record, summary_lines
from tests.support.evidence import make_evidence, with_every_section

ALONE = DossierConfig(attach_to_mlflow=False)


@pytest.fixture
def evidence(tmp_path: Path) -> RunEvidence:
    return make_evidence(tmp_path / "store", champion=True)


def test_it_is_written_by_hash_and_under_the_run_s_name(evidence: RunEvidence, tmp_path: Path) -> None:
    dossier = write_dossier.fn(evidence, ALONE)
    store = open_store(tmp_path / "store")
    html = store.read_bytes(dossier.html)
    folder = tmp_path / "store" / "dossiers" / evidence.run_name
    assert (folder / "dossier.html").read_bytes() == html
    assert (folder / "dossier.json").read_bytes() == store.read_bytes(dossier.record)
    assert html.startswith(b"<!doctype html>")
    assert len(html) < 400_000, "small enough for a mail"


def test_the_record_is_the_evidence_without_confidential_settings(evidence: RunEvidence, tmp_path: Path) -> None:
    write_dossier.fn(evidence, ALONE)
    record = read_record(str(tmp_path / "store"), evidence.run_name)
    assert "Bluefinch" not in json.dumps(record)
    again = RunEvidence.model_validate(record)
    assert again.model_copy(update={"settings": evidence.settings}) == evidence


def test_mlflow_gets_both_files_on_the_candidate_s_run(
    evidence: RunEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.tracking import connect, open_run, run_page

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    with open_run(evidence.model_name, "candidate", {}) as run:
        run_id = run.run_id
    candidate = evidence.candidate.model_copy(update={"run_id": run_id})
    dossier = write_dossier.fn(evidence.model_copy(update={"candidate": candidate}), DossierConfig())
    assert dossier.mlflow_run_id == run_id
    client = connect()
    assert {item.path for item in client.list_artifacts(run_id, "dossier")} == {
        "dossier/dossier.html",
        "dossier/dossier.json",
    }
    assert client.get_run(run_id).data.tags["perennial.dossier"].endswith(f"{evidence.run_name}/dossier.html")
    assert client.get_run(run_id).info.status == "FINISHED"
    assert run_page(run_id) is None, "a bare database has no page"


def test_latest_is_the_run_written_last(evidence: RunEvidence, tmp_path: Path) -> None:
    write_dossier.fn(evidence, ALONE)
    later = evidence.model_copy(update={"run_name": "support-desk-20261001-020000"})
    write_dossier.fn(later, ALONE)
    assert read_record(str(tmp_path / "store"))["run_name"] == later.run_name
    assert read_record(str(tmp_path / "store"), evidence.run_name)["run_name"] == evidence.run_name


def test_no_run_writes_over_the_evidence_of_another(evidence: RunEvidence, tmp_path: Path) -> None:
    first = evidence.model_copy(update={"flow_run_id": "one"})
    write_dossier.fn(first, ALONE)
    write_dossier.fn(first.model_copy(update={"reason": "a Retry of the same run"}), ALONE)
    for other in ({"flow_run_id": "two"}, {"flow_run_id": None}, {"flow_run_id": "two", "run_name": f"{first.run_name}?"}):
        with pytest.raises(IntegrityError, match="another run of this name"):
            write_dossier.fn(first.model_copy(update=other), ALONE)
    kept = read_record(str(tmp_path / "store"), first.run_name)
    assert (kept["flow_run_id"], kept["reason"]) == ("one", "a Retry of the same run")


def test_latest_is_one_for_each_model(evidence: RunEvidence, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    write_dossier.fn(evidence, ALONE)
    write_dossier.fn(evidence.model_copy(update={"run_name": "billing-1", "model_name": "billing"}), ALONE)
    assert read_record(store, "support-desk/latest")["run_name"] == evidence.run_name
    assert read_record(store, "billing/latest")["run_name"] == "billing-1"
    with pytest.raises(InputError, match="dossiers of billing, support-desk"):
        read_record(store)
    for unknown in ("shipping/latest", "../latest", "/latest/latest"):
        with pytest.raises(InputError, match="no dossier"):
            read_record(store, unknown)


def test_an_unknown_run_is_one_clear_error(evidence: RunEvidence, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Run `perennial retrain` first"):
        read_record(str(tmp_path / "store"))
    write_dossier.fn(evidence, ALONE)
    with pytest.raises(InputError, match=rf"expected one of {evidence.run_name}\. Name one of them"):
        read_record(str(tmp_path / "store"), "support-desk-1999")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "a/b", "..", "", "a b\n"])
def test_a_run_s_name_cannot_lead_out_of_the_store(name: str) -> None:
    folder = folder_of(name)
    assert folder.startswith("dossiers/")
    rest = folder.removeprefix("dossiers/")
    assert rest not in ("", ".", "..")
    assert "/" not in rest


def test_a_store_without_local_files_keeps_readable_copies_too() -> None:
    store = open_store("memory://dossiers-test/store")
    uri = store.write_named("dossiers/a/dossier.html", b"one")
    assert store.write_named("dossiers/a/dossier.html", b"two") == uri
    assert store.read_named("dossiers/a/dossier.html") == b"two"
    assert store.read_named("dossiers/b/dossier.html") is None
    assert store.names_in("dossiers") == ["a"]
    assert store.names_in("nothing") == []


def test_the_summary_has_verdict_scores_reasons_and_places(evidence: RunEvidence, tmp_path: Path) -> None:
    blocks = dict(summary_lines(evidence.model_dump(mode="json"), str(tmp_path / "store")))
    titles = list(blocks)
    assert titles == [f"{evidence.run_name}: Promoted", "Scores on the frozen examples", "Why", "Where"]
    header, first, *_ = blocks["Scores on the frozen examples"]
    assert header == ("metric", "base", "champion", "candidate", "candidate \u2212 base (95 %)")
    assert first == ("ROUGE-L", "0.140", "0.630", "0.710", "+0.570 (0.531–0.604)")
    assert all(len(line) == len(header) for line in blocks["Scores on the frozen examples"])
    places = dict(line for line in blocks["Where"] if len(line) == 2)
    assert places["model"] == "support-desk, version 3"
    assert places["champion"] == "version 3"
    assert places["dossier"] == f"{tmp_path / 'store'}/dossiers/{evidence.run_name}/dossier.html"


def test_the_summary_shows_the_newest_rows_where_there_are_some(evidence: RunEvidence) -> None:
    blocks = dict(summary_lines(with_every_section(evidence).model_dump(mode="json")))
    assert blocks["Scores on the newest rows"][:2] == [
        ("metric", "base", "champion", "candidate"),
        ("ROUGE-L", "0.140", "0.630", "0.710"),
    ]


def test_the_summary_shows_the_remedies_of_a_hold(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "store", "HOLD")
    blocks = dict(summary_lines(evidence.model_dump(mode="json")))
    assert blocks["What would change it"] == [(evidence.decision.remedies[0],)]
    assert ("champion", "none") in blocks["Where"]
