"""Scoring and the red team as one flow, and canaries on their way into the raw rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flows.benchmark import benchmark_models
from flows.cli import app
from flows.config import load_config
from tasks.benchmark import BenchmarkConfig
from tasks.contracts import BaseLanguageModel
from tasks.redteam import RedTeamConfig
from tasks.redteam.memory import canary_probes
from tasks.storage import Store
from tests.tiny_model import desk_row

FINDINGS = pa.schema(
    [(name, pa.string()) for name in ("id", "field", "entity")] + [("start", pa.int64()), ("end", pa.int64())]
)


@pytest.mark.usefixtures("embedded_home")
def test_every_model_is_scored_and_attacked_unless_the_red_team_is_off(tmp_path: Path, tiny_model_dir: Path) -> None:
    store = Store(tmp_path / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    rows = [dict(desk_row(number)) for number in range(4)]
    frozen = store.write_rows(rows, kind="messages", passed=["scrubbed"])
    raw = store.write_rows(rows, kind="messages")
    findings = store.write_table(pa.Table.from_pylist([], schema=FINDINGS), kind="table", parents=[raw])
    scoring = BenchmarkConfig(max_new_tokens=8, num_resamples=100)
    attacks = RedTeamConfig(max_probes_per_kind=2, max_new_tokens=8)

    report = benchmark_models(base, base.folder, None, frozen, scoring, findings, attacks)
    assert report.red_team is not None
    assert [arm.arm for arm in report.red_team.arms] == ["base", "candidate"]
    assert [arm.model_sha256 for arm in report.red_team.arms] == [arm.model_sha256 for arm in report.arms]

    quiet = benchmark_models(
        base, base.folder, None, frozen, scoring, findings, attacks.model_copy(update={"enabled": False})
    )
    assert quiet.red_team is None
    assert quiet.arms == report.arms


def test_canaries_are_written_once_as_rows_that_the_red_team_recognises(workplace: Path) -> None:
    (workplace / "c.yaml").write_text("name: desk\nexamples: {path: x.jsonl}\nredteam: {num_canaries: 3}\n")
    arguments = ["canaries", "--config", "c.yaml", "--out", "canaries.jsonl"]
    assert "3 canaries" in CliRunner().invoke(app, arguments).output
    rows = [json.loads(line) for line in (workplace / "canaries.jsonl").read_text().splitlines()]
    seed = load_config(workplace / "c.yaml").redteam.seed
    planted = [probe for probe in canary_probes(rows, count=3, num_decoys=7, seed=seed) if probe.kind == "planted"]
    assert len(planted) == 3
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
