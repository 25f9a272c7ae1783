"""A scripted judge behind real HTTP: both orders, ties, retries, refusals, and what is sent and kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.benchmark.config import BenchmarkConfig, JudgeConfig
from tasks.benchmark.judging import Judge, Pair, judge_pairs, verdict_in
from tasks.benchmark.scoring import EXAMPLES_SCHEMA
from tasks.benchmark.task import judge_replies
from tasks.contracts.evaluation import ArmScores, BenchmarkReport, PairwiseJudgeResult
from tasks.core.errors import LineageError
from tasks.core.storage import Store, open_store
from tests.support.scripted_judge import ScriptedJudge, scripted_judge


@pytest.fixture
def endpoint() -> Iterator[ScriptedJudge]:
    with scripted_judge() as judge:
        yield judge


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def row(number: int) -> dict[str, Any]:
    turns = [{"role": "user", "content": f"question {number}"}, {"role": "assistant", "content": "the reference"}]
    return {"id": f"r{number}", "messages": turns}


def compare(endpoint: ScriptedJudge, store: Store, pairs: list[Pair], **settings: Any) -> PairwiseJudgeResult:
    config = JudgeConfig(base_url=endpoint.url, model="scripted", **settings)
    with Judge(config, "a-key", store, wait=lambda seconds: None) as judge:
        return judge_pairs("base", pairs, judge, config, seed=0)


def counts(judgement: PairwiseJudgeResult) -> tuple[int, int, int, int]:
    return judgement.num_wins, judgement.num_ties, judgement.num_losses, judgement.num_unjudged


def prefers_good(content: dict[str, Any]) -> str:
    good = [letter for letter in ("A", "B") if "good" in content[letter]]
    return good[0] if len(good) == 1 else "TIE"


def test_a_consistent_judge_counts(endpoint: ScriptedJudge, store: Store) -> None:
    endpoint.script = prefers_good
    texts = [("good", "bad")] * 6 + [("bad", "good")] * 2 + [("bad", "worse")] * 2
    pairs = [
        Pair(row(number), f"{candidate} {number}", f"{opponent} {number}")
        for number, (candidate, opponent) in enumerate(texts)
    ]
    judgement = compare(endpoint, store, pairs)
    assert counts(judgement) == (6, 2, 2, 0)
    assert judgement.win_rate.value == pytest.approx(0.7)
    assert judgement.win_rate.low < 0.7 < judgement.win_rate.high  # type: ignore[operator]
    mirrored = compare(endpoint, store, [Pair(pair.row, pair.opponent, pair.candidate) for pair in pairs])
    assert counts(mirrored) == (2, 2, 6, 0)
    assert endpoint.keys == {"Bearer a-key"}


@pytest.mark.parametrize("favourite", ["A", "B"])
def test_a_judge_that_favours_a_place_decides_nothing(endpoint: ScriptedJudge, store: Store, favourite: str) -> None:
    endpoint.script = lambda content: favourite
    judgement = compare(endpoint, store, [Pair(row(number), "one", "other") for number in range(5)])
    assert counts(judgement) == (0, 5, 0, 0)
    assert judgement.win_rate.value == 0.5


def test_equal_replies_tie_without_a_request_and_verdicts_are_kept(endpoint: ScriptedJudge, store: Store) -> None:
    endpoint.script = prefers_good
    assert counts(compare(endpoint, store, [Pair(row(0), "same", "same ")])) == (0, 1, 0, 0)
    assert endpoint.asked == []
    pairs = [Pair(row(1), "good", "bad")]
    first = compare(endpoint, store, pairs)
    assert len(endpoint.asked) == 2
    assert compare(endpoint, store, pairs) == first
    assert len(endpoint.asked) == 2
    compare(endpoint, store, pairs, criteria="Prefer the shorter one.")
    assert len(endpoint.asked) == 4
    kept = [path.read_bytes() for path in Path(store.uri.removeprefix("file://")).glob("judge/*")]
    assert set(kept) == {b"A", b"B"}  # letters, no text


def test_a_failed_request_is_retried_and_a_lasting_failure_is_counted(endpoint: ScriptedJudge, store: Store) -> None:
    endpoint.script, endpoint.failures = prefers_good, [503, 429]
    assert counts(compare(endpoint, store, [Pair(row(1), "good", "bad")], max_attempts=3)) == (1, 0, 0, 0)
    endpoint.failures = [500] * 3
    lasting = compare(endpoint, store, [Pair(row(2), "good", "bad")], max_attempts=3)
    assert counts(lasting) == (0, 0, 0, 1)
    assert lasting.win_rate.value is None  # not measured, and not 0


def test_a_refused_key_ends_the_requests_and_is_noted(endpoint: ScriptedJudge, store: Store) -> None:
    endpoint.failures = [401] * 100
    judgement = compare(endpoint, store, [Pair(row(number), "good", "bad") for number in range(20)], max_concurrent=1)
    assert counts(judgement) == (0, 0, 0, 20)
    assert "401" in judgement.win_rate.note
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("words", "verdict"),
    [("A", "A"), (" b. ", "B"), ("**Tie**", "TIE"), ("I prefer A", None), ("AB", None), ("", None), (None, None)],
)
def test_only_a_letter_is_a_verdict(words: str | None, verdict: str | None) -> None:
    assert verdict_in(words) == verdict


def test_a_missing_verdict_is_requested_again_the_next_time(endpoint: ScriptedJudge, store: Store) -> None:
    endpoint.script = lambda content: "As a language model, I cannot decide."
    assert counts(compare(endpoint, store, [Pair(row(1), "good", "bad")])) == (0, 0, 0, 1)
    endpoint.script = prefers_good
    assert counts(compare(endpoint, store, [Pair(row(1), "good", "bad")])) == (1, 0, 0, 0)


# -------------------------------------------------------------------------------------------------------------- the task


def scored(store: Store, passed: tuple[str, ...]) -> BenchmarkReport:
    rows = [row(number) for number in range(4)]
    frozen = store.write_rows(rows, kind="messages", passed=list(passed))
    arms = []
    for name, words in (("base", "bad"), ("candidate", "good"), ("champion", "good")):
        answers = [{"id": example["id"], "reply": f"{words} {name}"} for example in rows]
        blank = dict.fromkeys(EXAMPLES_SCHEMA.names)
        table = EXAMPLES_SCHEMA.empty_table().from_pylist(
            [{**blank, **answer} for answer in answers], schema=EXAMPLES_SCHEMA
        )
        arms.append(ArmScores(arm=name, model_sha256="0" * 64, examples=store.write_table(table, kind="table"), scores=()))
    return BenchmarkReport(dataset=frozen, arms=tuple(arms))


def test_the_candidate_is_judged_against_every_opponent_on_scrubbed_rows_only(
    endpoint: ScriptedJudge, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_JUDGE_KEY", "from-the-environment")
    endpoint.script = prefers_good
    judge = JudgeConfig(enabled=True, base_url=endpoint.url, max_examples=3)
    config = BenchmarkConfig(judge=judge)
    judgements = judge_replies.fn(scored(store, ("scrubbed",)), config)
    assert [(item.opponent, *counts(item)) for item in judgements] == [("base", 3, 0, 0, 0), ("champion", 0, 3, 0, 0)]
    assert endpoint.keys == {"Bearer from-the-environment"}
    num_requests = len(endpoint.asked)
    with pytest.raises(LineageError, match="scrubbed"):
        judge_replies.fn(scored(store, ()), config)
    off = config.model_copy(update={"judge": judge.model_copy(update={"enabled": False})})
    assert judge_replies.fn(scored(store, ()), off) == ()
    assert len(endpoint.asked) == num_requests


def test_an_address_holds_no_credentials() -> None:
    with pytest.raises(ValueError, match="base_url"):
        JudgeConfig(base_url="https://user:word@example.org/v1")
