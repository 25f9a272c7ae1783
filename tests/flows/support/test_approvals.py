"""`perennial approve|reject`: an answer given later, from the run's dossier to the registry and back into the dossier."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import FlowRunInput
from typer.testing import CliRunner

from flows.on_alert import reason_of_alert
from flows.support.approvals import answer_run, answers_on_pages, read_answer, should_wait
from flows.support.requests import RunRequest, starter_of
from perennial.cli.app import app
from perennial.operations.champion_history import history_block
from perennial.operations.rollout import read_metrics
from tasks.contracts.alerts import Alert
from tasks.contracts.registry import PromotionRecord
from tasks.contracts.run import RunEvidence
from tasks.core.errors import InputError, NotAnApproverError
from tasks.core.storage import run_store
from tasks.dossier import DossierConfig, write_dossier
from tasks.dossier.summary import read_record
from tasks.registry import RegistryConfig, promote_champion, register_candidate
from tasks.registry.champion_history import champion_tenures
from tasks.registry.store_origin import unknown_registry_reason
from tasks.registry.versions import aliases_of
from tasks.tracking import connect
from tests.support.evidence import make_evidence
from tests.tasks.registry.test_identity import CLAIMS, SECRET, token

CONFIG = RegistryConfig(model_name="support-desk", rollout={"at_promotion": True})  # type: ignore[arg-type]


START = datetime(2026, 6, 30, 21, tzinfo=UTC)
ALERT = Alert(
    fingerprint="PFQZPSY",
    model="support-desk",
    name="Thumbs down",
    signal="feedback",
    sender="pagerduty",
    starts_at=START,
    window_start=START - timedelta(hours=24),
    window_end=START + timedelta(hours=1),
)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database: making one takes seconds, copying it none."""
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{file}")
        connect()
    return file


