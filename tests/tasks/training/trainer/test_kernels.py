"""The faster layers compute what the plain ones do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention

from tasks.core.errors import ConfigError
from tasks.modeling.loading import load_base
from tasks.modeling.profile import make_profile
from tasks.training.plan.planning import PACKED_ATTENTION
from tasks.training.trainer import kernels
from tasks.training.trainer.kernels import check_separate_rows
from tests.support.tiny_bases import CONFIGS, build_tiny_base

LENGTHS = (7, 1, 12)


def adapted(folder: Path, **changes: Any) -> Any:
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": "all-linear", "task_type": "CAUSAL_LM"} | changes
    model = get_peft_model(load_base(folder, dtype=torch.float32), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model.train()


def tokens() -> torch.Tensor:
    return torch.randint(5, 200, (2, 20), generator=torch.Generator().manual_seed(1))


def loss_and_gradients(model: Any, *, autocast: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(input_ids=tokens(), labels=tokens()).loss
    loss.backward()
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad]
    return loss.detach(), torch.cat(gradients)


def relative_error(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "down_proj"]])
def test_fused_adapters_have_the_gradients_of_plain_ones(tiny_model_dir: Path, targets: Any) -> None:
    model = adapted(tiny_model_dir, target_modules=targets)
    loss, gradients = loss_and_gradients(model)
    kernels.fuse_adapters(model)
    fused_loss, fused_gradients = loss_and_gradients(model)
    assert fused_loss == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(fused_gradients, gradients) < 1e-5


def test_fused_adapters_in_bfloat16_are_no_further_from_the_truth(tiny_model_dir: Path) -> None:
    model = adapted(tiny_model_dir)
    _, truth = loss_and_gradients(model)
    _, plain = loss_and_gradients(model, autocast=True)
    kernels.fuse_adapters(model)
    _, fused = loss_and_gradients(model, autocast=True)
    assert relative_error(fused, truth) < 1.2 * relative_error(plain, truth)


def test_a_bias_is_added(tiny_model_dir: Path) -> None:
    model = adapted(tiny_model_dir)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            outputs = layer.get_base_layer().out_features
            layer.get_base_layer().bias = torch.nn.Parameter(torch.linspace(-0.1, 0.1, outputs), requires_grad=False)
    loss, gradients = loss_and_gradients(model)
    kernels.fuse_adapters(model)
    fused_loss, fused_gradients = loss_and_gradients(model)
    assert fused_loss == pytest.approx(loss.item(), rel=1e-6)
    assert relative_error(fused_gradients, gradients) < 1e-5


def test_a_switched_off_or_merged_adapter_is_left_out_or_in(tiny_model_dir: Path) -> None:
    model = adapted(tiny_model_dir).eval()
    base = load_base(tiny_model_dir, dtype=torch.float32)
    kernels.fuse_adapters(model)
    with torch.no_grad():
        with_adapter = model(tokens()).logits
        with model.disable_adapter():
            torch.testing.assert_close(model(tokens()).logits, base(tokens()).logits)
        assert relative_error(with_adapter, base(tokens()).logits) > 0.01
        model.merge_adapter()
        torch.testing.assert_close(model(tokens()).logits, with_adapter, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}], ids=["dropout", "dora"])
def test_what_is_not_plain_lora_stays_pefts(tiny_model_dir: Path, settings: dict[str, Any]) -> None:
    model = adapted(tiny_model_dir, **settings)
    torch.manual_seed(11)
    loss, gradients = loss_and_gradients(model)
    kernels.fuse_adapters(model)
    torch.manual_seed(11)
    again, same_gradients = loss_and_gradients(model)
    assert torch.equal(again, loss)
    assert torch.equal(same_gradients, gradients)


# -------------------------------------------------------------------------------------------------------- packed attention


def attention_of_each(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> torch.Tensor:
    """PyTorch's attention over packed sequences, which needs a GPU, in a loop that does not."""
    assert window_size == (-1, 0)
    assert (max_q, max_k) == (max(LENGTHS), max(LENGTHS))
    assert torch.equal(cu_seq_q, cu_seq_k)
    outputs = []
    for start, end in zip(cu_seq_q.tolist(), cu_seq_q.tolist()[1:], strict=False):
        parts = [states[start:end].transpose(0, 1)[None] for states in (query, key, value)]
        output = scaled_dot_product_attention(*parts, is_causal=True, scale=scale, enable_gqa=enable_gqa)
        outputs.append(output[0].transpose(0, 1))
    return torch.cat(outputs)


