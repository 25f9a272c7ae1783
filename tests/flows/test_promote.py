"""A person's word in the promote deployment: real server, real worker, a run that suspends itself until it is answered."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.client.orchestration import get_client

from flows.support.outcomes import OUTCOMES
from perennial.operations import embedded
from tasks.contracts.run import RunEvidence, RunFindings
from tasks.core.errors import ClosedQuestionError
from tasks.core.processes import start_guarded, stop_group
from tasks.core.storage import open_store
from tests.support.asking import ask
from tests.support.evidence import make_evidence

ROOT = Path(__file__).parents[2]
ENDS = {"Completed", *OUTCOMES}


def state_of(api: str, run_id: str, *, until: set[str], seconds: int = 240) -> str:
    """The name of the run's state once it is one of ``until``."""
    name = ""
    for _ in range(2 * seconds):
        name = str(ask(f"/flow_runs/{run_id}")["state"]["name"])
        if name in until | {"Failed", "Crashed"}:
            break
        time.sleep(0.5)
    return name


def findings_of(evidence: RunEvidence) -> RunFindings:
    return RunFindings(**{name: getattr(evidence, name) for name in RunFindings.model_fields})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_suspends_and_goes_on_with_the_form_or_the_command(own_home: Path) -> None:
    from flows.support.approvals import hand_over
    from tasks.dossier import DossierConfig
    from tasks.dossier.summary import read_record
    from tasks.registry import RegistryConfig
    from tasks.registry.versions import aliases_of
    from tasks.tracking import connect

    store = own_home / "store"
    registration, page = RegistryConfig(model_name="support-desk"), DossierConfig()
    four_eyes = RegistryConfig(model_name="support-desk", approvers=("Ann Lee", "Bo", "Dee"), required_approvals=2)
    with embedded.prefect_api(print) as api:
        first = findings_of(make_evidence(store, "NEEDS_HUMAN"))
        first = first.model_copy(update={"settings": {**first.settings, "registry": registration.model_dump(mode="json")}})
        first = first.model_copy(update={"started_by": "Dee"})
        assert hand_over(str(store), first, registration, page) is None, "nothing is deployed yet"
        deploy(api)
        worker = start_guarded(
            "prefect",
            ["worker", "start", "--pool", "perennial-cpu"],
            environment={**os.environ, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            # A run that nobody promotes by itself asks, and the page says so while it waits.
            handed = hand_over(str(store), first, four_eyes, page)
            assert handed is not None
            assert (handed.promotion, handed.dossier) == (None, None)
            assert hand_over(str(store), first, four_eyes, page) == handed, "handed over twice is handed over once"
            run_id = run_called(api, handed.promoted_by)
            assert "model:support-desk" in ask(f"/flow_runs/{run_id}")["tags"]
            assert state_of(api, run_id, until={"Suspended"}) == "Suspended"
            waiting = RunEvidence.model_validate(read_record(str(store), first.run_name))
            assert waiting.promotion.approval is not None
            assert (waiting.promotion.approval.verdict, waiting.promotion.approval.flow_run_id) == (None, run_id)
            assert aliases_of(connect(), "support-desk") == {"challenger": "1"}
            # An answer that the form does not allow is refused, and the run waits on.
            bad = ask(f"/flow_runs/{run_id}/resume", {"run_input": {"answer": "perhaps", "name": "Ann", "reason": "?"}})
            assert bad["status"] == "REJECT"
            # Four eyes: an answer that does not count, and the first of two approvals, each bring the form back.
            shown = []
            for who in ("Dee", "Ann Lee", "Bo"):
                assert state_of(api, run_id, until={"Suspended"}) == "Suspended"
                keys = ask(f"/flow_runs/{run_id}")["state"]["state_details"]["run_input_keyset"]
                with get_client(sync_client=True) as client:
                    shown.append(str(client.read_flow_run_input(UUID(run_id), keys["description"])))
                form = {"answer": "approve", "name": who, "reason": f"{who} read twenty replies."}
                assert ask(f"/flow_runs/{run_id}/resume", {"run_input": form})["status"] == "ACCEPT"
            assert "0 of 2 approvals; may answer: Ann Lee, Bo, Dee; not by Dee" in shown[0]
            assert "an approval by Dee, who started the run" in shown[1]
            assert "1 of 2 approvals: Ann Lee (typed)" in shown[2]
            assert state_of(api, run_id, until=ENDS) == "Promoted"
            assert "ROUGE-L against the base model" in ask(f"/flow_runs/{run_id}")["state"]["message"]
            answered = RunEvidence.model_validate(read_record(str(store), first.run_name)).promotion
            assert answered.promoted
            assert answered.approval is not None
            assert answered.approval.by == "Ann Lee (typed) and Bo (typed)"
            assert [vote.reason for vote in answered.approval.votes] == [
                "Ann Lee read twenty replies.",
                "Bo read twenty replies.",
            ]
            assert aliases_of(connect(), "support-desk") == {"champion": "1"}

            # The next quarter: the command answers in place of the form, and the run that waited goes on with that.
            second = second_quarter(first, champion="1")
            other = hand_over(str(store), second, registration, page)
            assert other is not None
            other_id = run_called(api, other.promoted_by)
            assert state_of(api, other_id, until={"Suspended"}) == "Suspended"
            arguments = ["reject", second.run_name, "--name", "Bo", "--reason", "Too terse.", "--store", str(store)]
            subprocess.run(
                [sys.executable, "-m", "perennial", *arguments],
                cwd=ROOT,
                env={**os.environ, "PREFECT_API_URL": api},
                capture_output=True,
                text=True,
                timeout=180,
                check=True,
            )
            assert state_of(api, other_id, until=ENDS) == "Rejected"
            refused = RunEvidence.model_validate(read_record(str(store), second.run_name)).promotion
            assert not refused.promoted
            assert refused.approval is not None
            assert (refused.approval.verdict, refused.approval.by) == ("reject", "Bo")
            assert aliases_of(connect(), "support-desk") == {"champion": "1", "challenger": "2"}
        finally:
            stop_group(worker)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_first_answer_counts_outdated_questions_end_and_a_rollback_shows_its_way(own_home: Path) -> None:
    """The page answers first, and the command comes second; another champion wins; the way back. No run fails of it."""
    from flows.support.approvals import answer_run, hand_over, read_answer
    from tasks.dossier import DossierConfig
    from tasks.dossier.summary import read_record
    from tasks.registry import RegistryConfig, promote_champion, register_candidate
    from tasks.registry.versions import aliases_of
    from tasks.tracking import connect

    store = own_home / "store"
    registration, page = RegistryConfig(model_name="support-desk"), DossierConfig()
    with embedded.prefect_api(print) as api:
        first = findings_of(make_evidence(store, "NEEDS_HUMAN"))
        first = first.model_copy(update={"settings": {**first.settings, "registry": registration.model_dump(mode="json")}})
        deploy(api)

        def candidate(number: int, champion: str | None, outcome: str = "NEEDS_HUMAN") -> RunFindings:
            folder = own_home / f"adapter-{number}"
            folder.mkdir()
            (folder / "adapter_config.json").write_text(f'{{"r": {number}}}')
            adapter = open_store(store).add_folder(folder)
            changes: dict[str, Any] = {"champion_version": champion, "outcome": outcome}
            return first.model_copy(
                update={
                    "run_name": f"support-desk-{number}",
                    "dpo": None,
                    "sft": first.sft.model_copy(update={"adapter": adapter}),
                    "decision": first.decision.model_copy(update=changes),
                }
            )

        def asked(findings: RunFindings) -> str:
            handed = hand_over(str(store), findings, registration, page)
            assert handed is not None
            run_id = run_called(api, handed.promoted_by)
            assert state_of(api, run_id, until={"Suspended"}) == "Suspended"
            return run_id

        def kept(findings: RunFindings) -> Any:
            return RunEvidence.model_validate(read_record(str(store), findings.run_name)).promotion

        with worker_of(api):
            one = candidate(1, None)
            rejected = asked(one)
        # No worker is there to send the run on: its form is answered, and the registry does not know it yet.
        form = {"answer": "reject", "name": "Ann Lee", "reason": "Too terse."}
        assert ask(f"/flow_runs/{rejected}/resume", {"run_input": form})["status"] == "ACCEPT"
        with pytest.raises(ClosedQuestionError, match=r"Rejected by Ann Lee \(typed\) on .*: Too terse"):
            answer_run(str(store), one.run_name, read_answer("approve", "Bo", "Fine."))
        assert aliases_of(connect(), "support-desk") == {"challenger": "1"}
        with worker_of(api):
            assert state_of(api, rejected, until=ENDS) == "Rejected"
            assert (kept(one).approval.verdict, kept(one).approval.by, kept(one).late) == ("reject", "Ann Lee", None)

            # Another candidate becomes champion: the question that it outdates is withdrawn, and its run ends explained.
            two, three = candidate(2, None), candidate(3, None, "PROMOTE")
            outdated = asked(two)
            version = register_candidate.fn(registration, three)
            assert promote_champion.fn(registration, version, three.decision).promoted
            assert state_of(api, outdated, until=ENDS) == "Held"
            assert kept(two).approval.verdict == "withdrawn"
            before = aliases_of(connect(), "support-desk")
            with pytest.raises(ClosedQuestionError, match=f"version {version.version} became champion"):
                answer_run(str(store), two.run_name, read_answer("approve", "Bo", "Fine."))
            assert aliases_of(connect(), "support-desk") == before

            # A rollback from the form: refused at once where there is no way back, shown before it is done where there is.
            def roll_back() -> str:
                found = ask("/deployments/name/rollback/rollback")
                answers = {"reason": "rude replies", "name": "Ann Lee"}
                return str(ask(f"/deployments/{found['id']}/create_flow_run", {"parameters": answers})["id"])

            refused = roll_back()
            assert state_of(api, refused, until={"Cancelled"}) == "Cancelled"
            assert "nothing to go back to" in ask(f"/flow_runs/{refused}")["state"]["message"]
            four = candidate(4, version.version, "PROMOTE")
            newest = register_candidate.fn(registration, four)
            assert promote_champion.fn(registration, newest, four.decision).promoted
            back = roll_back()
            assert state_of(api, back, until={"Suspended"}) == "Suspended"
            assert ask(f"/flow_runs/{back}/resume", {"run_input": {"answer": "roll back"}})["status"] == "ACCEPT"
            assert state_of(api, back, until={"Completed"}) == "Completed"
            held = aliases_of(connect(), "support-desk")
            assert (held["champion"], held["previous"]) == (version.version, newest.version)


@contextmanager
def worker_of(api: str) -> Iterator[None]:
    """A worker of the CPU pool for the block."""
    worker = start_guarded(
        "prefect",
        ["worker", "start", "--pool", "perennial-cpu"],
        environment={**os.environ, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        stop_group(worker)


def second_quarter(findings: RunFindings, champion: str) -> RunFindings:
    """Another candidate, judged against a champion."""
    adapter = findings.sft.adapter
    return findings.model_copy(
        update={
            "run_name": "support-desk-20261001-020000",
            "dpo": None,
            "sft": findings.sft.model_copy(update={"adapter": adapter}),
            "decision": findings.decision.model_copy(update={"champion_version": champion}),
        }
    )


def run_called(api: str, name: str | None) -> str:
    """The id of the only run of that name."""
    (run,) = ask("/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return str(run["id"])


def deploy(api: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "perennial", "deploy"],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": api},
        capture_output=True,
        timeout=300,
        check=True,
    )
