"""The plan spends what there is, keeps the wanted batch, and steps down when memory runs out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import BudgetError, ConfigError
from tasks.modeling.profile import BaseProfile
from tasks.training.config import BudgetConfig, DpoConfig, GrpoConfig, KtoConfig, SftConfig, TrainingConfig
from tasks.training.plan import forecasting
from tasks.training.plan.budget import BudgetUsed, check_budget, with_price
from tasks.training.plan.hardware import Hardware
from tasks.training.plan.memory import checkpoint_bytes, estimate_memory
from tasks.training.plan.planning import (
    PACKED_ATTENTION,
    Workload,
    count_sequences,
    make_plan,
    next_oom_fallback,
    with_time,
)
from tasks.training.trainer.rows import Rows, rows_seen_by
from tests.tasks.training.plans import GPU, LLAMA_8B, NEW_GPU, NUM_TRAINABLE, SMOLLM, hour_long, plan_for


@given(
    batch=st.integers(1, 256),
    rows=st.integers(1, 3000),
    length=st.integers(1, 2000),
    epochs=st.floats(0.1, 5),
    memory=st.integers(10**8, 10**11),
)
def test_the_effective_batch_is_kept_and_every_row_is_seen(
    batch: int, rows: int, length: int, epochs: float, memory: int
) -> None:
    hardware = Hardware("cpu", "test", 1, memory, supports_bfloat16=False)
    plan = plan_for(hardware=hardware, lengths=(length,) * rows, effective_batch_size=batch, num_train_epochs=epochs)
    assert plan.micro_batch_size * plan.accumulation_steps == batch
    assert plan.num_steps * batch >= rows * epochs
    assert (plan.num_steps - 1) * batch < rows * epochs + batch * epochs
    assert plan.eval_steps >= 1


def test_memory_decides_between_plain_checkpointed_and_quantised() -> None:
    lengths = (2048,) * 64
    large = plan_for(LLAMA_8B, GPU, lengths, max_length=2048)
    assert (large.quantization, large.gradient_checkpointing, large.precision) == ("none", False, "bfloat16")
    middle = Hardware("cuda", "test", 1, 24 * 10**9, supports_bfloat16=True)
    assert plan_for(LLAMA_8B, middle, lengths, max_length=2048).gradient_checkpointing
    small = Hardware("cuda", "test", 1, 16 * 10**9, supports_bfloat16=True)
    assert plan_for(LLAMA_8B, small, lengths, max_length=2048).quantization == "nf4"
    assert plan_for(LLAMA_8B, small, lengths, max_length=2048, quantization="none").quantization == "none"


def test_precision_follows_the_hardware_unless_told() -> None:
    assert plan_for().precision == "float32"
    assert plan_for(precision="bfloat16").precision == "bfloat16"


def test_packing_needs_a_kernel_unless_told() -> None:
    assert not plan_for(hardware=GPU).packing
    assert plan_for(hardware=NEW_GPU).packing
    assert plan_for(hardware=NEW_GPU).attn_implementation == PACKED_ATTENTION
    plan = plan_for(packing=True, max_length=1000)
    assert plan.packing
    assert (plan.micro_batch_size, plan.accumulation_steps, plan.num_steps) == (1, 2, 48)


def test_attention_and_packing_follow_the_base_model() -> None:
    def plan(base: BaseProfile, hardware: Hardware = NEW_GPU, **settings: Any) -> TrainingPlan:
        workload = Workload(lengths=(100,) * 64, num_trained_tokens=3200, num_truncated_rows=0)
        return make_plan(base, workload, hardware, SftConfig(**settings), method="sft", num_trainable=1000)

    windowed = BaseProfile(shape=SMOLLM, attention="eager", packing="mask", packing_note="its attention has a window")
    assert (plan(windowed).packing, plan(windowed).attn_implementation) == (False, "eager")
    assert "rows are not packed: its attention has a window" in plan(windowed).notes
    assert plan(windowed, GPU).notes == ()
    assert (plan(windowed, packing=True).packing, plan(windowed, packing=True).attn_implementation) == (True, "eager")
    assert plan(windowed, attn_implementation="flash_attention_2").attn_implementation == "flash_attention_2"
    for attention in ("sdpa", PACKED_ATTENTION):
        with pytest.raises(ConfigError, match=r"training\.sft\.attn_implementation"):
            plan(windowed, attn_implementation=attention)
    stateful = BaseProfile(shape=SMOLLM, packing="none", packing_note="a layer's state would pass from one row to the next")
    assert not plan(stateful).packing
    with pytest.raises(ConfigError, match=r"training\.sft\.packing.*state"):
        plan(stateful, packing=True)


def test_experts_are_not_quantised_with_the_rest() -> None:
    sizes: dict[str, Any] = {
        "num_trainable": 0,
        "tokens": 1,
        "precision": "bfloat16",
        "gradient_checkpointing": False,
        "device": "cuda",
    }
    dense = estimate_memory(LLAMA_8B, quantization="nf4", **sizes)["weights"]
    experts = estimate_memory(replace(LLAMA_8B, num_expert_parameters=6 * 10**9), quantization="nf4", **sizes)["weights"]
    assert experts - dense == pytest.approx(6e9 * (2 - 0.516), rel=1e-6)


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=80), max_length=st.integers(16, 300))
def test_sequences_are_counted_as_trl_packs_them(lengths: list[int], max_length: int) -> None:
    from datasets import Dataset
    from trl import pack_dataset

    rows = Dataset.from_dict({"input_ids": [[1] * min(length, max_length) for length in lengths]})
    packed = pack_dataset(rows, max_length, strategy="bfd")
    assert count_sequences(lengths, max_length) == len(packed)


def test_packed_micro_batches_fill_a_gpu_and_nearly_keep_the_batch() -> None:
    lengths = tuple(range(200, 1000)) * 2
    plan = plan_for(LLAMA_8B, NEW_GPU, lengths, max_length=2048, num_train_epochs=1)
    wanted = 16 * plan.num_sequences / len(lengths)
    made = plan.micro_batch_size * plan.accumulation_steps
    assert plan.packing
    assert plan.micro_batch_size > 1
    assert abs(made - wanted) <= 0.15 * wanted
    assert (plan.num_steps - 1) * made < plan.num_sequences <= plan.num_steps * made
    assert plan.num_epochs == 1
    small = replace(NEW_GPU, memory_bytes=32 * 10**9)
    assert plan_for(LLAMA_8B, small, lengths, max_length=2048).micro_batch_size == 1


def test_liger_kernels_are_used_where_they_are_known_and_there() -> None:
    assert plan_for(hardware=NEW_GPU).liger_kernel
    assert not plan_for(hardware=NEW_GPU, use_liger_kernel=False).liger_kernel
    assert not plan_for(hardware=GPU).liger_kernel
    other = replace(SMOLLM, model_type="falcon")
    assert not plan_for(other, NEW_GPU).liger_kernel
    with pytest.raises(ConfigError, match="use_liger_kernel"):
        plan_for(hardware=GPU, use_liger_kernel=True)
    with pytest.raises(ConfigError, match="falcon"):
        plan_for(other, NEW_GPU, use_liger_kernel=True)


@pytest.mark.parametrize(
    ("tokens", "quantization", "liger", "peak_gb"),
    [
        (2048, "none", False, 31.5),
        (4096, "none", False, 45.9),
        (2048, "none", True, 26.2),
        (8192, "none", True, 54.0),
        (2048, "nf4", True, 16.0),
        (12_288, "nf4", True, 62.6),
    ],
)
def test_memory_comes_near_to_what_an_h100_took(tokens: int, quantization: str, liger: bool, peak_gb: float) -> None:
    """A forward and backward pass of packed rows, before an optimizer was made: PyTorch's reserved peak."""
    parts = estimate_memory(
        LLAMA_8B,
        num_trainable=NUM_TRAINABLE[LLAMA_8B.hidden_size],
        tokens=tokens,
        precision="bfloat16",
        quantization=quantization,
        gradient_checkpointing=False,
        device="cuda",
        liger_kernel=liger,
    )
    assert (sum(parts.values()) - parts["optimizer"]) / 1e9 == pytest.approx(peak_gb, rel=0.1)


