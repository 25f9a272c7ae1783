"""A base model in parts: each process holds its own, the adapter is that of processes that hold it whole, kills included."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed

from tasks.core.errors import ConfigError, TrainingError
from tasks.training.config import DpoConfig, LoraSettings
from tasks.training.launch.protocol import DpoMethod, SftMethod, TrainerEvent, TrainerSpec
from tasks.training.launch.supervisor import SupervisedRun, supervise
from tasks.training.trainer.sharding import check_sharded, held_share, loading_options, own_weights, whole
from tests.tasks.training.conftest import quick_sft
from tests.tasks.training.launch.test_survival import adapter_sha, losses, train_here, trainers_of
from tests.tasks.training.plans import plan_for

SHARDED = plan_for(num_processes=2, sharding="fsdp2")
RECORDING = "tests.tasks.training.trainer.sharded_trainer"


# -------------------------------------------------------------------------------------------------------------- one process


@pytest.fixture
def half_of_a_model() -> Iterator[torch.nn.Module]:
    """A frozen weight of which this process holds one half, and a trained one that it holds whole."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    distributed.init_process_group("fake", rank=0, world_size=2, store=distributed.HashStore())
    try:
        mesh = init_device_mesh("cpu", (2,))
        model = torch.nn.Module()
        half = DTensor.from_local(torch.ones(3, 4), mesh, [Shard(0)])
        model.frozen = torch.nn.Parameter(half, requires_grad=False)
        model.lora_A = torch.nn.Parameter(torch.zeros(50))
        yield model
    finally:
        distributed.destroy_process_group()


def test_a_process_holds_its_part_of_the_base_and_all_of_the_adapter(half_of_a_model: torch.nn.Module) -> None:
    assert held_share(half_of_a_model) == 0.5
    assert own_weights(half_of_a_model).keys() == {"lora_A"}
    assert whole(half_of_a_model.frozen).shape == (6, 4)
    assert whole(half_of_a_model.lora_A) is half_of_a_model.lora_A
    check_sharded(half_of_a_model, SHARDED)


def test_a_model_that_was_not_sharded_is_not_trained_as_if_it_were(half_of_a_model: torch.nn.Module) -> None:
    half_of_a_model.forgotten = torch.nn.Parameter(torch.ones(6, 4), requires_grad=False)
    with pytest.raises(TrainingError, match=r"holds 75\.0% of the base model; expected about 50\.0%"):
        check_sharded(half_of_a_model, SHARDED)
    check_sharded(half_of_a_model, plan_for())


def test_parts_lie_where_training_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading_options(plan_for(num_processes=2)) == {}
    assert loading_options(SHARDED)["distributed_config"].fsdp_size == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match="on a machine with a GPU"):
        loading_options(SHARDED)


@pytest.mark.parametrize(
    ("rank", "outcome", "there", "written"),
    [
        (0, "crashed", None, "crashed"),
        (0, "crashed", "out_of_memory", "out_of_memory"),
        (1, "out_of_memory", None, "out_of_memory"),
        (1, "refused", None, "refused"),
        (1, "crashed", None, None),
        (1, "done", None, None),
    ],
)
def test_a_process_that_runs_out_of_memory_says_so_before_the_first_sees_it_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, outcome: Any, there: str | None, written: str | None
) -> None:
    from tasks.training.launch.protocol import TrainerReport
    from tasks.training.trainer.worker import write_report

    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")
    report = tmp_path / "report.json"
    if there is not None:
        report.write_text(json.dumps({"outcome": there}))
    write_report(TrainerReport(outcome=outcome), tmp_path)
    assert (json.loads(report.read_text())["outcome"] if report.exists() else None) == written


def test_no_process_writes_the_first_figures_before_all_have_looked_for_them(desk: Any, tmp_path: Path) -> None:
    from tasks.training.trainer.callbacks import ProgressFile
    from tasks.training.trainer.measuring import Figures, measure_before
    from tasks.training.trainer.rows import Rows

    found_at_wait: list[bool] = []

    class Trainer:
        class accelerator:  # noqa: N801
            @staticmethod
            def wait_for_everyone() -> None:
                found_at_wait.append((tmp_path / "before.json").exists())

    arguments = (desk.spec(tmp_path).method, tmp_path, Rows([], []), ProgressFile(tmp_path / "progress.jsonl"))
    assert measure_before(Trainer(), *arguments) == Figures()
    assert found_at_wait == [False, True]
    measure_before(Trainer(), *arguments)
    assert found_at_wait == [False, True, True]


# ---------------------------------------------------------------------------------------------------------- two processes


@dataclass(frozen=True)
class Unbroken:
    """A sharded training that nothing interrupted."""

    work: Path
    outcome: SupervisedRun
    adapter_sha: str


