"""The whole measurement with a tiny model: every baseline is generated once, and a verdict can stop the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.benchmark import BenchmarkConfig, score_model
from tasks.contracts.evaluation import ArmScores, PromptArm
from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import FitVerdictError
from tasks.core.storage import Store, open_store
from tasks.prompting import FitConfig, measure_prompting_baselines, prompt_arms
from tests.support.tiny_model import desk_row

SCORING = BenchmarkConfig(max_new_tokens=8, batch_size=8, num_resamples=100, retention=False)
CONFIG = FitConfig(
    enabled=True,
    metric="chrf",
    target=0.9,
    prompt="Be brief.",
    num_shots=2,
    min_examples=5,
    min_effect=1.0,
    num_resamples=1000,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def write(store: Store, numbers: range, **values: Any) -> DatasetRef:
    rows = [{**desk_row(number), "context": f"Note {number % 3}: restart the printer.", **values} for number in numbers]
    return store.write_rows(rows, kind="messages", passed=["scrubbed"])


@pytest.fixture
def frozen(store: Store) -> DatasetRef:
    return write(store, range(8))


@pytest.fixture
def train(store: Store) -> DatasetRef:
    return write(store, range(100, 170))


def test_every_configured_baseline_is_a_data_set_of_the_same_examples(
    store: Store, frozen: DatasetRef, train: DatasetRef
) -> None:
    arms = prompt_arms.fn(frozen, train, CONFIG)
    assert [arm.arm for arm in arms] == ["prompt", "few-shot", "retrieval"]
    rows = store.read_rows(frozen)
    for arm in arms:
        prompted = store.read_rows(arm.dataset)
        assert [row["id"] for row in prompted] == [row["id"] for row in rows]
        assert [row["messages"][-1] for row in prompted] == [row["messages"][-1] for row in rows]
        assert arm.dataset.parents == (frozen.sha256, train.sha256)
        assert arm.dataset.passed == ("scrubbed",)
    prompted = [row["messages"][1]["content"] for row in store.read_rows(arms[2].dataset)]
    assert any("Note" in question for question in prompted), "the rows' own contexts are searched"


def test_baselines_without_their_data_are_left_out(store: Store, tmp_path: Path) -> None:
    bare, few = write(store, range(4), context=None), write(store, range(10, 14), context=None)
    config = CONFIG.model_copy(update={"prompt": None})
    assert [arm.arm for arm in prompt_arms.fn(bare, few, config)] == ["few-shot"]
    assert prompt_arms.fn(bare, few, config.model_copy(update={"num_shots": 0})) == ()
    (tmp_path / "handbook.md").write_text("Restart the printer, then check the cable.")
    [_, retrieval] = prompt_arms.fn(bare, few, config.model_copy(update={"documents": str(tmp_path)}))
    assert (retrieval.arm, retrieval.dataset.passed) == ("retrieval", ()), "documents went through no gate"


def test_every_baseline_is_measured_and_generated_once(
    store: Store, frozen: DatasetRef, train: DatasetRef, tiny_model_dir: Path
) -> None:
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    baselines: tuple[PromptArm, ...] = prompt_arms.fn(frozen, train, CONFIG)
    fewer = SCORING.model_copy(update={"max_examples": 6})
    scores = (
        score_model.fn("base", base, None, frozen, SCORING),
        *(score_model.fn(arm.arm, base, None, arm.dataset, fewer) for arm in baselines),
    )
    verdict = measure_prompting_baselines.fn(scores, frozen, train, CONFIG, None)
    assert verdict.verdict == "FINE_TUNE"
    assert [(arm.arm, arm.score.num_samples) for arm in verdict.arms] == [
        ("base", 6), ("prompt", 6), ("few-shot", 6), ("retrieval", 6)
    ]  # fmt: skip
    assert len({arm.score.value for arm in verdict.arms}) > 1, "another prompt gets other replies"
    assert (verdict.num_examples, verdict.num_train_rows) == (8, 70)
    assert not any("were cut" in reason for reason in verdict.reasons)
    cut = [score.model_copy(update={"value": 0.25}) if score.name == "prompt_cut" else score for score in scores[2].scores]
    shortened = (*scores[:2], scores[2].model_copy(update={"scores": tuple(cut)}), scores[3])
    reasons = measure_prompting_baselines.fn(shortened, frozen, train, CONFIG, None).reasons
    assert reasons[-1] == "Of the prompts of few-shot, 25.0% were cut to fit the model's context."

    kept = sorted((store.local_path / "pointers" / "answers").iterdir())  # type: ignore[operator]
    assert len(kept) == 4
    score_model.fn("base", base, None, frozen, SCORING)  # the benchmark's own call
    assert sorted((store.local_path / "pointers" / "answers").iterdir()) == kept  # type: ignore[operator]


def test_a_verdict_against_training_stops_only_where_configured(store: Store, train: DatasetRef) -> None:
    few = write(store, range(3))
    nothing: tuple[ArmScores, ...] = ()
    advised = measure_prompting_baselines.fn(nothing, few, train, CONFIG, None)
    assert advised.verdict == "NOT_ENOUGH_DATA"
    stopping = CONFIG.model_copy(update={"on_verdict": "stop"})
    with pytest.raises(FitVerdictError, match="NOT_ENOUGH_DATA") as stopped:
        measure_prompting_baselines.fn(nothing, few, train, stopping, None)
    assert stopped.value.exit_code == 3
    assert stopped.value.where == "fit.on_verdict"
    assert measure_prompting_baselines.fn(nothing, write(store, range(60)), train, stopping, None).verdict is None, (
        "nothing speaks against it"
    )