def test_the_fallbacks_keep_the_batch_then_checkpoint_then_shorten() -> None:
    plan = plan_for(per_device_train_batch_size=4, effective_batch_size=8)
    changes: list[str] = []
    while (lower := next_oom_fallback(plan, allow_shorter_length=True)) is not None:
        plan, change = lower
        changes.append(change)
        assert plan.micro_batch_size * plan.accumulation_steps == 8
    assert changes[:3] == ["micro-batch 2, accumulation 4", "micro-batch 1, accumulation 8", "gradient checkpointing"]
    assert changes[3:] == [f"max_length {length}" for length in (512, 256, 128, 64, 32)]
    checkpointed = plan.model_copy(update={"max_length_tokens": 1024})
    assert next_oom_fallback(checkpointed, allow_shorter_length=False) is None


@pytest.mark.parametrize(("micro_batch", "batch"), [(15, 15), (12, 12), (7, 14), (5, 15)])
def test_every_fallback_keeps_the_batch_exactly(micro_batch: int, batch: int) -> None:
    plan = plan_for(per_device_train_batch_size=micro_batch, effective_batch_size=batch)
    while plan.micro_batch_size > 1:
        lower = next_oom_fallback(plan, allow_shorter_length=False)
        assert lower is not None
        plan = lower[0]
        assert plan.micro_batch_size * plan.accumulation_steps == batch


