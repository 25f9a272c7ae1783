"""Every kind of base trains as it was planned, or is refused before its first step with one explained error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import trl
from safetensors.torch import load_file

from tasks.core.errors import ModelNotFoundError
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.resolution import resolve
from tasks.training.config import LoraSettings
from tasks.training.launch.protocol import SftMethod, TrainerReport, TrainerSpec
from tests.support.tiny_bases import CONFIGS, build_tiny_base
from tests.tasks.training.conftest import quick_sft

RunWorker = Callable[[TrainerSpec], TrainerReport]


# A router that is a linear layer and returns more, experts under another name, a head on a part without a name, outputs that
# are changed in place, modules that PEFT refuses.
OTHERS = ("phimoe", "granitemoe", "llama4", "gemma3n text", "falcon_h1")


def with_base(desk: Any, name: str, folder: Path) -> Any:
    base = resolve(BaseModelConfig(source=str(build_tiny_base(name, folder)), license="mit"), desk.store)
    return replace(desk, base=base)


@pytest.mark.parametrize("name", [*CONFIGS, *OTHERS])
def test_it_trains_as_planned(name: str, desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    method = SftMethod(config=quick_sft(max_steps=5, max_eval_rows=8))
    report = run_worker(with_base(desk, name, tmp_path / "base").spec(tmp_path / "work", method))
    assert (report.outcome, report.fault) == ("done", None)
    losses = {item.name: item.value for item in report.measurements}
    assert losses["eval_loss_after"] < losses["eval_loss_before"] - 0.02  # type: ignore[operator]
    adapter = load_file(tmp_path / "work" / "adapter" / "adapter_model.safetensors")
    assert report.plan is not None
    assert report.plan.num_trainable_parameters == sum(weight.numel() for weight in adapter.values())


def test_modules_that_peft_refuses_are_named_in_its_words(desk: Any, run_worker: RunWorker, tmp_path: Path) -> None:
    lora = LoraSettings(r=8, target_modules=("in_proj", "out_proj"))
    mamba = with_base(desk, "mamba", tmp_path / "base")
    refused = run_worker(mamba.spec(tmp_path / "work", SftMethod(config=quick_sft(max_steps=5, lora=lora))))
    assert refused.fault is not None
    assert (refused.fault.type, refused.fault.where) == ("ConfigError", "training.sft.lora.target_modules")
    assert "incompatible with Mamba" in refused.fault.found


@pytest.mark.parametrize("error", [TypeError("unsupported operand\nand a second line"), RuntimeError("shapes differ")])
def test_what_a_library_raises_before_the_first_step_is_one_refusal(
    desk: Any, run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", fail)
    report = run_worker(desk.spec(tmp_path))
    assert report.outcome == "refused"
    assert report.fault is not None
    first_line = str(error).splitlines()[0]
    assert report.fault.found == f"{type(error).__name__}: {first_line}, while timing a step"
    assert report.fault.type == "ConfigError"


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (torch.OutOfMemoryError(), "out_of_memory"),
        (RuntimeError("can't allocate memory"), "out_of_memory"),
        (RuntimeError("CUDA error: unspecified launch failure"), "crashed"),
    ],
)
def test_what_the_machine_does_is_no_refusal(
    desk: Any, run_worker: RunWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, outcome: str
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(trl.SFTTrainer, "compute_loss", fail)
    assert run_worker(desk.spec(tmp_path)).outcome == outcome


def test_an_end_token_is_taken_from_the_model_or_missed_in_an_error(tmp_path: Path) -> None:
    folder = build_tiny_base("llama", tmp_path)
    settings = folder / "tokenizer_config.json"
    settings.write_text(settings.read_text().replace('"eos_token"', '"former_eos_token"'))
    assert load_tokenizer(folder).eos_token == "<|im_end|>"
    build_tiny_base("llama", folder, eos_token_id=None)
    settings.write_text(settings.read_text().replace('"eos_token"', '"former_eos_token"'))
    with pytest.raises(ModelNotFoundError, match="without an end-of-sequence token"):
        load_tokenizer(folder)


@pytest.mark.parametrize(("name", "outcome"), [("gpt_oss", "refused"), ("lfm2", "refused"), ("gemma2", "done")])
def test_rows_are_packed_only_where_they_stay_apart(
    name: str, outcome: str, desk: Any, run_worker: RunWorker, tmp_path: Path
) -> None:
    method = SftMethod(config=quick_sft(packing=True, max_length=128, max_steps=2))
    report = run_worker(with_base(desk, name, tmp_path / "base").spec(tmp_path / "work", method))
    assert report.outcome == outcome
    assert report.fault is None or report.fault.where == "training.sft.packing"
