"""The main job through the real command with a tiny model: it ends, it repeats for free, it survives ``kill -9``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.leaks import find_leaks, planted_values

ROOT = Path(__file__).parents[2]
KEPT = "kept from an earlier run"


@dataclass(frozen=True)
class Workplace:
    """A folder with sample data, a tiny model, a configuration and embedded state of its own."""

    folder: Path
    settings: dict[str, Any]

    def write_config(self, **changes: Any) -> None:
        """Writes the configuration; ``changes`` are top-level sections to merge in."""
        merged = {**self.settings, **changes}
        (self.folder / "config.yaml").write_text(yaml.safe_dump(merged))

    def start(self, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
        """Starts the command in this folder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments],
            cwd=self.folder,
            env={
                **environment,
                "PYTHONPATH": str(ROOT),
                "PYTHONUNBUFFERED": "1",
                "PERENNIAL_HOME": str(self.folder / "home"),
            },
            stdout=log.open("w") if log else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def attempt(self, *arguments: str) -> tuple[int, str]:
        """Runs the command to its end; its exit code and what it printed."""
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=900)
        return process.returncode, output

    def run(self, *arguments: str) -> str:
        """Runs the command to its end and returns what it printed; fails the test when it failed."""
        code, output = self.attempt(*arguments)
        assert code == 0, output
        return output

    def retrain(self) -> dict[str, str]:
        """Runs `retrain`; the summary of every finished stage, in order, by its name (pairs override examples)."""
        return stages(self.run("retrain", "--config", "config.yaml"))

    def record(self) -> dict[str, Any]:
        """The newest dossier's record."""
        paths = sorted((self.folder / "store" / "dossiers").glob("*/dossier.json"), key=lambda path: path.stat().st_mtime)
        record: dict[str, Any] = json.loads(paths[-1].read_text())
        return record


def stages(output: str) -> dict[str, str]:
    """Name and printed rest of each finished-stage line; a stage that ran twice keeps both, joined."""
    found: dict[str, str] = {}
    for line in output.splitlines():
        if line.startswith("✓ "):
            name, _, rest = line[2:].partition(" ")
            found[name] = f"{found[name]} / {rest.strip()}" if name in found else rest.strip()
    return found


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Workplace:
    tmp_path = tmp_path_factory.mktemp("workplace")
    generate = ROOT / "examples" / "support_desk" / "generate.py"
    data = tmp_path / "data"
    subprocess.run([sys.executable, str(generate), "--out", str(data), "--rows", "160"], check=True)
    place = Workplace(
        tmp_path,
        {
            "name": "desk",
            "store": "store",
            "examples": yaml.safe_load((ROOT / "examples" / "support_desk.yaml").read_text())["examples"]
            | {"path": str(data / "tickets.jsonl")},
            "preferences": {"path": str(data / "preferences.jsonl"), "format": "preferences"},
            "prepare": {"confidential": {"denied_terms_file": str(data / "deny_list.txt")}},
            "truth": {"path": str(data / "truth.jsonl")},
            "training": {
                "base_model": {"source": str(tiny_model_dir), "license": "apache-2.0"},
                "sft": {"num_train_epochs": 1, "learning_rate": 0.001},
                "dpo": {"num_train_epochs": 1},
            },
            "benchmark": {"max_new_tokens": 16, "max_examples": 16},
            "promotion": {"min_examples": 10},
        },
    )
    place.write_config()
    return place


NEVER_KEPT = {"take_snapshot", "freeze_test_set"}
"""They look at the world: the source, the frozen set's pointer."""
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
    again = workplace.retrain()
    assert not worked(again) & (PREPARED | {"train_sft", "train_dpo"}), again
    assert workplace.record()["candidate"]["version"] == record["candidate"]["version"]


@pytest.mark.slow
@pytest.mark.usefixtures("trials")
@pytest.mark.timeout(1500)
def test_a_changed_setting_trains_anew_and_a_training_above_its_ceiling_waits_for_a_word(workplace: Workplace) -> None:
    record = workplace.record()
    sft = {**workplace.settings["training"]["sft"], "learning_rate": 0.002}
    budget = {"max_device_hours": 1e-6, "on_exceeded": "ask"}
    workplace.write_config(training={**workplace.settings["training"], "sft": sft, "budget": budget})
    config = ("--config", "config.yaml")
    asked: list[str] = []
    summaries: list[dict[str, str]] = []
    # A training asks again where the machine has become a quarter slower since.
    while len(summaries) < 8:
        code, told = workplace.attempt("retrain", *config)
        summaries.append(stages(told))
        if code == 0:
            break
        question = re.search(r"perennial budget allow (\w+-\w+) ", told)
        assert (code, question is not None) == (3, True), told
        asked.append(question[1])  # type: ignore[index]
        assert asked[-1] in workplace.run("budget", "show", *config)
        assert workplace.record() == record, "nothing was judged"
        workplace.run("budget", "allow", asked[-1], *config, "--name", "Ada", "--reason", "quarter end")
        assert "No training waits." in workplace.run("budget", "show", *config)

    assert [name.split("-")[0] for name in dict.fromkeys(asked)] == ["sft", "dpo"]
    first_pair = next(number for number, name in enumerate(asked) if name.startswith("dpo"))
    assert not any(worked(each) & PREPARED for each in summaries), summaries
    assert not any({"train_sft", "train_dpo"} & set(each) for each in summaries[:first_pair])
    assert "train_sft" in worked(summaries[first_pair])
    assert all("train_sft" in kept(each) for each in summaries[first_pair + 1 :])
    assert not any("train_dpo" in each for each in summaries[:-1])
    assert {"train_dpo", "decide_promotion", "write_dossier"} <= worked(summaries[-1])
    changed = workplace.record()
    assert changed["decision"]["outcome"] in {"PROMOTE", "HOLD", "NEEDS_HUMAN"}
    for method in ("sft", "dpo"):
        assert changed[method]["adapter"]["sha256"] != record[method]["adapter"]["sha256"]
        assert "above the ceiling, allowed by Ada: quarter end" in changed[method]["events"][0]
    assert "ROUGE-L" in workplace.run("show", "--store", "store")