def test_time_counts_training_and_evaluations() -> None:
    plan = plan_for(num_train_epochs=2, effective_batch_size=16, evals_per_epoch=1)
    assert plan.num_steps == 40
    timed = with_time(plan, tokens_per_second=1000, num_eval_tokens=2000)
    assert timed.estimated_seconds == pytest.approx((2 * 32_000 + 0.5 * 2000 * 3) / 1000)


def test_checkpoints_need_room_for_the_optimizer_too() -> None:
    plan = plan_for()
    assert checkpoint_bytes(plan) > 3 * 3 * 4 * plan.num_trainable_parameters


def test_a_whole_number_of_epochs_is_one_however_small_its_last_step() -> None:
    plan = plan_for(lengths=(100,) * 104, effective_batch_size=16, num_train_epochs=2)
    assert (plan.num_steps, plan.num_epochs) == (14, 2)


def test_packed_rows_are_counted_in_full_sequences() -> None:
    plain = plan_for(effective_batch_size=16, num_train_epochs=3)
    assert plain.num_epochs == pytest.approx(3)
    packed = plan_for(packing=True, max_length=1000, num_train_epochs=3)
    assert packed.num_steps * packed.accumulation_steps < packed.num_rows, "far fewer sequences than rows"
    assert packed.num_epochs == pytest.approx(3, rel=0.1)
    rows = Rows([None] * packed.num_rows, [])
    assert rows_seen_by(packed, rows, seed=1) is rows, "every row is packed into some sequence"
    timed = with_time(packed, tokens_per_second=1000)
    assert timed.estimated_seconds == pytest.approx(3 * 32_000 / 1000, rel=0.1)


@given(num_rows=st.integers(1, 500), steps=st.integers(1, 60), batch=st.integers(1, 40))
def test_as_many_rows_are_prepared_as_the_steps_draw(num_rows: int, steps: int, batch: int) -> None:
    plan = plan_for(lengths=(100,) * num_rows, max_steps=steps, effective_batch_size=batch)
    rows = Rows(list(range(num_rows)), [])
    drawn = rows_seen_by(plan, rows, seed=1).train
    assert len(drawn) == len(set(drawn)) == min(num_rows, steps * batch)


# ------------------------------------------------------------------------------------------------------------------ budget

PRICES = {"cpu": 0.5, "cuda": 2.0, "h200": 4.0, "H200 NVL": 5.0}


