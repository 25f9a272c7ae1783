"""The CPU loss head gives TRL's own numbers and gradients, for the learned positions alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from trl.trainer.utils import add_fused_lm_head

from tasks.core.errors import ModelNotFoundError
from tasks.modeling.loading import load_base
from tasks.training.config import LoraSettings
from tasks.training.plan.adapters import lora_config
from tasks.training.trainer import head
from tasks.training.trainer.head import choose_head, score_labels_only
from tests.support.tiny_bases import CONFIGS, build_tiny_base


def adapted(folder: Path, *, labels_only: bool, dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(1)
    model = get_peft_model(load_base(folder, device="cpu", dtype=dtype), lora_config(LoraSettings(r=4), folder))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    add_fused_lm_head(model.get_base_model())
    if labels_only:
        score_labels_only(model.get_base_model())
    return model


def batch(learned: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    ids = torch.randint(3, 300, (3, 400))
    labels = ids.clone()
    labels[:, : 400 - learned] = -100
    mask = torch.ones_like(ids)
    mask[1, 350:] = 0
    labels[1, 350:] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


# 900 learned positions span several tiles.
@pytest.mark.parametrize("learned", [1, 40, 300])
def test_log_probabilities_and_gradients_are_trls(tiny_model_dir: Path, learned: int) -> None:
    results = []
    for labels_only in (False, True):
        model = adapted(tiny_model_dir, labels_only=labels_only)
        output = model(**batch(learned), fused_lm_head=True)
        # Uneven weights, as preference losses have them.
        weights = torch.linspace(0.1, 2.0, output.log_probs.numel()).view_as(output.log_probs)
        (output.log_probs * weights).sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((output, gradients))
    (theirs, their_gradients), (ours, our_gradients) = results
    torch.testing.assert_close(ours.log_probs, theirs.log_probs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.loss, theirs.loss, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.label_mask, theirs.label_mask)
    assert their_gradients.keys() == our_gradients.keys()
    for name, gradient in their_gradients.items():
        torch.testing.assert_close(our_gradients[name], gradient, rtol=1e-3, atol=1e-5 * float(gradient.abs().max() + 1))


def test_a_batch_without_labels_has_a_zero_loss(tiny_model_dir: Path) -> None:
    model = adapted(tiny_model_dir, labels_only=True)
    inputs = batch(1)
    inputs["labels"][:] = -100
    output = model(**inputs, fused_lm_head=True)
    output.loss.backward()
    assert output.loss == 0


def test_other_calls_of_the_model_are_unchanged(tiny_model_dir: Path) -> None:
    plain = adapted(tiny_model_dir, labels_only=False)
    ours = adapted(tiny_model_dir, labels_only=True)
    inputs = batch(40)
    assert torch.equal(ours(**inputs).logits, plain(**inputs).logits)
    prompt = inputs["input_ids"][:1, :20]
    assert torch.equal(
        ours.generate(input_ids=prompt, max_new_tokens=5, do_sample=False),
        plain.generate(input_ids=prompt, max_new_tokens=5, do_sample=False),
    )


def test_bfloat16_hidden_states_are_scored_in_float32(tiny_model_dir: Path) -> None:
    exact = adapted(tiny_model_dir, labels_only=True)(**batch(40), fused_lm_head=True)
    rounded = adapted(tiny_model_dir, labels_only=True, dtype=torch.bfloat16)(**batch(40), fused_lm_head=True)
    assert rounded.log_probs.dtype == torch.float32
    # How far single tokens are off depends on how a CPU rounds; on the whole they agree.
    assert (rounded.log_probs - exact.log_probs).abs().mean() < 0.05
    rounded.loss.backward()


def tiny_base(name: str, folder: Path) -> Any:
    """A base with TRL's head, and weights large enough for a scale or a cap of the logits to matter."""
    model = load_base(build_tiny_base(name, folder), device="cpu", dtype=torch.float32)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    add_fused_lm_head(model)
    return model


@pytest.mark.parametrize("name", CONFIGS)
def test_the_loss_is_that_of_the_models_own_logits(name: str, tmp_path: Path) -> None:
    model = tiny_base(name, tmp_path)
    assert choose_head(model, frozen=True) == (name not in ("gemma2", "granite", "cohere", "cohere2"))
    ids = torch.arange(3, 63).reshape(2, 30)
    labels = ids.masked_fill(torch.arange(30) < 20, -100)
    with torch.no_grad():
        own = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[:, 19:-1].reshape(20, -1), ids[:, 20:].flatten())
        output = model(input_ids=ids, labels=labels, fused_lm_head=True)
    torch.testing.assert_close(-output.log_probs.sum() / 20, own, rtol=1e-4, atol=1e-5)


def test_experts_are_trained_with_their_balance(tmp_path: Path) -> None:
    model = tiny_base("mixtral", tmp_path)
    assert choose_head(model, frozen=True)
    ids = torch.arange(3, 33)[None]
    output = model(input_ids=ids, labels=ids, fused_lm_head=True, output_router_logits=True)
    assert output.aux_loss > 0


def test_a_head_that_computes_another_loss_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_base("granite", tmp_path)
    plain_forward = model.forward
    monkeypatch.setattr(head, "has_plain_logits", lambda model: True)  # as if the configuration hid the scale
    assert not choose_head(model, frozen=True)
    assert model.forward == plain_forward
    assert not model.training
    monkeypatch.setattr(head, "_fused_loss", lambda model: 3.0)
    with pytest.raises(ModelNotFoundError, match=r"a loss of 3\.000 in training where the model's own logits give"):
        choose_head(model, frozen=True)


def test_output_embeddings_that_are_trained_keep_trls_head(tmp_path: Path) -> None:
    assert not choose_head(tiny_base("llama", tmp_path), frozen=False)
