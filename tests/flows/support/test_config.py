"""Configurations: the examples load, and every fault of a wrong one is named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.support.config import RetrainConfig, load_config
from tasks.core.errors import ConfigError

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


def written(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_loads(path: Path) -> None:
    assert load_config(path).name


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"support_desk", "banking77", "alpaca1100"}


def test_all_faults_are_named_at_once_with_the_nearest_known_key(tmp_path: Path) -> None:
    path = written(tmp_path, "name: Not Valid\nexamples: {path: a.jsonl}\ntraning: {}\nprepare: {splitting: {seeds: 1}}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    message = str(caught.value)
    assert "3 faults" in message
    assert "did you mean `training`?" in message
    assert "did you mean `seed`?" in message
    assert "name:" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- a\n- b\n", "a mapping of settings"),
        ("name: [\n", "line 2"),
        ("", "a mapping of settings"),
    ],
)
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path: Path, content: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(written(tmp_path, content))


def test_a_missing_file_a_folder_and_wrong_bytes_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="a folder"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8 at 9"):
        load_config(tmp_path / "latin.yaml")


def test_a_guard_on_what_is_not_measured_is_a_fault(tmp_path: Path) -> None:
    text = "name: desk\nexamples: {path: a.jsonl}\nbenchmark: {retention: false}\n"
    with pytest.raises(ConfigError, match=r"benchmark\.retention is off"):
        load_config(written(tmp_path, text))
    assert not load_config(written(tmp_path, text + "promotion: {max_retention_loss: null}\n")).benchmark.retention


def test_a_guard_on_latency_has_its_measurement_and_a_guard_on_a_clock_says_where_to_look(tmp_path: Path) -> None:
    text = "name: desk\nexamples: {path: a.jsonl}\n"
    assert load_config(written(tmp_path, text)).benchmark.latency is None
    guarded = load_config(written(tmp_path, text + "promotion: {max_latency_increase: 0.2}\n"))
    assert guarded.benchmark.latency is not None
    assert guarded.benchmark.latency.num_rounds >= 5
    for metric, words in (("latency_seconds", "max_latency_increase"), ("cost_per_1000", "token_prices")):
        clock = f"promotion: {{guards: [{{metric: {metric}, max_worsening: 0.2}}]}}\n"
        with pytest.raises(ConfigError, match=words):
            load_config(written(tmp_path, text + clock))
    with pytest.raises(ConfigError, match="num_rounds"):
        load_config(written(tmp_path, text + "benchmark: {latency: {num_rounds: 4}}\n"))


def test_the_fit_verdict_is_about_the_gate_s_metric_unless_told_otherwise(tmp_path: Path) -> None:
    text = "name: desk\nexamples: {path: a.jsonl}\npromotion: {primary_metric: rouge_l}\n"
    assert load_config(written(tmp_path, text)).fit.metric == "rouge_l"
    assert load_config(written(tmp_path, text + "fit: {metric: nll}\n")).fit.metric == "nll"
    with pytest.raises(ConfigError, match=r"fit\.enabled needs fit\.target"):
        load_config(written(tmp_path, text + "fit: {enabled: true}\n"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "an empty file"),
        ("- a\n- b\n", "a list of 2"),
        ("name: desk\nexamples: {path: a.jsonl}\ntraining:\n  sft:\n", r"training\.sft: is empty; leave it out"),
        ("name: desk\nexamples: {path: a.jsonl}\nprepare:\n  pii:\n", r"prepare\.pii: is empty; leave it out"),
        ("name: desk\nexamples:\n", r"examples: is empty; leave it out"),
        ("name: desk\nexamples: {path: a.jsonl, columns: {promt: q}}\n", "did you mean `prompt`"),
        ("name: desk\nexamples: {path: a.jsonl, format: tickts}\n", "did you mean `tickets`"),
        ("name: desk\nexamples: {path: a.jsonl}\npromotion: {policy: improved}\n", "did you mean `improve`"),
        ("name: desk\nexamples: {path: a.jsonl}\nexamples: {path: b.jsonl}\n", "stands in line 2"),
    ],
)
def test_what_is_empty_misspelt_or_written_twice_is_told_as_a_person_would(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(ConfigError, match=found):
        load_config(written(tmp_path, text))


def test_approvers_of_the_model_are_those_of_its_registry(tmp_path: Path) -> None:
    def load(text: str) -> RetrainConfig:
        (tmp_path / "c.yaml").write_text("name: desk\nexamples: {path: rows.jsonl}\n" + text)
        return load_config(tmp_path / "c.yaml")

    config = load("operate: {approvers: [Ann Lee, Bo]}\nregistry: {required_approvals: 2}\n")
    assert (config.registry.approvers, config.registry.registered_name) == (("Ann Lee", "Bo"), "desk")
    assert (config.registry.excluded("Dee"), load("").registry.excluded("Dee")) == ("Dee", None)
    assert load("registry: {starter_may_approve: false}\n").registry.excluded("Dee") == "Dee"
    faults = {
        "operate: {approvers: [Ann Lee]}\nregistry: {required_approvals: 2}\n": "more than there are approvers",
        "operate: {approvers: [Ann Lee]}\nregistry: {approvers: [Bo]}\n": "differ; keep one of them",
        "registry: {approvers: [Bo], required_approvals: 2}\n": "more than there are approvers",
    }
    for text, words in faults.items():
        with pytest.raises(ConfigError, match=words):
            load(text)
