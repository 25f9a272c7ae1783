"""What must be right before a trainer spends anything, and what is said when it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.core.errors import ConfigError, ModelNotFoundError, OutOfMemoryError, PerennialError, QualityLimitError
from tasks.training.hardware import find_hardware
from tasks.training.planning import Hardware
from tasks.training.preflight import Rows, check_device, check_fits_model, check_truncation
from tasks.training.rendering import Example, Pair
from tests.tasks.training.test_planning import LLAMA_8B, NEW_GPU, plan_for


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"vocab_size": 100, "max_position_embeddings": 8}))
    return tmp_path


@pytest.mark.parametrize(
    ("train", "validation", "error"),
    [
        ([Example([1, 2], [99])], [], None),
        ([Example([1, 2], [100])], [], ModelNotFoundError),
        ([Example([1, 2], [3])], [Example([100], [3])], ModelNotFoundError),
        ([Pair([1, 2], [3], [100])], [], ModelNotFoundError),
        ([Example([1] * 4, [2] * 4)], [], None),
        ([Example([1] * 4, [2] * 5)], [], ConfigError),
        ([Pair([1] * 4, [2] * 4, [2] * 4)], [], None),
        ([Pair([1] * 4, [2] * 4, [2] * 5)], [], ConfigError),
    ],
)
def test_tokens_and_lengths_must_have_a_place_in_the_model(
    base: Path, train: list[Example | Pair], validation: list[Example | Pair], error: type[PerennialError] | None
) -> None:
    if error is None:
        check_fits_model(base, Rows(train, validation))
        return
    with pytest.raises(error) as refused:
        check_fits_model(base, Rows(train, validation))
    assert refused.value.where
    assert refused.value.todo


def test_a_device_that_is_taken_is_refused_before_the_model_is_loaded() -> None:
    free = Hardware("cuda", "H100", 1, 80 * 10**9, supports_bfloat16=True)
    plan = plan_for(LLAMA_8B, free, quantization="none")
    check_device(plan, free)
    taken = Hardware("cuda", "H100", 1, 10 * 10**9, supports_bfloat16=True)
    with pytest.raises(OutOfMemoryError, match=r"10\.00 GB free on H100; expected 16"):
        check_device(plan, taken)


def test_the_share_of_cut_rows_counts_those_that_were_dropped_whole() -> None:
    plan = plan_for(lengths=(100,) * 6).model_copy(update={"num_truncated_rows": 4})
    check_truncation(plan, 0.5, num_rows=8)
    with pytest.raises(QualityLimitError, match=r"4 of 8 rows \(50\.0%\)"):
        check_truncation(plan, 0.4, num_rows=8)


def test_what_else_runs_decides_whether_training_begins_and_not_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy device changes no plan: neither batch nor checkpointing nor, which would be another model, the precision."""
    lengths = tuple(range(200, 1000)) * 2
    plans = []
    for free in (80, 40, 12, 1):
        busy = replace(NEW_GPU, free_memory_bytes=free * 10**9)
        plans.append(plan_for(LLAMA_8B, busy, lengths, max_length=2048, quantization="auto"))
    assert all(plan == plans[0] for plan in plans)
    assert plans[0].quantization == "none"
    check_device(plans[0], replace(NEW_GPU, free_memory_bytes=40 * 10**9))
    with pytest.raises(OutOfMemoryError, match=r"1\.00 GB free .*End what else uses the device"):
        check_device(plans[0], replace(NEW_GPU, free_memory_bytes=10**9))

    found = []
    for available in (60 * 10**9, 10**9):
        memory = SimpleNamespace(total=64 * 10**9, available=available)
        monkeypatch.setattr("tasks.training.hardware.psutil.virtual_memory", lambda memory=memory: memory)
        found.append(find_hardware("cpu"))
    assert [one.room_bytes for one in found] == [60 * 10**9, 10**9]
    assert replace(found[0], free_memory_bytes=None) == replace(found[1], free_memory_bytes=None)
