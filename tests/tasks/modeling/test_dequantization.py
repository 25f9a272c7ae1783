"""A base whose files hold quantised weights is turned back once where transformers can, else refused in its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tasks.core.errors import ModelNotFoundError
from tasks.core.storage import Store
from tasks.modeling import dequantization
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.profile import make_profile
from tasks.modeling.resolution import resolve
from tests.support.tiny_bases import build_tiny_base


def quantized(folder: Path, name: str, method: dict[str, Any]) -> Path:
    """A tiny base with random weights in the layout of its kind of quantisation."""
    build_tiny_base(name, folder)
    torch.manual_seed(0)
    written: dict[str, torch.Tensor] = {}
    for key, weight in load_file(folder / "model.safetensors").items():
        if method["quant_method"] == "mxfp4" and weight.ndim == 3:  # experts, inputs, outputs
            experts, num_in, num_out = weight.shape
            written[f"{key}_blocks"] = torch.randint(0, 256, (experts, num_out, num_in // 32, 16), dtype=torch.uint8)
            written[f"{key}_scales"] = torch.randint(118, 122, (experts, num_out, num_in // 32), dtype=torch.uint8)
        elif method["quant_method"] == "fp8" and "_proj." in key:
            written[key] = weight.to(torch.float8_e4m3fn)
            written[f"{key}_scale_inv"] = torch.ones(1, 1)
        else:
            written[key] = weight.to(torch.bfloat16)
    save_file(written, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": method}))
    return folder


MXFP4 = {
    "quant_method": "mxfp4",
    "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"],
}
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


@pytest.mark.parametrize(("name", "method"), [("gpt_oss", MXFP4), ("llama", FP8), ("qwen3", FP8)])
def test_weights_are_turned_back_once(
    name: str, method: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = BaseModelConfig(source=str(quantized(tmp_path / "base", name, method)), license="mit")
    store = Store(str(tmp_path / "store"))
    base = resolve(source, store)
    assert base.note == f"weights turned back from {method['quant_method']} to bfloat16"
    folder = store.fetch_folder(base.folder)
    weights = load_file(folder / "model.safetensors")
    assert all(weight.dtype == torch.bfloat16 for weight in weights.values())
    plain = make_profile(build_tiny_base(name, tmp_path / "plain"))
    assert make_profile(folder).shape.num_parameters == base.num_parameters == plain.shape.num_parameters
    if method is FP8:
        key = "model.layers.0.self_attn.q_proj.weight"
        expected = load_file(tmp_path / "plain" / "model.safetensors")[key]
        torch.testing.assert_close(weights[key].float(), expected, rtol=0.1, atol=1e-3)
    monkeypatch.setattr(dequantization, "dequantize", lambda *folders: pytest.fail("turned back again"))
    assert resolve(source, store) == base


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "unheard-of"])
def test_what_cannot_be_turned_back_is_refused(method: str, tmp_path: Path) -> None:
    folder = quantized(tmp_path / "base", "llama", {"quant_method": method, "bits": 4})
    with pytest.raises(ModelNotFoundError, match=rf"already quantised \({method}\) and stay so"):
        resolve(BaseModelConfig(source=str(folder), license="mit"), Store(str(tmp_path / "store")))