@pytest.fixture(scope="module")
def method() -> SftMethod:
    """Random state matters in it (dropout), micro-batches are added up, activations are computed again, steps are saved."""
    settings = {"max_steps": 8, "per_device_train_batch_size": 4, "precision": "float32", "save_interval_seconds": 0}
    parts = {"sharding": "fsdp2", "num_processes": 2, "gradient_checkpointing": True}
    return SftMethod(config=quick_sft(lora=LoraSettings(r=4, lora_dropout=0.1), **settings, **parts))


@pytest.fixture(scope="module")
def unbroken(desk: Any, tmp_path_factory: pytest.TempPathFactory, method: SftMethod) -> Unbroken:
    """What the interrupted training must equal to the bit, and what the trainer recorded."""
    work = tmp_path_factory.mktemp("sharded")
    spec = desk.spec(work, method)
    outcome = supervise(spec, lambda event: None, worker=RECORDING)
    return Unbroken(work, outcome, adapter_sha(desk, spec))


def planned_like(spec: TrainerSpec, other: Path) -> TrainerSpec:
    """The specification with the plan of another work folder, so that it is not planned again."""
    shutil.copy(other / "plan.json", Path(spec.work_dir) / "plan.json")
    return spec


@pytest.mark.slow
def test_each_of_two_processes_holds_half_of_every_weight(unbroken: Unbroken) -> None:
    held = [json.loads((unbroken.work / f"held-{rank}.json").read_text()) for rank in (0, 1)]
    assert len(held[0]) > 10
    for name, (shape, first) in held[0].items():
        assert first is not None, f"{name} is not sharded"
        second = held[1][name][1]
        assert first[0] + second[0] == shape[0]
        assert first[1:] == second[1:] == shape[1:]
        assert first[0] == math.ceil(shape[0] / 2)
    assert "each of 2 processes held 50.0% of the base model" in unbroken.outcome.report.notes


@pytest.mark.slow
def test_the_adapter_is_that_of_two_processes_with_the_whole_model(
    desk: Any, tmp_path: Path, method: SftMethod, unbroken: Unbroken
) -> None:
    config = method.config.model_copy(update={"sharding": "none"})
    outcome = supervise(desk.spec(tmp_path / "whole", SftMethod(config=config)), lambda event: None)
    ours, theirs = (
        load_file(str(work / "adapter" / "adapter_model.safetensors")) for work in (unbroken.work, tmp_path / "whole")
    )
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        # Nothing but the order in which two gradients are averaged may differ.
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-6)
    assert sum(float(weight.abs().sum()) for name, weight in ours.items() if "lora_B" in name) > 0
    for (step, *mine), (other_step, *other) in zip(losses(unbroken.outcome), losses(outcome), strict=True):
        assert step == other_step
        assert [value for value in mine if value is not None] == pytest.approx(
            [value for value in other if value is not None], rel=1e-4
        )
    assert {path.name for path in (unbroken.work / "adapter").iterdir()} == {
        path.name for path in (tmp_path / "whole" / "adapter").iterdir()
    }


@pytest.mark.slow
def test_killed_processes_resume_to_the_bits_of_an_unbroken_sharded_training(
    desk: Any, tmp_path: Path, method: SftMethod, unbroken: Unbroken
) -> None:
    broken = planned_like(desk.spec(tmp_path / "broken", method), unbroken.work)
    killed: list[int] = []

    def kill(event: TrainerEvent) -> None:
        if event.kind == "step" and event.step >= 3 and not killed:
            for process in trainers_of(broken):
                killed.append(process.pid)
                process.kill()

    outcome = supervise(broken, kill)
    assert len(killed) >= 2
    assert adapter_sha(desk, broken) == unbroken.adapter_sha
    assert losses(outcome) == losses(unbroken.outcome)
    for checkpoint in (tmp_path / "broken" / "checkpoints").glob("checkpoint-*"):
        weights = load_file(str(checkpoint / "adapter_model.safetensors"))
        assert weights.keys() == load_file(str(unbroken.work / "adapter" / "adapter_model.safetensors")).keys()


@pytest.mark.slow
def test_preferences_are_learned_on_a_sharded_base_too(desk: Any, tmp_path: Path, sft_adapter: Any) -> None:
    def method(**more: Any) -> DpoMethod:
        settings = {"learning_rate": 1e-2, "max_steps": 3, "num_threads": 1, "device": "cpu", "precision": "float32"}
        return DpoMethod(config=DpoConfig(**{**settings, **more}), adapter=sft_adapter)

    one = train_here(desk, desk.spec(tmp_path / "one", method()))
    two = supervise(desk.spec(tmp_path / "two", method(sharding="fsdp2", num_processes=2)), lambda event: None)
    alone, together = ([row[1] for row in rows if row[1] is not None] for rows in (one.losses, losses(two)))
    assert len(alone) == 3
    assert together == pytest.approx(alone, rel=1e-3)
    assert alone[-1] != alone[0]
