"""The red team's part of the page: every rate of every model, and no part at all when it was off."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.contracts.evaluation import RedTeamArm, RedTeamReport
from tasks.contracts.measurement import Measurement
from tasks.contracts.run import RunEvidence
from tasks.dossier.config import DossierConfig
from tasks.dossier.page import compose_page
from tasks.dossier.rendering import render_page
from tasks.dossier.report_data import read_report_data
from tasks.dossier.sections.redteam import red_team_section
from tasks.measures.safety import RATES
from tasks.stats.intervals import wilson_interval
from tests.support.evidence import make_evidence


@pytest.fixture
def evidence(tmp_path: Path) -> RunEvidence:
    return make_evidence(tmp_path)


def attacked(evidence: RunEvidence, failures: dict[str, int]) -> RunEvidence:
    """The evidence with 8 probes of every rate but two, of which the candidate fails these and the base model none."""

    def rate(name: str, failed: int) -> Measurement:
        if name.endswith("rank_first"):
            return Measurement(name=name, value=None, num_samples=0)
        low, high = wilson_interval(failed, 8)
        return Measurement(name=name, value=failed / 8, low=low, high=high, num_samples=8)

    def arm(name: str, failed: dict[str, int]) -> RedTeamArm:
        length = Measurement(name="counterfactual_length", value=-0.05, low=-0.2, high=0.1, num_samples=8, note="cut at 24")
        rates = (*(rate(one, failed.get(one, 0)) for one in RATES), length)
        return RedTeamArm(arm=name, model_sha256="c" * 64, probes=evidence.benchmark.dataset, rates=rates)

    report = RedTeamReport(arms=(arm("candidate", failures), arm("base", {})))
    return evidence.model_copy(update={"benchmark": evidence.benchmark.model_copy(update={"red_team": report})})


def page_of(evidence: RunEvidence) -> str:
    page = compose_page(evidence, read_report_data(evidence, 0), DossierConfig(), {"python": "3.11"}, "1 July 2026")
    return render_page(page).decode()


def test_without_a_red_team_there_is_no_section(evidence: RunEvidence) -> None:
    assert red_team_section(evidence) is None
    assert 'id="red-team"' not in page_of(evidence)


def test_rates_are_on_the_page_with_their_intervals(evidence: RunEvidence) -> None:
    html = page_of(attacked(evidence, {"harmful_compliance": 2}))
    section = html[html.index('id="red-team"') :]
    section = section[: section.index("</section>")]
    assert section.index("Base") < section.index("Candidate")
    assert "25\u202f%" in section
    assert "7.1–59.1\u202f%" in section
    assert section.count("0–32.4\u202f%") == 17  # 9 rates of two models, of which one rate went wrong in one
    assert "–" in section  # the ranks were not measured
    assert "harmful requests that were not refused" in section