@pytest.fixture
def packed_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", attention_of_each)
    kernels.register_packed_attention()


def packed_batch(device: str = "cpu") -> dict[str, Any]:
    ids = torch.randint(5, 200, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(2))
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    ends = torch.tensor([0, *LENGTHS], dtype=torch.int32).cumsum(0, dtype=torch.int32)
    batch = {"input_ids": ids, "position_ids": positions, "cu_seq_lens_q": ends, "cu_seq_lens_k": ends}
    longest = {"max_length_q": max(LENGTHS), "max_length_k": max(LENGTHS)}
    return {name: value.to(device) for name, value in batch.items()} | longest


@pytest.mark.usefixtures("packed_on_cpu")
def test_packed_rows_do_not_see_each_other(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir, dtype=torch.float32, attn_implementation=PACKED_ATTENTION)
    plain = load_base(tiny_model_dir, dtype=torch.float32)
    with torch.no_grad():
        together = model(**packed_batch(), use_cache=False).logits[0]
        rows = packed_batch()["input_ids"][0].split(LENGTHS)
        apart = torch.cat([plain(row[None]).logits[0] for row in rows])
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("packed_on_cpu")
def test_packed_attention_wants_to_know_where_rows_begin(tiny_model_dir: Path) -> None:
    model = load_base(tiny_model_dir, dtype=torch.float32, attn_implementation=PACKED_ATTENTION)
    with pytest.raises(ValueError, match="cu_seq_lens"):
        model(tokens())


# ------------------------------------------------------------------------------------------------------------- on a device


@pytest.mark.gpu
def test_packed_attention_on_a_device_agrees_with_rows_apart(tiny_model_dir: Path) -> None:
    kernels.register_packed_attention()
    model = load_base(tiny_model_dir, dtype=torch.bfloat16, device="cuda", attn_implementation=PACKED_ATTENTION)
    plain = load_base(tiny_model_dir, dtype=torch.float32, device="cuda")
    with torch.no_grad():
        together = model(**packed_batch("cuda"), use_cache=False).logits[0].float()
        rows = packed_batch("cuda")["input_ids"][0].split(LENGTHS)
        apart = torch.cat([plain(row[None]).logits[0] for row in rows])
    assert relative_error(together, apart) < 0.02


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_fused_layers_and_adapters_agree_on_a_device(tiny_model_dir: Path, quantization: str) -> None:
    torch.manual_seed(3)
    base = load_base(tiny_model_dir, dtype=torch.bfloat16, device="cuda", quantization=quantization)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)

    def gradients() -> torch.Tensor:
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            model(input_ids=tokens().cuda(), labels=tokens().cuda()).loss.backward()
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.requires_grad])

    plain = gradients()
    kernels.fuse_layers(base)
    kernels.fuse_adapters(model)
    assert relative_error(gradients(), plain) < 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_rows_are_separate_or_refused(name: str, tmp_path: Path) -> None:
    folder = build_tiny_base(name, tmp_path)
    if make_profile(folder).packing == "none":
        pytest.skip("the plan never packs rows of this base")
    model = load_base(folder, device="cpu", dtype=torch.float32)
    rows = [torch.arange(3, 27), torch.arange(40, 70)]
    positions = torch.cat([torch.arange(len(row)) for row in rows])
    with torch.inference_mode():
        packed = model(input_ids=torch.cat(rows)[None], position_ids=positions[None], use_cache=False).logits[0]
        alone = torch.cat([model(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    separate = torch.allclose(packed, alone, rtol=1e-3, atol=1e-5)
    # These take the positions of a packed sequence, and not the mask.
    assert separate == (name not in ("gpt_oss", "opt"))
    if separate:
        check_separate_rows(model)
    else:
        with pytest.raises(ConfigError, match=r"training\.sft\.packing.*see each other"):
            check_separate_rows(model)
