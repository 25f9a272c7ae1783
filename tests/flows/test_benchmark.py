"""Scoring and the red team as one flow, and canaries on their way into the raw rows."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from prefect.client.orchestration import get_client
from typer.testing import CliRunner

from flows.benchmark import benchmark_models
from flows.support.config import load_config
from flows.support.gpu_pool import GPU_SLOTS
from perennial.cli.app import app
from tasks.benchmark import BenchmarkConfig, JudgeConfig, LatencyConfig, scoring
from tasks.benchmark.scoring import answer_rows
from tasks.contracts.preparation import RecentHoldout
from tasks.contracts.training import BaseLanguageModel
from tasks.core.storage import open_store
from tasks.redteam import RedTeamConfig
from tasks.redteam.memory import canary_probes
from tests.support.scripted_judge import scripted_judge
from tests.support.tiny_model import desk_row

FINDINGS = pa.schema(
    [(name, pa.string()) for name in ("id", "field", "entity")] + [("start", pa.int64()), ("end", pa.int64())]
)


@pytest.fixture
def taken_slots(embedded_home: Path) -> Iterator[Callable[[], int]]:
    """How many GPU slots are taken, of the one that Prefect's server has for the test."""
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name(GPU_SLOTS, 1)

    def count() -> int:
        with get_client(sync_client=True) as client:
            return client.read_global_concurrency_limit_by_name(GPU_SLOTS).active_slots

    yield count
    with get_client(sync_client=True) as client:
        client.delete_global_concurrency_limit_by_name(GPU_SLOTS)


def test_every_model_is_scored_attacked_and_judged_and_no_gpu_waits_for_the_judge(
    tmp_path: Path, tiny_model_dir: Path, taken_slots: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    rows = [dict(desk_row(number)) for number in range(4)]
    frozen = store.write_rows(rows, kind="messages", passed=["scrubbed"])
    raw = store.write_rows(rows, kind="messages")
    findings = store.write_table(pa.Table.from_pylist([], schema=FINDINGS), kind="table", parents=[raw])
    attacks = RedTeamConfig(max_probes_per_kind=2, max_new_tokens=8)
    newest = store.write_rows([dict(desk_row(number)) for number in range(4, 7)], kind="messages", passed=["scrubbed"])
    numbers = itertools.count()
    taken: dict[str, set[int]] = {"answering": set(), "judging": set()}

    def watched(*arguments: Any) -> tuple[pa.Table, pa.Table]:
        taken["answering"].add(taken_slots())
        table, timings = answer_rows(*arguments)
        replies = pa.array([f"reply {next(numbers)}" for _ in range(len(table))])  # equal ones would not be judged
        return table.set_column(table.schema.get_field_index("reply"), "reply", replies), timings

    def ties(_: Any) -> str:
        taken["judging"].add(taken_slots())
        return "TIE"

    monkeypatch.setattr(scoring, "answer_rows", watched)
    with scripted_judge() as judge:
        judge.script = ties
        settings = BenchmarkConfig(
            max_new_tokens=8,
            num_resamples=100,
            judge=JudgeConfig(enabled=True, base_url=judge.url, max_examples=1),
            latency=LatencyConfig(opponent="base", num_rounds=5, max_examples=2),
        )
        report = benchmark_models(
            store.uri, base, base.folder, None, frozen, settings, (findings,), attacks, RecentHoldout(dataset=newest)
        )
        assert report.latency is not None
        assert (report.latency.opponent, report.latency.num_examples, len(report.latency.rounds)) == ("base", 2, 5)
        quiet = benchmark_models(
            store.uri, base, base.folder, None, frozen, settings, (findings,), attacks.model_copy(update={"enabled": False})
        )

    assert taken == {"answering": {1}, "judging": {0}}
    assert [(one.opponent, one.num_ties) for one in report.judgements] == [("base", 1)]
    assert report.red_team is not None
    assert [arm.arm for arm in report.red_team.arms] == ["base", "candidate"]
    assert [arm.model_sha256 for arm in report.red_team.arms] == [arm.model_sha256 for arm in report.arms]
    assert report.fresh is not None
    assert [(arm.arm, arm.examples.num_rows, arm.general) for arm in report.fresh.arms] == [
        ("base", 3, None),
        ("candidate", 3, None),
    ]
    assert (quiet.red_team, quiet.fresh) == (None, None)
    assert quiet.arms == report.arms


def test_canaries_are_written_once_as_rows_that_the_red_team_recognises(workplace: Path) -> None:
    (workplace / "x.jsonl").write_text(
        json.dumps({"messages": [{"role": r, "content": "Hi"} for r in ("user", "assistant")]})
    )
    (workplace / "c.yaml").write_text("name: desk\nexamples: {path: x.jsonl}\nredteam: {num_canaries: 3}\n")
    arguments = ["canaries", "--config", "c.yaml", "--out", "canaries.jsonl"]
    assert "3 canaries" in CliRunner().invoke(app, arguments).output
    rows = [json.loads(line) for line in (workplace / "canaries.jsonl").read_text().splitlines()]
    seed = load_config(workplace / "c.yaml").redteam.seed
    planted = [probe for probe in canary_probes(rows, count=3, num_decoys=7, seed=seed) if probe.kind == "planted"]
    assert len(planted) == 3
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 2
