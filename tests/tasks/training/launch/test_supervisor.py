"""The parent survives everything that can happen to a trainer process, in bounds, and leaves no orphan."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.core.errors import OutOfMemoryError, QualityLimitError, TrainingError
from tasks.training.launch.protocol import SftMethod, TrainerEvent, TrainerSpec
from tasks.training.launch.supervisor import SupervisedRun, supervise
from tests.tasks.training.conftest import quick_sft
from tests.tasks.training.launch.stub_trainer import supervise_quietly
from tests.tasks.training.plans import plan_for

STUB = "tests.tasks.training.launch.stub_trainer"


def write_script(spec: TrainerSpec, actions: list[str], micro_batch: int = 4) -> None:
    work = Path(spec.work_dir)
    (work / "script.json").write_text(json.dumps(actions))
    plan = plan_for(lengths=(10,) * 8, per_device_train_batch_size=micro_batch, effective_batch_size=4)
    (work / "plan.json").write_text(plan.model_dump_json())


def run(spec: TrainerSpec, actions: list[str], micro_batch: int = 4) -> tuple[SupervisedRun, list[TrainerEvent]]:
    write_script(spec, actions, micro_batch)
    events: list[TrainerEvent] = []
    return supervise(spec, events.append, worker=STUB), events


def plans_seen(spec: TrainerSpec) -> list[tuple[int, int, bool]]:
    plans = map(json.loads, (Path(spec.work_dir) / "seen.jsonl").read_text().splitlines())
    return [(plan["micro_batch_size"], plan["accumulation_steps"], plan["gradient_checkpointing"]) for plan in plans]


@pytest.fixture
def spec(desk: Any, tmp_path: Path) -> TrainerSpec:
    result: TrainerSpec = desk.spec(tmp_path / "work", SftMethod(config=quick_sft(max_attempts=3)))
    return result


def test_a_killed_trainer_is_started_again_and_each_step_is_reported_once(spec: TrainerSpec) -> None:
    outcome, events = run(spec, ["die 1 2 3", "finish 2 3 4 5"])
    assert outcome.report.outcome == "done"
    assert outcome.num_attempts == 2
    assert [event.step for event in events] == [1, 2, 3, 4, 5]
    assert [event.step for event in outcome.curve] == [1, 2, 3, 4, 5]
    assert "was killed at step 3" in outcome.history[0]


def test_running_out_of_memory_falls_back(spec: TrainerSpec) -> None:
    outcome, _ = run(spec, ["oom", "oom 1", "oom 2", "finish 3"])
    assert plans_seen(spec) == [(4, 1, False), (2, 2, False), (1, 4, False), (1, 4, True)]
    assert outcome.num_attempts == 4
    assert len(outcome.history) == 3


def test_running_out_of_memory_while_planning_for_several_processes_falls_back_too(spec: TrainerSpec) -> None:
    several = spec.model_copy(update={"method": SftMethod(config=quick_sft(num_processes=2))})
    write_script(several, ["oom", "plan", "finish 1"])
    work = Path(spec.work_dir)
    (work / "plan.json").rename(work / "untimed.json")
    supervise(several, lambda event: None, worker=STUB)
    plans = [json.loads(line) for line in (work / "seen.jsonl").read_text().splitlines()]
    assert [plan and plan["micro_batch_size"] for plan in plans] == [None, 2, 2]


def test_the_fallbacks_have_an_end(spec: TrainerSpec) -> None:
    with pytest.raises(OutOfMemoryError, match="smallest micro-batch"):
        run(spec, ["oom", "oom"], micro_batch=1)


def test_two_kills_at_the_same_place_count_as_out_of_memory(spec: TrainerSpec) -> None:
    run(spec, ["die 1", "die 1", "finish 2"])
    assert [micro_batch for micro_batch, _, _ in plans_seen(spec)] == [4, 4, 2]


def test_two_kills_at_different_places_do_not_even_where_the_second_comes_before_the_first(spec: TrainerSpec) -> None:
    patient = spec.model_copy(update={"method": SftMethod(config=quick_sft(max_attempts=5))})
    run(patient, ["die 1 2 3", "die", "die 2", "finish 2 3 4"])
    assert [micro_batch for micro_batch, _, _ in plans_seen(spec)] == [4, 4, 4, 4]


def test_kills_before_there_is_a_plan_do_not_count_as_out_of_memory(spec: TrainerSpec) -> None:
    write_script(spec, ["die", "die", "die"])
    (Path(spec.work_dir) / "plan.json").unlink()
    with pytest.raises(TrainingError, match="after 3 failed attempts") as failed:
        supervise(spec, lambda event: None, worker=STUB)
    assert not isinstance(failed.value, OutOfMemoryError)


def test_attempts_are_bounded(spec: TrainerSpec) -> None:
    with pytest.raises(TrainingError, match="after 3 failed attempts"):
        run(spec, ["die 1", "crash 2", "die 3", "finish 4"])


def test_the_same_crash_twice_is_not_tried_a_third_time(spec: TrainerSpec) -> None:
    with pytest.raises(TrainingError, match="ValueError"):
        run(spec, ["crash 1", "crash 1", "finish"])


def test_a_refusal_is_final_and_keeps_its_four_parts(spec: TrainerSpec) -> None:
    with pytest.raises(QualityLimitError, match=r"here: found this; expected that\. Do it\."):
        run(spec, ["refuse", "finish"])


def test_a_silent_trainer_is_ended_and_started_again(spec: TrainerSpec) -> None:
    # Long enough for a process to start on a busy machine.
    impatient = SftMethod(config=quick_sft(silence_timeout_seconds=5))
    outcome, _ = run(spec.model_copy(update={"method": impatient}), ["hang 1", "finish 2"])
    assert "silent" in outcome.history[0]
    assert not trainers_alive(spec)


def test_what_is_done_is_not_done_again(spec: TrainerSpec) -> None:
    first, _ = run(spec, ["finish 1 2"])
    again, events = run(spec, ["crash"])
    assert again.report == first.report
    assert again.curve == first.curve
    assert events == []


def test_an_interrupted_parent_takes_its_trainer_along(spec: TrainerSpec) -> None:
    write_script(spec, ["hang 1"])

    def interrupt(event: TrainerEvent) -> None:
        raise KeyboardInterrupt

    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        supervise(spec, interrupt, worker=STUB)
    assert not trainers_alive(spec)
    assert time.monotonic() - began < 60


def test_a_killed_parent_takes_its_trainer_along_and_frees_the_folder(spec: TrainerSpec) -> None:
    write_script(spec, ["hang 1", "finish 2"])
    parent = multiprocessing.get_context("spawn").Process(target=supervise_quietly, args=(spec.model_dump_json(),))
    parent.start()
    wait_for(lambda: "step" in reported(spec))
    parent.kill()
    parent.join()
    wait_for(lambda: not trainers_alive(spec))
    outcome = supervise(spec, lambda event: None, worker=STUB)
    assert outcome.report.outcome == "done"
    assert [event.step for event in outcome.curve] == [1, 2]


def test_the_same_training_does_not_run_twice_at_once(spec: TrainerSpec) -> None:
    write_script(spec, ["hang 1", "finish 2"])
    thread = threading.Thread(target=supervise_quietly, args=(spec.model_dump_json(),))
    thread.start()
    wait_for(lambda: "step" in reported(spec))
    with pytest.raises(TrainingError, match="another process"):
        supervise(spec, lambda event: None, worker=STUB)
    for pid in trainers_alive(spec):
        psutil.Process(pid).kill()
    thread.join()


def trainers_alive(spec: TrainerSpec) -> list[int]:
    """Process ids of running trainers of this work folder, whoever their parent is."""
    alive = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if STUB in command and any(spec.work_dir in part for part in command) and process.info["status"] != "zombie":
            alive.append(process.pid)
    return alive


def reported(spec: TrainerSpec) -> str:
    path = Path(spec.work_dir) / "progress.jsonl"
    return path.read_text() if path.exists() else ""


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_the_launcher_imports_no_torch() -> None:
    program = "import sys, tasks.training.launch.execution; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