@pytest.mark.parametrize(
    ("device", "name", "price"),
    [
        ("cuda", "NVIDIA H200", 4.0),
        ("cuda", "NVIDIA H200 NVL", 5.0),
        ("cuda", "NVIDIA A100", 2.0),
        ("cpu", "CPU, 2 cores", 0.5),
    ],
)
def test_the_price_is_that_of_the_device_s_name_or_of_its_kind(device: str, name: str, price: float) -> None:
    assert BudgetConfig(price_per_device_hour=PRICES).price_of(device, name) == price
    assert BudgetConfig().price_of(device, name) is None


def test_every_gpu_is_paid_for_and_a_cpu_machine_once() -> None:
    budget = BudgetConfig(price_per_device_hour=PRICES, currency="USD")
    plan = with_price(hour_long(), budget)
    assert (plan.device_hours, plan.cost, plan.currency) == (2.0, 8.0, "USD")
    plan = with_price(hour_long("cpu", "CPU, 2 cores"), budget)
    assert (plan.device_hours, plan.cost) == (1.0, 0.5)
    assert with_price(hour_long(), BudgetConfig()).cost is None


def test_a_plan_within_its_ceilings_passes_and_one_above_is_refused_with_its_figures() -> None:
    budget = BudgetConfig(price_per_device_hour=PRICES, max_device_hours=2.5, max_cost=9)
    plan = with_price(hour_long(), budget)
    check_budget(plan, budget, BudgetUsed())
    with pytest.raises(BudgetError, match=r"2\.00 device-hours planned .*after 0\.60 .*at most 2\.5") as refused:
        check_budget(plan, budget, BudgetUsed(device_hours=0.6))
    assert refused.value.exit_code == 3
    with pytest.raises(BudgetError, match=r"8\.00 EUR planned .*after 1\.50 .*at most 9 EUR"):
        check_budget(plan, budget, BudgetUsed(device_hours=0.1, cost=1.5))
    check_budget(plan, BudgetConfig(), BudgetUsed(device_hours=1e6, cost=1e6))


def test_a_cost_that_cannot_be_told_is_refused() -> None:
    budget = BudgetConfig(price_per_device_hour={"A100": 2.0}, max_cost=1e6)
    with pytest.raises(BudgetError, match="no price for `NVIDIA H200`"):
        check_budget(with_price(hour_long(), budget), budget, BudgetUsed())
    with pytest.raises(ValidationError, match="needs price_per_device_hour"):
        BudgetConfig(max_cost=1)


@pytest.mark.parametrize("method", ["orpo", "ppo", "gguf"])
def test_what_is_left_out_is_refused_by_name(method: str) -> None:
    with pytest.raises(ValidationError, match=rf"{method}: .*`sft`, `dpo`, .* `kto` and `grpo`"):
        TrainingConfig.model_validate({method: {}})