@pytest.fixture
def asked(tmp_path: Path, tables: Path, monkeypatch: pytest.MonkeyPatch) -> RunEvidence:
    """A run that ended with a question, and one after it; the lock's server is left out, the registry is real."""
    shutil.copy(tables, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setattr("tasks.registry.task._lock", lambda config: nullcontext())
    evidence = make_evidence(tmp_path / "store", "NEEDS_HUMAN")
    settings = {**evidence.settings, "registry": CONFIG.model_dump(mode="json")}
    evidence = evidence.model_copy(update={"settings": settings, "reason": reason_of_alert(ALERT)})
    candidate = register_candidate.fn(CONFIG, evidence)
    record = promote_champion.fn(CONFIG, candidate, evidence.decision)
    evidence = evidence.model_copy(update={"candidate": candidate, "promotion": record})
    write_dossier.fn(evidence, DossierConfig())
    write_dossier.fn(evidence.model_copy(update={"run_name": "support-desk-20261001-020000"}), DossierConfig())
    return evidence


def test_an_embedded_run_ends_with_the_question_and_a_yes_later_does_the_rest(asked: RunEvidence, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    assert not should_wait(asked.promotion), "nothing can wait outside a deployment"
    assert unknown_registry_reason(connect(), run_store()) == "", "the store notes in which registry it was registered"
    assert aliases_of(connect(), "support-desk") == {"challenger": "1"}
    page = tmp_path / "store" / "dossiers" / asked.run_name / "dossier.html"
    assert "Awaits approval" in page.read_text()
    record, resumed = answer_run(store, asked.run_name, read_answer("approve", "Ann Lee", "Read twenty replies."))
    assert (record.champion_version, resumed) == ("1", False)
    assert aliases_of(connect(), "support-desk") == {"champion": "1"}
    assert "Read twenty replies." in page.read_text()
    assert "Ann Lee made version 1 of support-desk the champion" in page.read_text()
    kept = RunEvidence.model_validate(read_record(store, asked.run_name)).promotion
    assert kept == record
    assert read_record(store)["run_name"] == "support-desk-20261001-020000", "an answer does not make an old run the latest"
    again, _ = answer_run(store, asked.run_name, read_answer("approve", "Ann Lee", "Read twenty replies."))
    assert again.approval == record.approval
    with pytest.raises(InputError, match="The first answer counts"):
        answer_run(store, asked.run_name, read_answer("reject", "Bo", "Too terse."))
    assert PromotionRecord.model_validate(read_record(store, asked.run_name)["promotion"]).promoted


def test_a_no_is_told_in_the_dossier(asked: RunEvidence, tmp_path: Path) -> None:
    record, _ = answer_run(str(tmp_path / "store"), asked.run_name, read_answer("reject", "Bo", "Too terse."))
    assert not record.promoted
    page = (tmp_path / "store" / "dossiers" / asked.run_name / "dossier.html").read_text()
    assert "Bo rejected version 1" in page
    assert "Too terse." in page
    tag = connect().get_model_version("support-desk", "1").tags["perennial.reason"]
    for text in ("Alert Thumbs down on feedback since 2026-06-30 21:00 UTC", "sent by pagerduty as PFQZPSY"):
        assert text in page, "the alert that started the run"
        assert text in tag


def test_two_listed_people_approve_with_tokens_and_others_are_refused_by_name(
    asked: RunEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four eyes from the command: the terms stand in the run's settings, and who answered in record, page and history."""
    monkeypatch.setenv("PERENNIAL_IDENTITY_KEY", SECRET)
    identity = {"algorithm": "HS256"}
    people = {"approvers": ("ann@example.com", "bo@example.com"), "required_approvals": 2, "identity": identity}
    config = RegistryConfig.model_validate({"model_name": "support-desk", **people})
    settings = {**asked.settings, "registry": config.model_dump(mode="json")}
    evidence = asked.model_copy(update={"settings": settings, "started_by": "bo@example.com"})
    promoted = promote_champion.fn(config, evidence.candidate, evidence.decision, evidence.started_by)
    evidence = evidence.model_copy(update={"promotion": promoted})
    write_dossier.fn(evidence, DossierConfig())
    store = str(tmp_path / "store")

    def answer(name: str, claimed: str | None) -> Any:
        future = {"aud": "perennial", "exp": time.time() + 60}
        signed = token({**CLAIMS, **future, "email": claimed}) if claimed else ""
        return answer_run(store, evidence.run_name, read_answer("approve", name, f"{name} read it."), signed)

    refusals = {
        ("ann@example.com", None): "a name that was typed",
        ("ann@example.com", "eve@example.com"): "ann@example.com, bo@example.com",
        ("ann@example.com", "bo@example.com"): "who started the run",
    }
    for (name, claimed), words in refusals.items():
        with pytest.raises(NotAnApproverError, match=words):
            answer(name, claimed)
    waiting = promoted.approval
    assert waiting is not None
    suspended = promoted.model_copy(update={"approval": waiting.model_copy(update={"flow_run_id": str(uuid4())})})
    write_dossier.fn(evidence.model_copy(update={"promotion": suspended}), DossierConfig())
    with monkeypatch.context() as patch:
        patch.setattr("flows.support.approvals._will_resume", lambda run: True)
        first, resumed = answer("somebody", "ann@example.com")
    assert (first.promoted, resumed) == (False, False), "the token's name counts; a run that waits goes on after the last"
    page = tmp_path / "store" / "dossiers" / evidence.run_name / "dossier.html"
    assert "1 of 2 approvals, approved by ann@example.com (signed token)" in page.read_text()
    wider = config.model_copy(update={"approvers": (*config.approvers, "cy@example.com")})
    promote_champion.fn(wider, evidence.candidate, evidence.decision, evidence.started_by)
    assert answer("somebody", "cy@example.com")[0].promoted
    who = "ann@example.com (signed token) and cy@example.com (signed token)"
    assert f"approved by {who}" in page.read_text()
    tenure = champion_tenures(connect(), config.registered_name)[-1]
    assert dict(history_block(tenure)[1])["promoted"] == f"by {who}"


def test_answers_in_forms_count_in_the_order_in_which_they_were_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [str(uuid4()), str(uuid4()), str(uuid4())]
    sent = {runs[0]: [(30, "Cy", "approval-2"), (10, "Ann", "approval")], runs[1]: [(20, "Bo", "approval")]}

    class Client:
        def filter_flow_run_input(self, run: UUID, prefix: str, limit: int, exclude: set[str]) -> list[FlowRunInput]:
            forms = [
                FlowRunInput(
                    flow_run_id=run,
                    key=f"suspended-{key}-response",
                    value=json.dumps({"answer": "approve", "name": name, "reason": "Fine."}),
                    created=datetime.fromtimestamp(moment, UTC),
                )
                for moment, name, key in sent.get(str(run), [])
            ]
            schema = FlowRunInput(flow_run_id=run, key="suspended-approval-schema", value="{}", created=datetime.now(UTC))
            odd = forms[0].model_copy(update={"value": '{"answer": "perhaps"}'}) if forms else schema
            return [schema, odd, *forms]

    monkeypatch.setattr("flows.support.approvals.get_client", lambda sync_client: nullcontext(Client()))
    answers = answers_on_pages(runs, CONFIG)
    assert [(answer.name, answer.identity) for answer in answers] == [("Ann", "typed"), ("Bo", "typed"), ("Cy", "typed")]


@pytest.mark.parametrize(("name", "reason"), [("", "why"), ("Ann", "  "), ("A" * 101, "why")])
def test_an_answer_needs_a_name_and_a_reason(name: str, reason: str) -> None:
    with pytest.raises(InputError, match="State both"):
        read_answer("approve", name, reason)


@pytest.mark.usefixtures("wide_console")
def test_history_and_rollout_in_the_terminal(asked: RunEvidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.operations.embedded.prefect_api", lambda say: nullcontext("nowhere"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text("name: support-desk\nexamples: {path: rows.jsonl}\n")
    (tmp_path / "bad.json").write_text("[]")

    def perennial(*arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, [*arguments, "--config", "config.yaml"])
        assert result.exit_code == code, result.output
        return result.output

    assert "no champion yet" in perennial("history")
    assert "no champion" in perennial("rollout", "status", code=2)
    answer_run(str(tmp_path / "store"), asked.run_name, read_answer("approve", "Ann Lee", "Read twenty replies."))
    told = perennial("history")
    assert "Ann Lee (typed)" in told
    assert asked.run_name in told
    assert "all traffic" in perennial("rollout", "status")
    assert "It has all the traffic already" in perennial("rollout", "start", code=3)
    client = connect()
    client.create_model_version("support-desk", "somewhere")
    client.set_registered_model_alias("support-desk", "previous", "2")
    assert "0 % of the traffic" in perennial("rollout", "start")
    assert "5 % of the traffic" in perennial("rollout", "advance", "--metric", "error_rate=0.01")
    assert "Wait until" in perennial("rollout", "advance", code=3)
    assert "a mapping of names" in perennial("rollout", "advance", "--metrics", "bad.json", code=2)
    assert "aborted: rude replies" in perennial("rollout", "abort", "--reason", "rude replies")


def test_live_metrics_come_from_a_file_and_from_pairs(tmp_path: Path) -> None:
    (tmp_path / "live.json").write_text('{"error_rate": 0.5, "csat": 4}')
    assert read_metrics(tmp_path / "live.json", ["error_rate=0.02"]) == {"error_rate": 0.02, "csat": 4.0}
    for pair in ("error_rate", "error_rate=", "error_rate=nan", "error_rate=high"):
        with pytest.raises(InputError, match="error_rate"):
            read_metrics(None, [pair])


@pytest.mark.usefixtures("wide_console")
def test_two_quarters_side_by_side(asked: RunEvidence, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments: list[Any] = ["compare", asked.run_name, "latest", "--store", str(tmp_path / "store"), "--html", str(page)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for text in (
        "Decision",
        "Scores. Both were scored on the same",
        "Examples: why rows left",
        "Preference pairs",
        "ROUGE-L",
    ):
        assert text in result.output
    assert page.read_text().startswith("<!doctype html>")
    assert "http" not in page.read_text().replace("http-equiv", "").replace("http://www.w3.org", "")


@pytest.mark.parametrize(("terms", "starter"), [("{}", None), ("{required_approvals: 2}", "ann")])
def test_a_command_records_who_starts_the_run_where_that_person_may_not_approve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terms: str, starter: str | None
) -> None:
    given: list[RunRequest | None] = []

    def retrain(config: Any, request: RunRequest | None) -> Any:
        given.append(request)
        return SimpleNamespace(promotion=None, promoted_by="promote-x", decision=SimpleNamespace(outcome="PROMOTE"))

    monkeypatch.setattr("perennial.operations.embedded.prefect_api", lambda say: nullcontext("nowhere"))
    monkeypatch.setattr("flows.retrain.retrain", retrain)
    monkeypatch.setattr("getpass.getuser", lambda: "ann")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(f"name: desk\nexamples: {{path: rows.jsonl}}\nregistry: {terms}\n")
    assert CliRunner().invoke(app, ["retrain", "--config", "config.yaml"]).exit_code == 0
    assert [starter_of(request) for request in given] == [starter]
