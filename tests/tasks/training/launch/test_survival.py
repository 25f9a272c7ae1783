"""Real trainers, really killed: what is resumed equals what was never interrupted, to the bit."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.core.errors import StoreError
from tasks.training.config import DpoConfig, KtoConfig, LoraSettings
from tasks.training.launch.protocol import DpoMethod, KtoMethod, SftMethod, TrainerEvent, TrainerSpec
from tasks.training.launch.supervisor import WORKER, SupervisedRun, supervise
from tasks.training.launch.work_folder import read_curve
from tasks.training.trainer.worker import main
from tests.tasks.training.conftest import by_rewards, prefer_brief, quick_sft

pytestmark = pytest.mark.slow


def trainers_of(spec: TrainerSpec) -> list[psutil.Process]:
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if WORKER in (process.info["cmdline"] or [])
        and any(spec.work_dir in part for part in process.info["cmdline"])
        and process.info["status"] != "zombie"
    ]


def adapter_sha(desk: Any, spec: TrainerSpec) -> str:
    return str(desk.store.add_folder(Path(spec.work_dir) / "adapter").sha256)


def supervise_quietly(spec_json: str) -> None:
    supervise(TrainerSpec.model_validate_json(spec_json), lambda event: None)


def losses(outcome: SupervisedRun) -> list[tuple[int, float | None, float | None]]:
    return [(event.step, event.loss, event.eval_loss) for event in outcome.curve]


@pytest.fixture(scope="module")
def method() -> SftMethod:
    """Random state matters in it (dropout), and it is long enough to be interrupted in its second epoch."""
    lora = LoraSettings(r=4, lora_dropout=0.1)
    return SftMethod(config=quick_sft(lora=lora, save_interval_seconds=0, num_train_epochs=4))


@pytest.fixture(scope="module")
def unbroken(desk: Any, tmp_path_factory: pytest.TempPathFactory, method: SftMethod) -> Unbroken:
    """What the interrupted trainings must equal, trained once for all of them and in this process, to the same bits."""
    return train_here(desk, desk.spec(tmp_path_factory.mktemp("unbroken"), method))


@dataclass(frozen=True)
class Unbroken:
    """A training that nothing interrupted."""

    adapter_sha: str
    losses: list[tuple[int, float | None, float | None]]


def train_here(desk: Any, spec: TrainerSpec) -> Unbroken:
    """Trains in this process: another one costs more time to start than to train."""
    work = Path(spec.work_dir)
    (work / "spec.json").write_text(spec.model_dump_json())
    assert main([str(work / "spec.json")]) == 0
    return Unbroken(adapter_sha(desk, spec), [(event.step, event.loss, event.eval_loss) for event in read_curve(work)])


def test_killed_trainers_resume_to_the_bits_of_an_unbroken_training(
    desk: Any, tmp_path: Path, method: SftMethod, unbroken: Unbroken
) -> None:
    broken = desk.spec(tmp_path / "broken", method)
    # Far enough apart that no two fall into one batch of relayed events, the second in another epoch than the first.
    draw = random.Random(3)
    kill_at = [draw.randint(first, first + 3) for first in (3, 12)]
    killed: set[int] = set()

    def kill(event: TrainerEvent) -> None:
        alive = [process for process in trainers_of(broken) if process.pid not in killed]
        if event.kind == "step" and kill_at and event.step >= kill_at[0] and alive:
            kill_at.pop(0)
            killed.update(process.pid for process in alive)
            for process in alive:
                process.kill()

    outcome = supervise(broken, kill)
    # On a starved machine a trainer may be past its end before it is killed; it then was the last attempt.
    assert len(killed) >= 1
    assert outcome.num_attempts in (len(killed), len(killed) + 1)
    assert adapter_sha(desk, broken) == unbroken.adapter_sha
    assert losses(outcome) == unbroken.losses
    assert "96 rows, 4 epochs: no row was skipped or repeated in an epoch" in outcome.report.notes


def test_a_killed_parent_resumes_to_the_same_bits(desk: Any, tmp_path: Path, method: SftMethod, unbroken: Unbroken) -> None:
    broken = desk.spec(tmp_path / "broken", method)
    parent = multiprocessing.get_context("spawn").Process(target=supervise_quietly, args=(broken.model_dump_json(),))
    parent.start()
    progress = tmp_path / "broken" / "progress.jsonl"
    wait_for(lambda: progress.exists() and '"step":9' in progress.read_text())
    parent.kill()
    parent.join()
    wait_for(lambda: not trainers_of(broken), seconds=10)
    outcome = supervise(broken, lambda event: None)
    assert adapter_sha(desk, broken) == unbroken.adapter_sha
    assert losses(outcome) == unbroken.losses
    assert "96 rows, 4 epochs: no row was skipped or repeated in an epoch" in outcome.report.notes


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_killed_preference_training_resumes_to_the_same_bits(
    desk: Any, tmp_path: Path, sft_adapter: Any, kind: str
) -> None:
    settings = {"learning_rate": 1e-2, "num_train_epochs": 4, "num_threads": 1, "device": "cpu", "save_interval_seconds": 0}
    method: DpoMethod | KtoMethod = (
        DpoMethod(config=DpoConfig(**settings), adapter=sft_adapter)
        if kind == "dpo"
        else KtoMethod(config=KtoConfig(**settings), adapter=sft_adapter)
    )
    whole = train_here(desk, desk.spec(tmp_path / "whole", method))
    broken = desk.spec(tmp_path / "broken", method)
    killed: list[int] = []

    def kill(event: TrainerEvent) -> None:
        if event.kind == "step" and event.step >= 5 and not killed:
            killed.extend(process.pid for process in trainers_of(broken))
            for process in trainers_of(broken):
                process.kill()

    supervise(broken, kill)
    assert killed
    assert adapter_sha(desk, broken) == whole.adapter_sha


def test_a_killed_training_by_rewards_goes_on_from_its_last_checkpoint(desk: Any, tmp_path: Path, sft_adapter: Any) -> None:
    spec = desk.spec(tmp_path, by_rewards(sft_adapter, max_steps=6))
    killed: list[int] = []
    steps: list[int] = []

    def kill(event: TrainerEvent) -> None:
        if event.kind != "step":
            return
        steps.append(event.step)
        if event.step >= 3 and not killed:
            killed.extend(process.pid for process in trainers_of(spec))
            for process in trainers_of(spec):
                process.kill()

    outcome = supervise(spec, kill)
    assert killed
    assert outcome.report.outcome == "done"
    assert steps == [1, 2, 3, 4, 5, 6]
    assert all(event.reward is not None for event in outcome.curve)
    assert (tmp_path / "adapter" / "training.json").is_file()


def test_a_request_to_stop_saves_and_resumes_and_an_interrupted_parent_ends_the_trainer_within_ten_seconds(
    desk: Any, tmp_path: Path, method: SftMethod
) -> None:
    config = method.config.model_copy(update={"save_interval_seconds": 1e6, "num_train_epochs": 20})
    spec = desk.spec(tmp_path / "work", SftMethod(config=config))
    signalled: list[int] = []
    resumed: list[int] = []
    interrupted: list[float] = []

    def disturb(event: TrainerEvent) -> None:
        if event.kind != "step":
            return
        if not signalled and event.step >= 4:
            signalled.extend(process.pid for process in trainers_of(spec))
            for process in trainers_of(spec):
                process.send_signal(signal.SIGTERM)
        elif signalled and not interrupted and not {process.pid for process in trainers_of(spec)} & set(signalled):
            resumed.append(event.step)
            interrupted.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise(spec, disturb)
    assert not trainers_of(spec)
    assert time.monotonic() - interrupted[0] < 10
    history = json.loads((tmp_path / "work" / "attempts.json").read_text())["history"]
    assert "stopped on request" in history[0]
    assert resumed[0] > 4, "it resumed from the requested checkpoint"


def test_a_trainer_that_the_kernel_kills_for_memory_goes_on_with_a_smaller_micro_batch(
    desk: Any, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    spec = desk.spec(tmp_path / "work", quick(max_steps=1))
    kills: list[int] = []

    def kill_at_the_same_place(event: TrainerEvent) -> None:
        if event.phase == "train" and len(kills) < 2:
            for process in trainers_of(spec):
                kills.append(process.pid)
                process.kill()

    outcome = supervise(spec, kill_at_the_same_place)
    plan = outcome.report.plan
    assert plan is not None
    assert (plan.micro_batch_size, plan.accumulation_steps) == (8, 2)
    assert "out of memory" in outcome.history[-1]


def test_a_full_disk_is_one_clear_error_and_the_checkpoint_survives(
    desk: Any, tmp_path: Path, quick: Callable[..., SftMethod]
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    filler = small / "filler"
    try:
        spec = desk.spec(small / "work", quick(save_interval_seconds=0, num_train_epochs=10))

        def fill(event: TrainerEvent) -> None:
            if event.kind == "step" and event.step >= 5 and not filler.exists():
                with pytest.raises(OSError, match="No space"):
                    filler.write_bytes(b"x" * shutil.disk_usage(small).total)

        with pytest.raises(StoreError, match="no space left"):
            supervise(spec, fill)
        filler.unlink()
        resumed: list[TrainerEvent] = []
        outcome = supervise(spec, resumed.append)
        assert outcome.report.outcome == "done"
        assert min(event.step for event in resumed if event.kind == "step") >= 5
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_two_processes_train_together(desk: Any, tmp_path: Path, quick: Callable[..., SftMethod]) -> None:
    # Without dropout, whose masks each process draws for itself; in float32, because bfloat16 rounds other sums otherwise.
    settings = {"max_steps": 3, "precision": "float32", "lora": LoraSettings(r=4, lora_dropout=0.0)}
    one = train_here(desk, desk.spec(tmp_path / "one", quick(**settings)))
    two = supervise(desk.spec(tmp_path / "two", quick(**settings, num_processes=2)), lambda event: None)
    assert two.report.plan is not None
    assert two.report.plan.num_processes == 2
    assert two.report.plan.micro_batch_size * two.report.plan.accumulation_steps == 8
    assert [step for step, _, _ in one.losses] == [step for step, _, _ in losses(two)]
    # Training averages over all tokens of all processes; evaluation over batches, which are other ones here.
    for place, tolerance in ((1, 1e-4), (2, 1e-2)):
        alone, together = ([row[place] for row in rows if row[place] is not None] for rows in (one.losses, losses(two)))
        assert len(alone) >= 2
        assert together == pytest.approx(alone, rel=tolerance)
    assert "48 rows, 1 epochs: no row was skipped or repeated in an epoch" in two.report.notes


def test_two_processes_account_for_the_rows_that_fill_their_last_batch(desk: Any, tmp_path: Path, sft_adapter: Any) -> None:
    config = KtoConfig(num_train_epochs=2, num_threads=1, device="cpu", num_processes=2, learning_rate=1e-2)
    pairs = desk.rows([prefer_brief(number) for number in range(23)], "preferences")
    spec = desk.spec(tmp_path, KtoMethod(config=config, adapter=sft_adapter), train=pairs)
    report = supervise(spec, lambda event: None).report
    assert report.num_steps == 6
    assert any("the first 2 sequences, which pad the last batch of 2 processes" in note for note in report.notes)
    measured = {item.name: item.value or 0.0 for item in report.measurements}
    assert measured["eval_loss_after"] < 0.9 * measured["eval_loss_before"]


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
