"""The plan spends what there is, keeps the wanted batch, and steps down when memory runs out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contracts import TrainingPlan
from tasks.training.config import LoraSettings, SftConfig
from tasks.training.planning import (
    Hardware,
    ModelShape,
    Workload,
    checkpoint_bytes,
    count_trainable,
    make_plan,
    next_rung,
    with_time,
)

LLAMA_8B = ModelShape(8_030_261_248, 32, 4096, 14336, 128_256, 32, 8, 128)
SMOLLM = ModelShape(134_515_008, 30, 576, 1536, 49_152, 9, 3, 64)
GPU = Hardware("cuda", "test", 1, 80 * 10**9, supports_bfloat16=True)
CPU = Hardware("cpu", "test", 1, 16 * 10**9, supports_bfloat16=False)


def plan_for(
    shape: ModelShape = SMOLLM, hardware: Hardware = CPU, lengths: tuple[int, ...] = (100,) * 320, **config: object
) -> TrainingPlan:
    settings = SftConfig(**config)  # type: ignore[arg-type]
    workload = Workload(lengths=lengths, num_trained_tokens=sum(lengths) // 2, num_truncated_rows=0)
    return make_plan(shape, workload, hardware, settings, method="sft", lora=settings.lora)


def test_trainable_parameters_are_pefts(tiny_model_dir: Path) -> None:
    from peft import get_peft_model

    from tasks.modeling.loading import load_base
    from tasks.training.trainers import lora_config

    model = load_base(tiny_model_dir)
    shape = ModelShape.from_config(json.loads((tiny_model_dir / "config.json").read_text()), model.num_parameters())
    for settings in (
        LoraSettings(r=4),
        LoraSettings(target_modules=("q_proj", "v_proj")),
        LoraSettings(layers_to_transform=(1,), target_modules=("q_proj", "down_proj")),
    ):
        adapted = get_peft_model(load_base(tiny_model_dir), lora_config(settings))
        assert adapted.get_nb_trainable_parameters()[0] == count_trainable(shape, settings)
    assert count_trainable(shape, None) == model.num_parameters()


def test_smollm_has_the_measured_number_of_trainable_parameters() -> None:
    assert count_trainable(SMOLLM, LoraSettings()) == 4_884_480


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
    packed = Hardware("cuda", "test", 1, 80 * 10**9, supports_bfloat16=True, supports_packed_attention=True)
    assert not plan_for(hardware=GPU).packing
    assert plan_for(hardware=packed).packing
    plan = plan_for(packing=True, max_length=1000)
    assert plan.packing
    assert (plan.micro_batch_size, plan.accumulation_steps, plan.num_steps) == (1, 2, 48)


def test_the_ladder_keeps_the_batch_then_checkpoints_then_shortens() -> None:
    plan = plan_for(per_device_train_batch_size=4, effective_batch_size=8)
    rungs: list[str] = []
    while (lower := next_rung(plan, allow_shorter_length=True)) is not None:
        plan, change = lower
        rungs.append(change)
        assert plan.micro_batch_size * plan.accumulation_steps == 8
    assert rungs[:3] == ["micro-batch 2, accumulation 4", "micro-batch 1, accumulation 8", "gradient checkpointing"]
    assert rungs[3:] == [f"max_length {length}" for length in (512, 256, 128, 64, 32)]
    checkpointed = plan.model_copy(update={"max_length_tokens": 1024})
    assert next_rung(checkpointed, allow_shorter_length=False) is None


def test_time_counts_training_and_evaluations() -> None:
    plan = plan_for(num_train_epochs=2, effective_batch_size=16, evals_per_epoch=1)
    assert plan.num_steps == 40
    timed = with_time(plan, tokens_per_second=1000, num_eval_tokens=2000)
    assert timed.estimated_seconds == pytest.approx((2 * 32_000 + 0.5 * 2000 * 3) / 1000)


def test_checkpoints_need_room_for_the_optimizer_too() -> None:
    plan = plan_for()
    assert checkpoint_bytes(plan) > 3 * 3 * 4 * plan.num_trainable_parameters
