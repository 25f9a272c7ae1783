"""Tasks of lm-evaluation-harness beside the scores: refused by name where it is not installed, else really run."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from tasks.benchmark import BenchmarkConfig, LmEvalConfig, score_model
from tasks.benchmark.lm_eval_tasks import measurements_of
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import InputError, MissingDependencyError
from tasks.core.storage import open_store
from tests.support.tiny_model import desk_row

TASK = """
task: desk_colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: "{{{{choices}}}}"
doc_to_target: answer
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture
def config(tmp_path: Path) -> BenchmarkConfig:
    folder = tmp_path / "tasks"
    folder.mkdir()
    rows = [{"question": f"Colour {number}?", "choices": [" red", " blue"], "answer": number % 2} for number in range(6)]
    (folder / "colours.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "colours.yaml").write_text(TASK.format(data=folder / "colours.jsonl"))
    return BenchmarkConfig(
        max_new_tokens=4,
        num_resamples=100,
        retention=False,
        lm_eval=LmEvalConfig(folder=str(folder), tasks=("desk_colours",)),
    )


def score(tmp_path: Path, tiny_model_dir: Path, config: BenchmarkConfig) -> dict[str, float | None]:
    store = open_store(tmp_path / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    frozen = store.write_rows([dict(desk_row(number)) for number in range(3)], kind="messages", passed=["scrubbed"])
    scored = score_model.fn("base", base, None, frozen, config)
    return {score.name: score.value for score in scored.scores}


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is not None, reason="lm-eval is installed")
def test_without_the_package_the_setting_is_refused_by_name(
    tmp_path: Path, tiny_model_dir: Path, config: BenchmarkConfig
) -> None:
    with pytest.raises(MissingDependencyError, match=r"benchmark\.lm_eval: found no package `lm_eval`.*\[lm-eval\]"):
        score(tmp_path, tiny_model_dir, config)


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="needs the extra lm-eval")
def test_a_task_of_one_s_own_is_measured_and_kept(tmp_path: Path, tiny_model_dir: Path, config: BenchmarkConfig) -> None:
    first = score(tmp_path, tiny_model_dir, config)
    assert first["lm_eval.desk_colours.acc"] in {number / 6 for number in range(7)}
    assert first["chrf"] is not None
    assert score(tmp_path, tiny_model_dir, config) == first
    assert config.lm_eval is not None
    unknown = config.model_copy(update={"lm_eval": config.lm_eval.model_copy(update={"tasks": ("hellaswag",)})})
    with pytest.raises(InputError, match="Name one of desk_colours"):
        score(tmp_path, tiny_model_dir, unknown)


def test_results_become_measurements_with_intervals() -> None:
    results = {
        "results": {
            "colours": {
                "alias": "colours",
                "acc,none": 0.5,
                "acc_stderr,none": 0.1,
                "f1,strict": 0.4,
                "f1_stderr,strict": "N/A",
            }
        },
        "n-samples": {"colours": {"original": 9, "effective": 6}},
    }
    acc, f1 = measurements_of(results)
    assert (acc.name, acc.value, acc.num_samples) == ("lm_eval.colours.acc", 0.5, 6)
    assert (acc.low, acc.high) == (pytest.approx(0.304, abs=1e-3), pytest.approx(0.696, abs=1e-3))
    assert (f1.name, f1.value, f1.low) == ("lm_eval.colours.f1.strict", 0.4, None)


def test_a_changed_task_is_another_setting_and_a_missing_folder_is_none(config: BenchmarkConfig, tmp_path: Path) -> None:
    assert config.lm_eval is not None
    before = config.lm_eval.external_fingerprints()
    assert {"colours.jsonl", "colours.yaml", "lm-eval"} <= set(before)
    with (tmp_path / "tasks" / "colours.yaml").open("a") as file:
        file.write("# more\n")
    assert config.lm_eval.external_fingerprints() != before
    with pytest.raises(ValueError, match=r"benchmark\.lm_eval\.folder"):
        LmEvalConfig(folder=str(tmp_path / "nowhere"), tasks=("x",))
