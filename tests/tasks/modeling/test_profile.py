"""A base's profile says what is particular about it, from its configuration alone, and refuses what cannot be trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tasks.core.errors import ModelNotFoundError
from tasks.core.storage import Store
from tasks.modeling import profile as profiles
from tasks.modeling.profile import BaseProfile, make_profile, profile_in_store
from tasks.modeling.resolution import count_parameters
from tests.support.tiny_bases import CONFIGS, build_tiny_base

WINDOW, STATE = "its attention has a window", "a layer's state would pass from one row to the next"
NO_ROWS = "its attention does not know where a row begins"
# Attention, packing, why the kernel does not apply, plain logits; every other architecture is as Llama.
PARTICULAR: dict[str, tuple[str, str, str, bool]] = {
    "gemma2": ("eager", "mask", f"{WINDOW} and a soft cap", False),
    "gemma3 text": ("sdpa", "mask", WINDOW, True),
    "gemma3": ("sdpa", "mask", f"{WINDOW} and images beside the text", True),
    "mistral, window": ("sdpa", "mask", WINDOW, True),
    "phi3": ("sdpa", "mask", WINDOW, True),
    "granite": ("sdpa", "kernel", "", False),
    "cohere": ("sdpa", "kernel", "", False),
    "cohere2": ("sdpa", "mask", WINDOW, False),
    "gpt_oss": ("eager", "mask", f"{WINDOW} and sinks", True),
    "gpt2": ("sdpa", "mask", "its attention has dropout", True),
    "falcon": ("sdpa", "none", NO_ROWS, True),
    "bloom": ("eager", "none", NO_ROWS, True),
    "mpt": ("eager", "none", NO_ROWS, True),
    "mamba": ("eager", "none", STATE, True),
    "lfm2": ("sdpa", "none", STATE, True),
    "stablelm": ("sdpa", "none", NO_ROWS, True),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_base_is_described_as_transformers_builds_it(name: str, tmp_path: Path) -> None:
    folder = build_tiny_base(name, tmp_path)
    model = AutoModelForCausalLM.from_pretrained(folder)
    profile = make_profile(folder)
    assert profile.shape.num_parameters == model.num_parameters() == count_parameters(folder)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    assert profile.shape.tied_embeddings == (inputs.weight is outputs.weight)
    assert (profile.shape.hidden_size, profile.shape.num_layers) == (64, 2)
    assert profile.shape.vocab_size == inputs.num_embeddings
    found = (profile.attention, profile.packing, profile.packing_note, profile.plain_logits)
    assert found == PARTICULAR.get(name, ("sdpa", "kernel", "", True))
    assert profile.recurrent == (name in ("mamba", "lfm2"))


def test_a_token_passes_through_the_chosen_experts_alone(tmp_path: Path) -> None:
    shape = make_profile(build_tiny_base("qwen3_moe", tmp_path)).shape
    assert shape.num_expert_parameters == 2 * 4 * 3 * 64 * 32  # layers, experts, projections
    assert shape.num_parameters - shape.num_active_parameters == shape.num_expert_parameters / 2
    assert shape.intermediate_size == 2 * 32


def test_attention_dropout_keeps_rows_unpacked(tmp_path: Path) -> None:
    profile = make_profile(build_tiny_base("llama", tmp_path, attention_dropout=0.1))
    assert (profile.packing, profile.packing_note) == ("mask", "its attention has dropout")


@pytest.mark.parametrize(
    ("model_type", "settings", "message"),
    [
        ("bert", {}, "an encoder"),
        ("bart", {}, "an encoder beside its decoder"),
        ("t5", {}, "an encoder beside its decoder"),
        ("vit", {}, "cannot build.*Unrecognized configuration class"),
        ("llama", {"quantization_config": {"quant_method": "gptq", "bits": 4}}, r"already quantised \(gptq\)"),
        ("unheard-of", {}, "cannot read.*ValueError"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(
    model_type: str, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type, **settings}))
    with pytest.raises(ModelNotFoundError, match=rf"training\.base_model\.source.*({message})"):
        make_profile(tmp_path)


def test_a_profile_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"))
    folder = store.add_folder(build_tiny_base("granite", tmp_path / "base"))
    profile = profile_in_store(store, folder)
    assert profile == make_profile(store.fetch_folder(folder))
    monkeypatch.setattr(profiles, "make_profile", lambda folder: pytest.fail("made again"))
    assert profile_in_store(store, folder) == profile
    assert BaseProfile.model_validate_json(profile.model_dump_json()) == profile


def test_weights_that_are_stored_twice_count_once(tmp_path: Path) -> None:
    folder = build_tiny_base("llama", tmp_path)
    expected = count_parameters(folder)
    shutil.copy(folder / "model.safetensors", folder / "consolidated.safetensors")
    assert count_parameters(folder) == expected
    (folder / "model.safetensors").unlink()
    for number in range(2):
        save_file({f"weight{number}": torch.zeros(3, 4)}, folder / f"model-0000{number + 1}-of-00002.safetensors")
    names = {f"weight{number}": f"model-0000{number + 1}-of-00002.safetensors" for number in range(2)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    assert count_parameters(folder) == 24


def test_the_configuration_decides_not_its_spelling(tmp_path: Path) -> None:
    """A nested configuration, and GPT-2's own names."""
    assert "hidden_size" not in AutoConfig.for_model("gpt2").to_dict()
    assert make_profile(build_tiny_base("gemma3", tmp_path / "nested")).shape.max_positions == 256
    assert make_profile(build_tiny_base("gpt2", tmp_path / "own")).shape.max_positions == 256


def test_a_person_reads_what_is_done_about_each_property(tmp_path: Path) -> None:
    plain = dict(make_profile(build_tiny_base("llama", tmp_path / "llama")).summary)
    assert plain == {
        "architecture": "LlamaForCausalLM, context of 256 tokens",
        "attention": "packed by a kernel on a GPU, sdpa elsewhere",
    }
    gemma = dict(make_profile(build_tiny_base("gemma2", tmp_path / "gemma2")).summary)
    assert gemma["attention"] == f"eager; not packed unless set, because {WINDOW} and a soft cap"
    assert gemma["logits"] == "scaled, capped or shifted; TRL's loss head"
    lfm2 = dict(make_profile(build_tiny_base("lfm2", tmp_path / "lfm2")).summary)
    assert lfm2["attention"] == f"sdpa; never packed, because {STATE}"
    assert lfm2["cache"] == "a layer keeps a state; texts are ranked without a shared cache"
