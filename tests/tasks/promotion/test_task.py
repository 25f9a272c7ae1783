"""The gate reads its tables from the store and recognises the champion by its hash, not by its name."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tasks.contracts.evaluation import ArmScores, BenchmarkReport
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.registry import Champion, RegisteredVersion
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import IntegrityError
from tasks.core.storage import Store, open_store
from tasks.promotion import PromotionConfig, decide_promotion

CONFIG = PromotionConfig(min_examples=20, num_resamples=1000, guards=(), max_retention_loss=None)
FOLDER = FolderRef(sha256="a" * 64, num_files=1, size_bytes=1)
CHAMPION = Champion(
    version=RegisteredVersion(name="desk", version="4", run_id="r", source_uri="s"),
    base=BaseLanguageModel(name="tiny", folder=FOLDER, license="apache-2.0", num_parameters=1),
    adapter=FOLDER,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def frozen(store: Store) -> DatasetRef:
    return store.write_rows([], kind="messages")


def arm(store: Store, name: str, level: float, model: str, num_rows: int = 40) -> ArmScores:
    scores = [level + 0.001 * (row % 7) * (1 if name == "candidate" else -1) for row in range(num_rows)]
    table = pa.table({"id": [f"r{row}" for row in range(num_rows)], "label": [None] * num_rows, "chrf": scores})
    return ArmScores(arm=name, model_sha256=model * 64, examples=store.write_table(table, kind="table"), scores=())


def test_a_better_candidate_is_promoted_and_names_the_champion_it_was_judged_against(store: Store) -> None:
    arms = (arm(store, "base", 0.2, "1"), arm(store, "candidate", 0.8, "2"), arm(store, "champion", 0.5, "3"))
    decision = decide_promotion.fn(BenchmarkReport(dataset=frozen(store), arms=arms), CONFIG, CHAMPION)
    assert (decision.outcome, decision.champion_version) == ("PROMOTE", "4")


def test_the_model_that_reigns_is_recognised_by_its_hash(store: Store) -> None:
    arms = (arm(store, "base", 0.2, "1"), arm(store, "candidate", 0.8, "2"), arm(store, "champion", 0.8, "2"))
    decision = decide_promotion.fn(BenchmarkReport(dataset=frozen(store), arms=arms), CONFIG, CHAMPION)
    assert decision.outcome == "HOLD"
    assert "version 4" in decision.reasons[0]


def test_arms_over_different_examples_are_refused(store: Store) -> None:
    arms = (arm(store, "base", 0.2, "1", num_rows=39), arm(store, "candidate", 0.8, "2"))
    with pytest.raises(IntegrityError, match="39 examples"):
        decide_promotion.fn(BenchmarkReport(dataset=frozen(store), arms=arms), CONFIG, None)


def test_general_answers_are_read_from_the_store_and_missing_ones_ask_a_person(store: Store) -> None:
    def general(level: float) -> DatasetRef:
        answers = {"id": [f"q{number}" for number in range(72)], "retention": [level + 0.001 * (n % 5) for n in range(72)]}
        return store.write_table(pa.table(answers), kind="table")

    def decide(base: float | None, candidate: float | None) -> str:
        arms = tuple(
            arm(store, name, score, model).model_copy(update={"general": None if level is None else general(level)})
            for name, score, model, level in (("base", 0.2, "1", base), ("candidate", 0.8, "2", candidate))
        )
        guarded = CONFIG.model_copy(update={"max_retention_loss": 0.1})
        return decide_promotion.fn(BenchmarkReport(dataset=frozen(store), arms=arms), guarded, None).outcome

    assert decide(0.8, 0.79) == "PROMOTE"
    assert decide(0.8, 0.5) == "HOLD"
    assert decide(0.8, None) == "NEEDS_HUMAN"
    assert decide(None, None) == "NEEDS_HUMAN"
