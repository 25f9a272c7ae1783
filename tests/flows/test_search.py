"""The winner of a search as a configuration that loads."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.search import trial_lines, write_winner
from flows.support.config import load_config
from tasks.contracts.training import SearchReport, SearchTrial
from tasks.core.errors import InputError

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


def test_trials_are_listed_best_first() -> None:
    lines = trial_lines(SearchReport(study="desk-0a", trials=TRIALS, best=2))
    assert [line[3] for line in lines] == ["validation loss", "1.2500", "1.5000", "pruned"]
