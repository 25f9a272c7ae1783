"""`perennial plan`: every source counts, every model that answers counts, and the device may be one that is not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.support.config import RetrainConfig
from perennial.operations.planning import plan_retrain
from tasks.core.errors import InputError
from tasks.training.config import HardwareConfig, TrainingConfig
from tests.support.tiny_model import desk_pair, desk_row

A100 = {"name": "NVIDIA A100-SXM4-80GB", "memory_gb": 80, "count": 4}


def write_rows(path: Path, numbers: range) -> dict[str, Any]:
    path.write_text("".join(json.dumps(desk_row(number)) + "\n" for number in numbers))
    return {"path": str(path)}


@pytest.fixture
def settings(workplace: Path, tiny_model_dir: Path) -> dict[str, Any]:
    return {
        "name": "desk",
        "store": str(workplace / "store"),
        "examples": write_rows(workplace / "examples.jsonl", range(100)),
        "training": {
            "base_model": {"source": str(tiny_model_dir), "license": "apache-2.0"},
            "sft": {"num_processes": 0, "max_length": 256},
            "hardware": A100,
            "budget": {"price_per_device_hour": {"A100": 3.0}, "max_cost": 1e-6},
        },
    }


def told(settings: dict[str, Any]) -> dict[str, dict[str, str]]:
    blocks = plan_retrain(RetrainConfig.model_validate(settings))
    return {title: {line[0]: line[1] for line in lines} for title, lines in blocks}


def test_a_plan_says_how_the_data_were_understood(settings: dict[str, Any], workplace: Path) -> None:
    rows = [{"Id": n, "question": f"How do I pay bill {n}?", "answer": f"Online, {n}.", "tags": "x"} for n in range(60)]
    rows += [{"question": "No reply"}] * 2
    (workplace / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings["examples"] = {"path": str(workplace / "q.jsonl"), "columns": {"id": "Id"}}
    block = told(settings)["Examples"]
    assert block["columns"] == "id from Id, prompt from question, completion from answer"
    assert block["not read"] == "tags"
    assert block["refused"] == "2 (2 missing_field in completion)"


@pytest.mark.parametrize("show_row", [True, False])
def test_the_text_of_the_first_row_is_shown_on_request_alone(settings: dict[str, Any], show_row: bool) -> None:
    blocks = dict(plan_retrain(RetrainConfig.model_validate(settings), show_row=show_row))
    lines = blocks["First row, as the model sees it"]
    assert {line[0] for line in lines} == {"given", "learned"}
    assert all((": " in line[1]) == show_row for line in lines)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"examples": range(2)}, "none of which is left for training"),
        ({"training": {"sft": {"max_length": 16}}}, "longer than 16 tokens"),
        ({"training": {"hardware": {"name": "NVIDIA A100", "memory_gb": 1e-4, "count": 1}}}, "GB free on"),
        ({"prepare": {"validation": {"min_prompt_chars": 5_000}}}, "empty_prompt"),
        ({"prepare": {"deduplication": {"max_dropped_share": 0.0, "near_duplicate_threshold": 0.5}}}, "duplicates"),
    ],
)
def test_a_plan_says_that_the_run_would_be_refused(
    settings: dict[str, Any], workplace: Path, change: dict[str, Any], because: str
) -> None:
    for section, values in change.items():
        if section == "examples":
            settings[section] = write_rows(workplace / "few.jsonl", values)
        elif "deduplication" in values:
            path = workplace / "twice.jsonl"
            path.write_text("".join(json.dumps({**desk_row(n), "id": f"{n}-{m}"}) + "\n" for n in range(40) for m in "ab"))
            settings["examples"], settings[section] = {"path": str(path)}, values
        elif section == "training":
            settings[section] = {**settings[section], **{k: {**settings[section][k], **v} for k, v in values.items()}}
        else:
            settings[section] = values
    assert because in told(settings)["Would be refused"]["because"]


def test_a_run_that_would_work_is_not_refused_and_its_gate_is_told(settings: dict[str, Any]) -> None:
    plan = told(settings)
    assert "Would be refused" not in plan
    assert "200 are required (promotion.min_examples)" in plan["Estimated time"]["examples"]
    assert "HOLD" in plan["Estimated time"]["examples"]


def test_rows_of_the_wrong_kind_are_refused_before_anything_is_paid_for(settings: dict[str, Any], workplace: Path) -> None:
    pairs, rows = workplace / "pairs.jsonl", settings["examples"]
    pairs.write_text("".join(json.dumps(desk_pair(number)) + "\n" for number in range(50)))
    settings["examples"] = {"path": str(pairs)}
    with pytest.raises(InputError, match=r"found preference pairs.*under `preferences`"):
        told(settings)
    settings |= {"examples": rows, "preferences": rows}
    with pytest.raises(InputError, match=r"found examples.*expected preference pairs"):
        told(settings)


def test_a_plan_is_made_for_declared_devices(settings: dict[str, Any]) -> None:
    plan = told(settings)
    assert plan["SFT"]["device"] == "4 x NVIDIA A100-SXM4-80GB"
    assert plan["SFT"]["precision"] == "bfloat16, quantisation none"
    assert plan["SFT"]["price"].endswith("EUR")
    assert "training would be rejected" in plan["Budget"]["cost"]


def test_kto_is_planned_in_single_replies(settings: dict[str, Any], workplace: Path) -> None:
    (workplace / "pairs.jsonl").write_text("".join(json.dumps(desk_pair(number)) + "\n" for number in range(50)))
    settings["preferences"] = {"path": str(workplace / "pairs.jsonl")}
    rows = {}
    for method in ("dpo", "kto"):
        settings["training"][method] = {"max_length": 256}
        rows[method] = int(told(settings)[method.upper()]["rows"])
        del settings["training"][method]
    assert rows["kto"] == 2 * rows["dpo"] > 60


def test_every_source_of_a_mixture_counts_at_its_weight(settings: dict[str, Any], workplace: Path) -> None:
    alone = told(settings)
    extra = write_rows(workplace / "extra.jsonl", range(1000, 1040))
    plan = told(settings | {"mixture": [{"name": "extra", "source": extra, "weight": 2.0}]})
    assert plan["Extra"]["rows"] == "40"
    assert plan["Mixture"]["extra"] == "78 rows at weight 2 (44%), 1 duplicates left out"
    assert plan["Mixture"]["rows"] == "178"
    assert int(plan["SFT"]["rows"]) > 1.5 * int(alone["SFT"]["rows"])


def test_ways_of_asking_and_general_questions_take_time_too(settings: dict[str, Any]) -> None:
    plan = told(settings | {"fit": {"enabled": True, "target": 0.5, "prompt": "Be brief."}})
    assert "fit (prompt, few-shot)" in plan["Estimated time"]
    assert "general questions" in plan["Estimated time"]
    without = told(settings | {"benchmark": {"retention": False}, "promotion": {"max_retention_loss": None}})
    assert not {"general questions", "fit (prompt, few-shot)"} & set(without["Estimated time"])


def test_a_declared_device_has_a_known_or_a_stated_speed_and_is_the_one_asked_for() -> None:
    assert HardwareConfig(name="A100", memory_gb=80).flops_per_second == 312e12
    assert HardwareConfig(name="L40S", memory_gb=48).flops_per_second == 362e12, "the longest part of a name counts"
    assert HardwareConfig(name="MI300X", memory_gb=192, tflops=1307).flops_per_second == 1307e12
    with pytest.raises(ValidationError, match=r"tflops: .* data sheet"):
        HardwareConfig(name="MI300X", memory_gb=192)
    with pytest.raises(ValidationError, match=r"hardware declares a cuda device, and sft\.device is cpu"):
        TrainingConfig.model_validate({"hardware": A100, "sft": {"device": "cpu"}})
