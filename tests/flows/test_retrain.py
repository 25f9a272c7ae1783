"""The main job through the real command with a tiny model: it ends, it repeats for free, it survives ``kill -9``."""

from __future__ import annotations

import re
import signal
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
from prefect import Task

from tasks.core.cache_key import ContentCachePolicy
from tests.support.leaks import find_leaks, planted_values
from tests.support.workplace import Workplace, make_workplace, stages

KEPT = "kept from an earlier run"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Workplace:
    return make_workplace(tmp_path_factory.mktemp("workplace"), tiny_model_dir)


NEVER_KEPT = {
    stage.name
    for path in (Path(__file__).parents[2] / "tasks").glob("*/task.py")
    for stage in vars(import_module(f"tasks.{path.parent.name}.task")).values()
    if isinstance(stage, Task) and not isinstance(stage.cache_policy, ContentCachePolicy)
}
"""They read external state or have side effects: the source, the frozen set's pointer, the registry's owners."""
PREPARED = {"validate", "deduplicate", "filter_confidential", "scrub", "verify_scrub", "audit_labels", "audit_bias"}


def worked(summaries: dict[str, str]) -> set[str]:
    """The stages that did something in this run."""
    return {name for name, rest in summaries.items() if any(KEPT not in part for part in rest.split(" / "))}


def kept(summaries: dict[str, str]) -> set[str]:
    """The stages that an earlier run had done, for the examples at least: those come first, then the pairs."""
    return {name for name, rest in summaries.items() if KEPT in rest.split(" / ")[0]}


@dataclass(frozen=True)
class Trial:
    """What one start of the command finished before it was killed, and what earlier starts had earned until then."""

    finished: dict[str, str]
    earned: frozenset[str]


@pytest.fixture(scope="module")
def trials(workplace: Workplace) -> list[Trial]:
    """The job killed with ``kill -9`` after four of its stages, each time started again, and at last run to its end."""
    trials: list[Trial] = []
    earned: set[str] = set()
    for number, stage in enumerate(["deduplicate", "verify_scrub", "audit_bias", "train_sft"]):
        log = workplace.folder / f"killed-{number}.log"
        process = workplace.start("retrain", "--config", "config.yaml", log=log)
        deadline = time.monotonic() + 600
        while f"✓ {stage} " not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = stages(log.read_text())
        trials.append(Trial(finished, frozenset(earned)))
        # The kill may fall between a stage's line and its record, so the last line has to be earned again.
        earned |= set(finished) - NEVER_KEPT - {stage}
    return [*trials, Trial(workplace.retrain(), frozenset(earned))]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_run_killed_again_and_again_continues_after_its_last_finished_stage(
    workplace: Workplace, trials: list[Trial]
) -> None:
    for trial in trials:
        assert trial.earned <= kept(trial.finished), trial.finished
    everything = set().union(*(trial.finished for trial in trials))
    assert PREPARED | {"train_sft", "train_dpo", "score_model", "decide_promotion", "write_dossier"} <= everything
    record = workplace.record()
    assert record["decision"]["outcome"] in {"PROMOTE", "HOLD", "NEEDS_HUMAN"}
    assert record["truth"]["measurements"]


@pytest.mark.slow
@pytest.mark.usefixtures("trials")
def test_nothing_that_was_planted_is_found_in_anything_left_behind(workplace: Workplace) -> None:
    planted = planted_values(workplace.folder / "data" / "truth.jsonl")
    assert len(planted) > 30
    assert find_leaks(workplace.folder, planted, skip=[workplace.folder / "data"]) == []


@pytest.mark.slow
@pytest.mark.usefixtures("trials")
@pytest.mark.timeout(1500)
def test_the_job_repeats_for_free(workplace: Workplace) -> None:
    record = workplace.record()
    code, printed = workplace.attempt("retrain", "--config", "config.yaml", "--exit-on", "hold", "--exit-on", "waiting")
    assert code == {"PROMOTE": 0, "HOLD": 4, "NEEDS_HUMAN": 5}[record["decision"]["outcome"]]
    again = stages(printed)
    assert not worked(again) & (PREPARED | {"train_sft", "train_dpo"}), again
    assert workplace.record()["candidate"]["version"] == record["candidate"]["version"]


@pytest.mark.slow
@pytest.mark.usefixtures("trials")
@pytest.mark.timeout(1500)
def test_a_changed_setting_trains_anew_and_a_training_above_its_ceiling_waits_for_a_word(workplace: Workplace) -> None:
    record = workplace.record()
    sft = {**workplace.settings["training"]["sft"], "learning_rate": 0.002}
    budget = {"max_device_hours": 1e-6, "on_exceeded": "ask"}
    changes = {"sft": sft, "budget": budget, "start_from": "champion", "replay": 1.0}
    workplace.write_config(training={**workplace.settings["training"], **changes})
    config = ("--config", "config.yaml")
    asked: list[str] = []
    summaries: list[dict[str, str]] = []
    # A training asks again where the machine has become a quarter slower since.
    while len(summaries) < 8:
        code, told = workplace.attempt("retrain", *config)
        summaries.append(stages(told))
        if code == 0:
            break
        question = re.search(r"perennial budget \w+ (\w+-\w+) ", told)
        assert (code, question is not None) == (3, True), told
        asked.append(question[1])  # type: ignore[index]
        assert asked[-1] in workplace.run("budget", "show", *config)
        assert workplace.record() == record, "nothing was judged"
        workplace.run("budget", "approve", asked[-1], *config, "--name", "Ada", "--reason", "quarter end")
        assert asked[-1] not in workplace.run("budget", "show", *config)

    assert [name.split("-")[0] for name in dict.fromkeys(asked)] == ["sft", "dpo"]
    first_pair = next(number for number, name in enumerate(asked) if name.startswith("dpo"))
    assert not any(worked(each) & PREPARED for each in summaries), summaries
    assert not any({"train_sft", "train_dpo"} & set(each) for each in summaries[:first_pair])
    assert "train_sft" in worked(summaries[first_pair])
    assert all("train_sft" in kept(each) for each in summaries[first_pair + 1 :])
    assert not any("train_dpo" in each for each in summaries[:-1])
    assert {"train_dpo", "decide_promotion", "write_dossier"} <= worked(summaries[-1])
    changed = workplace.record()
    champion = record["promotion"]["champion_version"]
    why = f", as version {champion} did, which learned these rows" if champion else ": there is no champion yet"
    assert changed["start"] == f"the base model{why}"
    assert changed["decision"]["outcome"] in {"PROMOTE", "HOLD", "NEEDS_HUMAN"}
    for method in ("sft", "dpo"):
        assert changed[method]["adapter"]["sha256"] != record[method]["adapter"]["sha256"]
        assert "above the ceiling, allowed by Ada: quarter end" in changed[method]["events"][0]
    assert "ROUGE-L" in workplace.run("show", "--store", "store")
