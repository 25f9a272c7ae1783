"""What forbids a training before it spends anything."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from tasks.core.errors import (
    ConfigError,
    InputError,
    ModelNotFoundError,
    OutOfMemoryError,
    PerennialError,
    QualityLimitError,
)
from tasks.training.config import GrpoConfig
from tasks.training.examples import Example, Pair, Prompt
from tasks.training.plan.hardware import Hardware, find_hardware
from tasks.training.plan.preflight import check_device, check_fits_model, check_rewards, check_truncation
from tests.tasks.training.plans import LLAMA_8B, NEW_GPU, SMOLLM, plan_for

SMALL = replace(SMOLLM, vocab_size=100, max_positions=8)


@pytest.mark.parametrize(
    ("rows", "error"),
    [
        ([Example([1, 2], [99])], None),
        ([Example([1, 2], [100])], ModelNotFoundError),
        ([Example([1, 2], [3]), Example([100], [3])], ModelNotFoundError),
        ([Pair([1, 2], [3], [100])], ModelNotFoundError),
        ([Example([1] * 4, [2] * 4)], None),
        ([Example([1] * 4, [2] * 5)], ConfigError),
        ([Pair([1] * 4, [2] * 4, [2] * 4)], None),
        ([Pair([1] * 4, [2] * 4, [2] * 5)], ConfigError),
    ],
)
def test_tokens_and_lengths_must_have_a_place_in_the_model(
    rows: list[Example | Pair], error: type[PerennialError] | None
) -> None:
    if error is None:
        check_fits_model(SMALL, rows)
        check_fits_model(replace(SMALL, max_positions=None), [*rows, Example([1] * 9, [2])])
        return
    with pytest.raises(error):
        check_fits_model(SMALL, rows)


def test_a_device_that_is_taken_is_refused_before_the_model_is_loaded() -> None:
    free = Hardware("cuda", "H100", 1, 80 * 10**9, supports_bfloat16=True)
    plan = plan_for(LLAMA_8B, free, quantization="none")
    check_device(plan, free)
    taken = Hardware("cuda", "H100", 1, 10 * 10**9, supports_bfloat16=True)
    with pytest.raises(OutOfMemoryError, match=r"10\.00 GB free on H100; expected 16"):
        check_device(plan, taken)


def test_the_share_of_truncated_rows_counts_dropped_ones() -> None:
    plan = plan_for(lengths=(100,) * 6).model_copy(update={"num_truncated_rows": 4})
    check_truncation(plan, 0.5, num_rows=8)
    with pytest.raises(QualityLimitError, match=r"4 of 8 rows \(50\.0%\)"):
        check_truncation(plan, 0.4, num_rows=8)


def test_other_programs_on_a_device_decide_whether_training_begins_and_not_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy device changes no plan: neither batch nor checkpointing nor, which would be another model, the precision."""
    lengths = tuple(range(200, 1000)) * 2
    plans = []
    for free in (80, 40, 12, 1):
        busy = replace(NEW_GPU, free_memory_bytes=free * 10**9)
        plans.append(plan_for(LLAMA_8B, busy, lengths, max_length=2048, quantization="auto"))
    assert all(plan == plans[0] for plan in plans)
    assert plans[0].quantization == "none"
    check_device(plans[0], replace(NEW_GPU, free_memory_bytes=40 * 10**9))
    with pytest.raises(OutOfMemoryError, match=r"1\.00 GB free"):
        check_device(plans[0], replace(NEW_GPU, free_memory_bytes=10**9))

    found = []
    for available in (60 * 10**9, 10**9):
        memory = SimpleNamespace(total=64 * 10**9, available=available)
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        found.append(find_hardware("cpu"))
    assert [hardware.room_bytes for hardware in found] == [60 * 10**9, 10**9]
    assert replace(found[0], free_memory_bytes=None) == replace(found[1], free_memory_bytes=None)


@pytest.mark.parametrize("form", ["CALL find WITH {}", '<tool_call>\n{"name": "find", "arguments": {}}\n</tool_call>'])
def test_calls_that_no_reply_could_be_read_for_are_not_rewarded(form: str) -> None:
    tools = ['{"type": "function", "function": {"name": "find", "parameters": {}}}']
    messages = [{"role": "tools", "content": "", "tools": tools}, {"role": "user", "content": "Where is it?"}]
    prompts = [Prompt([1], messages, form, None, 8, num_calls=1), Prompt([1], messages, "Here.", None, 8)] * 8
    if form.startswith("CALL"):
        with pytest.raises(InputError, match="8 rows whose calls"):
            check_rewards(GrpoConfig(calls=1.0), prompts)
    else:
        check_rewards(GrpoConfig(calls=1.0), prompts)
    check_rewards(GrpoConfig(exact_match=1.0), prompts)