@pytest.mark.parametrize("name", ["fsdp", "deepspeed"])
def test_other_names_of_sharding_are_refused_with_the_right_one(name: str) -> None:
    with pytest.raises(ValidationError, match=f"{name}: set `sharding: fsdp2` and `num_processes` instead"):
        TrainingConfig.model_validate({"sft": {name: {}}})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, "num_processes of 2 or more"),
        ({"num_processes": 0}, "num_processes of 2 or more"),
        ({"num_processes": 2, "quantization": "nf4"}, "4-bit weights"),
        ({"num_processes": 2, "lora": None}, "sharding needs an adapter"),
    ],
)
def test_what_cannot_be_sharded_is_refused_with_the_configuration(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SftConfig.model_validate({"sharding": "fsdp2", **changes})
    assert SftConfig(sharding="fsdp2", num_processes=2).sharding == "fsdp2"


def test_a_model_that_no_device_holds_fits_several() -> None:
    small = Hardware("cuda", "test", 4, 12 * 10**9, supports_bfloat16=True)
    common = {"hardware": small, "quantization": "none", "num_processes": 4}
    alone, sharded = plan_for(LLAMA_8B, **common), plan_for(LLAMA_8B, **common, sharding="fsdp2")  # type: ignore[arg-type]
    assert sum(alone.memory_bytes.values()) > 0.9 * 12 * 10**9
    assert sum(sharded.memory_bytes.values()) < 0.9 * 12 * 10**9
    assert sharded.memory_bytes["weights"] == alone.memory_bytes["weights"] // 4
    # Two layers of 218 million parameters each, and embeddings of 128,256 tokens for input and output, in bfloat16.
    assert sharded.memory_bytes["gathered"] == 2 * 2 * (218_112_000 + 128_256 * 4096)
    for part in ("adapter", "gradients", "optimizer"):
        assert sharded.memory_bytes[part] == alone.memory_bytes[part]


def test_a_sharded_model_is_never_quantised_to_make_it_fit() -> None:
    tiny = Hardware("cuda", "test", 2, 4 * 10**9, supports_bfloat16=True)
    assert plan_for(LLAMA_8B, tiny, num_processes=2).quantization == "nf4"
    assert plan_for(LLAMA_8B, tiny, num_processes=2, sharding="fsdp2").quantization == "none"


def test_preferences_without_an_adapter_are_refused_with_the_configuration() -> None:
    with pytest.raises(ValidationError, match=r"set sft\.lora, or leave dpo out"):
        TrainingConfig(sft=SftConfig(lora=None), dpo=DpoConfig())
    with pytest.raises(ValidationError, match=r"kto continues .* set sft\.lora, or leave kto out"):
        TrainingConfig(sft=SftConfig(lora=None), kto=KtoConfig())
    with pytest.raises(ValidationError, match=r"grpo continues .* set sft\.lora, or leave grpo out"):
        TrainingConfig(sft=SftConfig(lora=None), grpo=GrpoConfig(label=1))
    assert TrainingConfig(sft=SftConfig(lora=None)).preference is None


def test_pairs_are_learned_in_one_way() -> None:
    with pytest.raises(ValidationError, match="dpo and kto"):
        TrainingConfig(dpo=DpoConfig(), kto=KtoConfig())
    assert TrainingConfig(kto=KtoConfig()).preference == KtoConfig()


@pytest.mark.parametrize(
    "wrong",
    [
        {"effective_batch_size": 1},
        {"per_device_train_batch_size": 1},
        {"loss_type": "sigmoid"},
        {"desirable_weight": 0},
        {"label_smoothing": 0.1},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_settings_that_kto_has_no_use_for_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        KtoConfig(**wrong)


@given(effective=st.integers(2, 70), length=st.integers(16, 5000), memory=st.integers(10**9, 10**11))
def test_kto_never_sees_a_single_reply(effective: int, length: int, memory: int) -> None:
    config = KtoConfig(effective_batch_size=effective, max_length=5000)
    workload = Workload(lengths=[length] * 100, num_trained_tokens=50 * length, num_truncated_rows=0)
    hardware = Hardware("cpu", "test", 1, memory, supports_bfloat16=False)
    profile = BaseProfile(shape=SMOLLM)
    plan: TrainingPlan | None = make_plan(profile, workload, hardware, config, method="kto", num_trainable=4_884_480)
    while plan is not None:
        assert plan.micro_batch_size >= 2
        lower = next_oom_fallback(plan, allow_shorter_length=True)
        plan = lower[0] if lower else None


@pytest.mark.parametrize("load", [1.0, 3.0, 20.0])
def test_the_speed_of_a_cpu_does_not_depend_on_other_processes(load: float, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        """Every look at it is a product later; a loaded machine takes longer for it, and computes as long."""

        looks = 0

        def perf_counter(self) -> float:
            self.looks += 1
            return self.looks * 0.01 * load

        def process_time(self) -> float:
            return float(self.looks * 0.01 * torch.get_num_threads())

    monkeypatch.setattr(forecasting, "time", Clock())
    assert forecasting.measure_flops("cpu", size=8, seconds=load) == pytest.approx(2 * 8**3 / 0.01, rel=0.05)
