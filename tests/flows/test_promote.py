"""A person's word in the promote deployment: real server, real worker, a run that suspends itself until it is answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from flows import embedded
from tasks.contracts import RunEvidence, RunFindings
from tasks.processes import start_guarded, stop_group
from tests.evidence import make_evidence

ROOT = Path(__file__).parents[2]


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """The answer to a GET or POST; asked again while SQLite is locked (503), as Prefect's own client does."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    for attempt in range(6):
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == 5:
                raise
            time.sleep(2)
    raise AssertionError


def state_of(api: str, run_id: str, *, until: set[str], seconds: int = 240) -> str:
    """The name of the run's state once it is one of ``until``."""
    name = ""
    for _ in range(2 * seconds):
        name = str(call(f"{api}/flow_runs/{run_id}")["state"]["name"])
        if name in until | {"Failed", "Crashed"}:
            break
        time.sleep(0.5)
    return name


def findings_of(evidence: RunEvidence) -> RunFindings:
    return RunFindings(**{name: getattr(evidence, name) for name in RunFindings.model_fields})


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_suspends_and_goes_on_with_the_form_or_the_command(own_home: Path) -> None:
    from flows.approving import hand_over
    from tasks.dossier import DossierConfig
    from tasks.dossier.summary import read_record
    from tasks.registry import RegistryConfig
    from tasks.registry.versions import aliases_of
    from tasks.tracking import connect

    store = own_home / "store"
    registration, page = RegistryConfig(model_name="support-desk"), DossierConfig()
    with embedded.prefect_api(print) as api:
        first = findings_of(make_evidence(store, "NEEDS_HUMAN"))
        first = first.model_copy(update={"settings": {**first.settings, "registry": registration.model_dump(mode="json")}})
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
            handed = hand_over(str(store), first, registration, page)
            assert handed is not None
            assert (handed.promotion, handed.dossier) == (None, None)
            assert hand_over(str(store), first, registration, page) == handed, "handed over twice is handed over once"
            run_id = run_called(api, handed.promoted_by)
            assert state_of(api, run_id, until={"Suspended"}) == "Suspended"
            waiting = RunEvidence.model_validate(read_record(str(store), first.run_name))
            assert waiting.promotion.approval is not None
            assert (waiting.promotion.approval.verdict, waiting.promotion.approval.flow_run_id) == (None, run_id)
            assert aliases_of(connect(), "support-desk") == {"challenger": "1"}
            # An answer that the form does not allow is refused, and the run waits on.
            bad = call(
                f"{api}/flow_runs/{run_id}/resume", {"run_input": {"answer": "perhaps", "name": "Ann", "reason": "?"}}
            )
            assert bad["status"] == "REJECT"
            form = {"answer": "approve", "name": "Ann Lee", "reason": "Read twenty replies."}
            assert call(f"{api}/flow_runs/{run_id}/resume", {"run_input": form})["status"] == "ACCEPT"
            assert state_of(api, run_id, until={"Completed"}) == "Completed"
            answered = RunEvidence.model_validate(read_record(str(store), first.run_name)).promotion
            assert answered.promoted
            assert answered.approval is not None
            assert (answered.approval.by, answered.approval.reason) == ("Ann Lee", "Read twenty replies.")
            assert aliases_of(connect(), "support-desk") == {"champion": "1"}

            # The next quarter: the command answers in place of the form, and the run that waited goes on with that.
            second = second_quarter(first, champion="1")
            other = hand_over(str(store), second, registration, page)
            assert other is not None
            other_id = run_called(api, other.promoted_by)
            assert state_of(api, other_id, until={"Suspended"}) == "Suspended"
            arguments = ["reject", second.run_name, "--name", "Bo", "--reason", "Too terse.", "--store", str(store)]
            told = subprocess.run(
                [sys.executable, "-m", "flows.cli", *arguments],
                cwd=ROOT,
                env={**os.environ, "PREFECT_API_URL": api},
                capture_output=True,
                text=True,
                timeout=180,
                check=True,
            )
            assert "goes on and writes the dossier" in told.stdout
            assert state_of(api, other_id, until={"Completed"}) == "Completed"
            refused = RunEvidence.model_validate(read_record(str(store), second.run_name)).promotion
            assert not refused.promoted
            assert refused.approval is not None
            assert (refused.approval.verdict, refused.approval.by) == ("reject", "Bo")
            assert aliases_of(connect(), "support-desk") == {"champion": "1", "challenger": "2"}
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
    (run,) = call(f"{api}/flow_runs/filter", {"flow_runs": {"name": {"any_": [name]}}})
    return str(run["id"])


def deploy(api: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "flows.cli", "deploy"],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": api},
        capture_output=True,
        timeout=300,
        check=True,
    )
