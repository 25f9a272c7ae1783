"""The plan counts the adapter that PEFT makes, and refuses modules that cannot be adapted before anything is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import get_peft_model

from tasks.core.errors import ConfigError
from tasks.modeling.loading import load_base
from tasks.training.config import LoraSettings
from tasks.training.plan.adapters import count_trainable, lora_config
from tests.support.tiny_bases import CONFIGS, build_tiny_base


@pytest.mark.parametrize("name", [*CONFIGS, "phimoe", "nemotron_h"])
def test_trainable_parameters_are_pefts(name: str, tmp_path: Path) -> None:
    folder = build_tiny_base(name, tmp_path)
    expected = get_peft_model(
        load_base(folder, device="cpu"), lora_config(LoraSettings(r=4), folder)
    ).get_nb_trainable_parameters()
    assert (count_trainable(folder, LoraSettings(r=4)), count_trainable(folder, None)) == (
        expected[0],
        expected[1] - expected[0],
    )


@pytest.mark.parametrize(
    "settings",
    [
        LoraSettings(target_modules=("q_proj", "v_proj")),
        LoraSettings(layers_to_transform=(1,), target_modules=("q_proj", "down_proj")),
    ],
)
def test_chosen_modules_are_counted(settings: LoraSettings, tiny_model_dir: Path) -> None:
    adapted = get_peft_model(load_base(tiny_model_dir), lora_config(settings, tiny_model_dir))
    assert count_trainable(tiny_model_dir, settings) == adapted.get_nb_trainable_parameters()[0]


@pytest.mark.parametrize(
    ("name", "modules", "message"),
    [
        ("qwen3", ("q_proj", "embed_tokens"), "input embeddings, which are one and the same tensor"),
        ("qwen3", ("lm_head",), "output embeddings, which are one and the same tensor"),
        ("llama", ("lm_head",), "output embeddings"),
        ("llama", ("no_such_module",), "Target modules.*not found"),
        ("mamba", ("out_proj",), "ValueError:.*incompatible with Mamba"),
    ],
)
def test_modules_that_lead_to_another_model_are_refused(
    name: str, modules: str | tuple[str, ...], message: str, tmp_path: Path
) -> None:
    folder = build_tiny_base(name, tmp_path)
    with pytest.raises(ConfigError, match=rf"training\.sft\.lora\.target_modules.*{message}"):
        count_trainable(folder, LoraSettings(target_modules=modules))


def test_untied_input_embeddings_may_be_adapted(tmp_path: Path) -> None:
    folder = build_tiny_base("llama", tmp_path)
    assert count_trainable(folder, LoraSettings(r=4, target_modules=("embed_tokens",))) > 0


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("llama", None),
        ("falcon", None),
        ("mamba", {"out_proj"}),
        ("falcon_h1", {"out_proj"}),
        ("llama4", {"router"}),
        ("phimoe", {"router"}),
    ],
)
def test_all_linear_leaves_out_what_lora_cannot_adapt(name: str, excluded: set[str] | None, tmp_path: Path) -> None:
    settings = LoraSettings(r=4)
    folder = build_tiny_base(name, tmp_path)
    assert lora_config(settings, folder).exclude_modules == excluded
    assert count_trainable(folder, settings) > 0
