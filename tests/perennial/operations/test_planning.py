"""`perennial plan`: every source counts, every model that answers counts, and the device may be one that is not here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows.support.config import RetrainConfig
from perennial.operations.planning import plan_retrain
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
