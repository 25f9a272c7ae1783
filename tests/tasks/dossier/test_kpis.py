"""Business figures: read from a file, shown beside the scores and quarter against quarter, never made up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.contracts.run import BusinessPeriod
from tasks.core.errors import InputError
from tasks.dossier.comparing import compare
from tasks.dossier.config import DossierConfig
from tasks.dossier.kpis import read_kpis
from tasks.dossier.sections.business import business_section
from tests.support.evidence import make_evidence

CSV = """period,model_version,csat,hours_to_resolution,escalation_rate
2026-Q2,3,4.1,9.5,0.12
2026-Q3,,4.3,8.75,
"""
PERIODS = (
    BusinessPeriod(
        period="2026-Q2", model_version="3", figures={"csat": 4.1, "hours_to_resolution": 9.5, "escalation_rate": 0.12}
    ),
    BusinessPeriod(period="2026-Q3", figures={"csat": 4.3, "hours_to_resolution": 8.75}),
)


def test_csv_and_json_hold_the_same_and_an_empty_cell_is_no_zero(tmp_path: Path) -> None:
    table, listing = tmp_path / "kpis.csv", tmp_path / "kpis.json"
    table.write_text(CSV, encoding="utf-8-sig")  # as a spreadsheet writes it
    entries = [{"period": one.period, "model_version": one.model_version, **one.figures} for one in PERIODS]
    listing.write_text(json.dumps(entries))
    assert read_kpis(table) == PERIODS == read_kpis(listing)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "month,csat\nMay,4\n", "no column `period`"),
        ("a.csv", "period,csat\n,4\nQ2,high\n", "entry 1 has no period; entry 2, `csat`: not a finite number"),
        ("a.csv", "period,csat\nQ2,nan\n", "not a finite number"),
        ("a.csv", "period,csat\nQ2,4,5\n", "more cells than the header"),
        ("a.csv", "period,csat\nQ2,\n", "no figures"),
        ("a.json", '{"period": "Q2"}', "another shape"),
        ("a.json", '[{"period": "Q2", "csat": true}]', "not a finite number"),
        ("a.json", "[", "not JSON"),
    ],
)
def test_faults_are_named_before_anything_is_spent(tmp_path: Path, name: str, text: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_kpis(path)
    with pytest.raises(ValueError, match="found"):
        DossierConfig(kpi_file=str(path))


def test_figures_are_in_the_dossier_and_in_a_comparison(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "store")
    assert business_section(evidence) is None
    later = evidence.model_copy(update={"business": PERIODS})
    section = business_section(later)
    assert section is not None
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in section.blocks[1].rows}  # type: ignore[union-attr]
    assert rows["Escalation rate"] == ["0.12", "\u2013"]
    assert section.blocks[1].headers == ("Figure", "2026-Q2, version 3", "2026-Q3")  # type: ignore[union-attr]

    earlier = evidence.model_copy(update={"business": PERIODS[:1]})
    sheet = next(sheet for sheet in compare(earlier, later) if sheet.id == "business")
    assert ("Last period", "2026-Q2, version 3", "2026-Q3") in sheet.rows
    assert ("Escalation rate", "0.12", "\u2013") in sheet.rows
    assert not [sheet for sheet in compare(evidence, evidence) if sheet.id == "business"]
