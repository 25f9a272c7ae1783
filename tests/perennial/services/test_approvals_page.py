"""The page behind an authenticating proxy: the proxy's name counts, and nothing else opens the page or sends its form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from perennial.services.approvals_page import ApprovalsPage, create_app, read_proxy_secret
from tasks.contracts.registry import Approval, PromotionRecord
from tasks.contracts.run import RunEvidence
from tasks.core.errors import ConfigError, InputError, NotAnApproverError, RegistryOutageError
from tasks.registry import Answer
from tests.support.evidence import make_evidence

SECRET = "p" * 32
HEADERS = {"X-Perennial-Proxy": SECRET, "X-Forwarded-Email": "ann@example.com"}
OPEN = Approval(
    outcome="NEEDS_HUMAN", champion_version=None, requested_at="2026-11-01T02:00:00+00:00", required=2, excluded="<Dee>"
)


class Registry:
    """What the page reads and answers."""

    def __init__(self, evidence: RunEvidence) -> None:
        self.evidence = evidence
        self.approval: Approval | None = OPEN
        self.answers: list[tuple[str, Answer]] = []
        self.error: Exception | None = None
        self.open: list[tuple[str, str, str, Approval]] = []

    def read(self, run: str) -> tuple[RunEvidence, Approval | None]:
        if run != self.evidence.run_name:
            raise InputError(f"run {run}", "no such run", "the name of a run", "See `perennial runs`.")
        return self.evidence, self.approval

    def answer(self, run: str, given: Answer) -> PromotionRecord:
        if self.error:
            raise self.error
        self.answers.append((run, given))
        return self.evidence.promotion.model_copy(update={"reason": "1 of 2 <approvals>."})


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> RunEvidence:
    return make_evidence(tmp_path_factory.mktemp("page") / "store", "NEEDS_HUMAN")


@pytest.fixture
def registry(evidence: RunEvidence) -> Registry:
    return Registry(evidence)


@pytest.fixture
def page(registry: Registry) -> TestClient:
    shown = ApprovalsPage(SECRET.encode(), "X-Forwarded-Email", lambda: registry.open, registry.read, registry.answer)
    app = create_app(shown)
    return TestClient(app, headers=HEADERS)


def form_of(page: TestClient, run: str, **changes: Any) -> dict[str, Any]:
    found = re.search(r'name="seal" value="([0-9a-f]+)"', page.get(f"/runs/{run}").text)
    assert found
    return {"seal": found[1], "verdict": "approve", "reason": "Read twenty replies.", **changes}


def test_the_proxy_s_name_answers_whatever_the_form_says(page: TestClient, registry: Registry) -> None:
    run = registry.evidence.run_name
    shown = page.get(f"/runs/{run}")
    assert "You answer as <strong>ann@example.com</strong>" in shown.text
    assert "0 of 2 approvals" in shown.text
    assert "not by &lt;Dee&gt;, who started the run" in shown.text
    assert "frame-ancestors 'none'" in shown.headers["Content-Security-Policy"]
    answered = page.post(f"/runs/{run}", data=form_of(page, run, name="Eve", identity="typed"))
    assert (answered.status_code, "1 of 2 &lt;approvals&gt;" in answered.text) == (200, True)
    ((answered_run, given),) = registry.answers
    assert (answered_run, given.name, given.identity) == (run, "ann@example.com", "proxy")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Perennial-Proxy": ""},
        {"X-Perennial-Proxy": SECRET[:-1]},
        {"X-Forwarded-Email": ""},
        {"X-Forwarded-Email": "a" * 101},
        {"X-Forwarded-Email": b"a\xc2\x85nn"},
    ],
)
def test_a_request_past_the_proxy_is_refused(page: TestClient, registry: Registry, headers: dict[str, Any]) -> None:
    form = form_of(page, registry.evidence.run_name)
    for answer in (
        page.get(f"/runs/{registry.evidence.run_name}", headers=headers),
        page.post(f"/runs/{registry.evidence.run_name}", data=form, headers=headers),
    ):
        assert answer.status_code == 401
        assert "support-desk" not in answer.text
    assert registry.answers == []


def test_a_form_of_another_site_person_or_run_is_refused(page: TestClient, registry: Registry) -> None:
    run = registry.evidence.run_name
    form = form_of(page, run)
    bo = {"X-Forwarded-Email": "bo@example.com"}
    assert page.post(f"/runs/{run}", data={**form, "seal": ""}).status_code == 403
    assert page.post(f"/runs/{run}", data=form, headers=bo).status_code == 403
    assert page.post("/runs/another-run", data=form).status_code == 403
    assert page.post(f"/runs/{run}", data={**form, "reason": "x" * 30_000}).status_code == 413
    for changes in ({"verdict": "perhaps"}, {"verdict": ""}, {"reason": " "}, {"reason": "x" * 1001}):
        assert page.post(f"/runs/{run}", data={**form, **changes}).status_code == 422
    assert registry.answers == []


def test_the_first_page_lists_what_waits_and_links_what_this_person_may_answer(page: TestClient, registry: Registry) -> None:
    assert "Nothing." in page.get("/").text
    listed = OPEN.model_copy(update={"approvers": ("Bo",), "excluded": None})
    registry.open = [("bank", "7", "bank-1", listed), ("desk", "3", "desk-1", OPEN), ("desk", "4", "<odd>", OPEN)]
    shown = page.get("/").text
    assert shown.index('<a href="runs/desk-1">desk, version 3</a>') < shown.index("bank, version 7")
    assert "may answer: Bo" in shown
    assert 'href="runs/bank-1"' not in shown
    assert "<odd>" not in shown
    assert page.get("/", headers={"X-Perennial-Proxy": "x"}).status_code == 401


def test_a_name_beyond_ascii_is_read_as_it_is(page: TestClient, registry: Registry) -> None:
    shown = page.get(f"/runs/{registry.evidence.run_name}", headers={"X-Forwarded-Email": "Zoë".encode()})
    assert "You answer as <strong>Zoë</strong>" in shown.text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotAnApproverError("a", "an answer by ann@example.com", "one of bo", "Let one of them answer."), 409),
        (RegistryOutageError("MLflow", "no answer", "one", "Try again."), 503),
    ],
)
def test_an_answer_that_does_not_count_is_explained(
    page: TestClient, registry: Registry, error: Exception, code: int
) -> None:
    registry.error = error
    run = registry.evidence.run_name
    answer = page.post(f"/runs/{run}", data=form_of(page, run))
    assert answer.status_code == code
    assert str(error.args[0]) in answer.text or "Not accepted" in answer.text


def test_a_closed_request_has_no_form_and_an_unknown_run_is_explained(page: TestClient, registry: Registry) -> None:
    run = registry.evidence.run_name
    closed = {
        "verdict": "approve",
        "by": "Bo",
        "identity": "token",
        "answered_at": "2026-11-01T09:00:00+00:00",
        "reason": "x",
    }
    registry.approval = OPEN.model_copy(update=closed)
    shown = page.get(f"/runs/{run}").text
    assert "Approved by Bo (signed token)" in shown
    assert "<form" not in shown
    registry.approval = None
    assert "No approval is requested" in page.get(f"/runs/{run}").text
    assert page.get("/runs/unknown").status_code == 409
    assert page.get("/runs/%3Cscript%3E").status_code == 404


def test_the_page_needs_a_long_secret_of_its_proxy(tmp_path: Path) -> None:
    assert read_proxy_secret({"PERENNIAL_PROXY_SECRET": SECRET}) == SECRET.encode()
    for given in ({}, {"PERENNIAL_PROXY_SECRET": "short"}):
        with pytest.raises(ConfigError, match="PERENNIAL_PROXY_SECRET"):
            read_proxy_secret(given)
