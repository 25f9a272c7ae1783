"""What breaks, what becomes of a retrain then, what is lost, and how long it takes until all is well: real processes.

    python benchmarks/failure_matrix.py                          # all faults, about 25 minutes, most of them waiting
    python benchmarks/failure_matrix.py --faults cancelled server-restarted

A tiny model is retrained on a real installation (PostgreSQL behind Prefect and MLflow, two workers) once for each fault,
which strikes while the trainer works on the GPU pool. Each row says what was seen: the states that the run went through, the
stages that had to be done again, and whether a GPU slot, a lock or an MLflow run was left hanging. Wants root, for the file
systems that are filled and taken away, and a C compiler for the clock.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.support.installation import FINAL, Installation, await_value, installation, small_job  # noqa: E402

CPU, GPU = "perennial-cpu", "perennial-gpu"
OUTAGE_SECONDS = 20.0
STORE_BYTES = 400 * 2**20


@dataclass
class Run:
    """One retrain that a fault strikes."""

    place: Installation
    id: str
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    done_before: set[str] = field(default_factory=set)
    struck: float = 0.0

    def await_training(self) -> dict[str, Any]:
        """The child on the GPU pool, once its trainer works."""
        child = await_value(lambda: self.child("train-adapter", "RUNNING"), seconds=300)
        work = self.place.folder / "store" / "work"
        await_value(lambda: any(path.stat().st_mtime > self.began.timestamp() for path in work.glob("*/*")), seconds=300)
        return dict(child)

    def child(self, name: str, *states: str) -> dict[str, Any] | None:
        """The newest run of a deployment that this run started, if it is in one of the states."""
        ids = [task["state"]["state_details"].get("child_flow_run_id") for task in self.tasks()]
        for one in reversed(self.place.runs(flows={"name": {"any_": [name]}})):
            if one["id"] in ids or one["parent_task_run_id"] in {task["id"] for task in self.tasks()}:
                return one if one["state_type"] in states else None
        return None

    def tasks(self) -> list[dict[str, Any]]:
        """Task runs of this run and, named by their flow, of all below it."""
        ids, found = [self.id], []
        while ids:
            query = {"task_runs": {"flow_run_id": {"any_": ids}}, "limit": 200}
            tasks = self.place.ask("task_runs/filter", query)
            found += tasks
            parents = [task["id"] for task in tasks]
            below = {"flow_runs": {"parent_task_run_id": {"any_": parents}}} if parents else None
            ids = [run["id"] for run in self.place.ask("flow_runs/filter", below)] if below else []
        return found

    def strike(self) -> None:
        """Remembers which stages are done, and when the fault struck."""
        self.done_before = {_stage_of(task) for task in self.tasks() if task["state_type"] == "COMPLETED"}
        self.struck = time.monotonic()

    def retry(self) -> None:
        """What the button Retry does."""
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "state_details": {"scheduled_time": _now()}}
        self.place.ask(f"flow_runs/{self.id}/set_state", {"state": state, "force": True})

    def seconds(self) -> float:
        """Since the fault struck."""
        return time.monotonic() - self.struck

    def done_again(self) -> set[str]:
        """Stages that were done before the fault and did not find their result after it."""
        after = datetime.now(UTC) - timedelta(seconds=self.seconds())
        return {
            _stage_of(task)
            for task in self.tasks()
            if _stage_of(task) in self.done_before - _LOOK_AT_THE_WORLD
            and task["state_name"] == "Completed"
            and datetime.fromisoformat(task["start_time"] or _now()) > after
        }


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    fault: str
    happened: str
    lost: str
    recovery: str


class Matrix:
    """The faults, each a method that strikes a run and says what became of it."""

    def __init__(self, place: Installation, config: dict[str, Any]) -> None:
        self.place = place
        self._config = config
        self._number = 0

    def start(self, **more: Any) -> Run:
        """A retrain whose training nobody has done yet; what is prepared is kept from the first one."""
        self._number += 1
        training = self._config["training"]
        sft = {**training["sft"], "seed": 100 + self._number}
        config = {**self._config, "training": {**training, "sft": sft}, **more}
        return Run(self.place, self.place.start_run("retrain/quarterly", config=config))

    def finish(self, run: Run, fault: str, happened: str, *, retry: bool) -> Row:
        """Retries where a person would, waits for the end, and looks for what is lost or stuck."""
        if retry:
            run.retry()
        ended = self.place.await_run(run.id, seconds=900)
        promoted = await_value(lambda: self._promotion_of(run), seconds=120) if ended["state_type"] == "COMPLETED" else None
        seconds = run.seconds()
        problems = self._stuck(run)
        if again := run.done_again():
            problems.append(f"done again: {', '.join(sorted(again))}")
        if ended["state_type"] != "COMPLETED" or promoted is None or promoted["state_type"] not in ("COMPLETED", "PAUSED"):
            problems.append(f"ended as {ended['state_name']}")
            print(
                f"{fault}: {(ended['state'] or {}).get('message')}",
                *self.place.log_of(run.id)[-20:],
                sep="\n",
                file=sys.stderr,
            )
        steps = [happened, f"Retry: {ended['state_name']}" if retry else str(ended["state_name"])]
        told = "; ".join(step for step in steps if step)
        return Row(fault, told, "; ".join(problems) or "nothing", f"{seconds:.0f} s")

    def _promotion_of(self, run: Run) -> dict[str, Any] | None:
        name = f"promote-{self.place.ask(f'flow_runs/{run.id}')['name']}"
        found = self.place.runs(flow_runs={"name": {"any_": [name]}})
        return found[-1] if found and found[-1]["state_type"] in (*FINAL, "PAUSED") else None

    def _stuck(self, run: Run) -> list[str]:
        """Slots, locks and MLflow runs that nobody holds any more and that are still taken."""

        def taken() -> list[str]:
            limits = self.place.ask("v2/concurrency_limits/filter", {})
            return [f"{one['name']} is taken" for one in limits if one["active_slots"] and "deployment" not in one["name"]]

        with contextlib.suppress(TimeoutError):
            await_value(lambda: not taken(), seconds=30)
        hanging = [one for one in self._mlflow_runs() if one["info"]["status"] == "RUNNING"]
        return taken() + ([f"{len(hanging)} MLflow runs show as running"] if hanging else [])

    def _mlflow_runs(self) -> list[dict[str, Any]]:
        experiments = _post(f"{self.place.mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 100})
        ids = [one["experiment_id"] for one in experiments.get("experiments", [])]
        found = _post(f"{self.place.mlflow}/api/2.0/mlflow/runs/search", {"experiment_ids": ids, "max_results": 200})
        runs: list[dict[str, Any]] = found.get("runs", [])
        return runs

    # -- the faults

    def nothing(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        return self.finish(run, "none, for comparison", "", retry=False)

    def cancelled(self) -> Row:
        run = self.start()
        child = run.await_training()
        run.strike()
        self.place.ask(f"flow_runs/{run.id}/set_state", {"state": {"type": "CANCELLING"}})
        ended = self.place.await_run(run.id)
        below = self.place.await_run(child["id"])
        await_value(lambda: not _trainers(self.place), seconds=60)
        seconds = run.seconds()
        problems = self._stuck(run)
        happened = f"{ended['state_name']}; its training {below['state_name'].lower()}, the trainer gone"
        return Row("run cancelled", happened, "; ".join(problems) or "nothing", f"{seconds:.0f} s")

    def gpu_worker_killed(self) -> Row:
        run = self.start()
        child = run.await_training()
        run.strike()
        self.place.kill(GPU)
        self.place.start(GPU)
        marked = self.place.await_run(child["id"])
        after = run.seconds()
        ended = self.place.await_run(run.id)
        happened = f"training marked {marked['state_name']} after {after:.0f} s, retrain {ended['state_name']}"
        retry = ended["state_type"] != "COMPLETED"
        return self.finish(run, "GPU worker's machine gone (kill -9)", happened, retry=retry)

    def cpu_worker_killed(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        self.place.kill(CPU)
        self.place.start(CPU)
        marked = self.place.await_run(run.id)
        happened = f"retrain marked {marked['state_name']} after {run.seconds():.0f} s, started once more by the automation"
        await_value(lambda: self.place.ask(f"flow_runs/{run.id}")["state_type"] != "CRASHED", seconds=60)
        return self.finish(run, "CPU worker's machine gone (kill -9)", happened, retry=False)

    def worker_alone_killed(self, pool: str) -> Row:
        """The worker's process dies and its runs work on: each is healthy, and nobody reads its output any more."""
        run = self.start()
        child = run.await_training()
        run.strike()
        pid = self.place.pid_of(pool)
        os.kill(pid, signal.SIGKILL)
        self.place.start(pool)
        ended = self.place.await_run(run.id)
        below = self.place.await_run(child["id"])
        happened = f"training {below['state_name']}, retrain {ended['state_name']}"
        return self.finish(run, f"{pool} worker alone killed (kill -9)", happened, retry=ended["state_type"] != "COMPLETED")

    def gpu_worker_alone_killed(self) -> Row:
        return self.worker_alone_killed(GPU)

    def cpu_worker_alone_killed(self) -> Row:
        return self.worker_alone_killed(CPU)

    def server_restarted(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        self.place.kill("prefect")
        time.sleep(OUTAGE_SECONDS)
        self.place.start("prefect")
        return self.finish(run, f"Prefect's server killed, back after {OUTAGE_SECONDS:.0f} s", "went on", retry=False)

    def database_locked(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        statement = f"BEGIN; LOCK TABLE flow_run, task_run, log IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({OUTAGE_SECONDS})"
        self.place.sql("prefect", statement)
        return self.finish(run, f"Prefect's tables locked for {OUTAGE_SECONDS:.0f} s", "went on", retry=False)

    def mlflow_down(self) -> Row:
        run = self.start()
        child = run.await_training()
        run.strike()
        self.place.kill("mlflow")
        trained = self.place.await_run(child["id"])
        ended = self.place.await_run(run.id, seconds=1_500)  # it waits for MLflow for ten minutes
        self.place.start("mlflow")
        happened = f"training {trained['state_name']}, retrain {ended['state_name']}: {_words(ended)}"
        return self.finish(run, "MLflow away from the training to the run's end", happened, retry=True)

    def store_unreachable(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        with _mounted(self.place.folder / "store", "ro,size=4k"):
            ended = self.place.await_run(run.id)
        return self.finish(run, "store gone (its mount is empty)", f"{ended['state_name']}: {_words(ended)}", retry=True)

    def disk_full(self) -> Row:
        run = self.start()
        run.await_training()
        run.strike()
        filler = self.place.folder / "store" / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 2**16)
        ended = self.place.await_run(run.id)
        filler.unlink()
        return self.finish(run, "store's disk full", f"{ended['state_name']}: {_words(ended)}", retry=True)

    def clock_jump(self) -> Row:
        compiler = shutil.which("cc")
        if compiler is None:
            return Row("GPU worker's clock jumps 2 h ahead", "not tried: there is no C compiler", "-", "-")
        library, offset = self.place.folder / "jumped_clock.so", self.place.folder / "offset"
        source = Path(__file__).with_name("jumped_clock.c")
        subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        offset.write_text("0")
        faked = {"LD_PRELOAD": str(library), "CLOCK_OFFSET_FILE": str(offset)}
        self.place.kill(GPU)
        self.place.environment.update(faked)
        self.place.start(GPU)
        for name in faked:
            del self.place.environment[name]
        run = self.start()
        child = run.await_training()
        run.strike()
        offset.write_text("7200")
        ended = self.place.await_run(run.id)
        retry = ended["state_type"] != "COMPLETED"
        happened = "went on"
        if retry:
            marked = self.place.await_run(child["id"])
            happened = f"training marked {marked['state_name']}, retrain {ended['state_name']}"
        row = self.finish(run, "GPU worker's clock jumps 2 h ahead", happened, retry=retry)
        first = self.place.await_run(child["id"])
        row = Row(row.fault, f"{row.happened}; the first training {first['state_name']}", row.lost, row.recovery)
        self.place.kill(GPU)
        self.place.start(GPU)
        return row

    def schedule_missed(self) -> Row:
        quarterly = self.place.ask("deployments/name/retrain/quarterly")
        due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=25)
        schedule = {"interval": 86_400.0, "anchor_date": due.isoformat()}
        path = f"deployments/{quarterly['id']}/schedules"
        (made,) = self.place.ask(path, [{"schedule": schedule, "active": True}])
        upcoming = {
            "deployments": {"id": {"any_": [quarterly["id"]]}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        }

        def scheduled() -> str | None:
            for one in self.place.runs(**upcoming):
                if abs((datetime.fromisoformat(one["expected_start_time"]) - due).total_seconds()) < 1:
                    return str(one["id"])
            return None

        run = Run(self.place, await_value(scheduled, seconds=20))
        for name in ("prefect", CPU, GPU):
            self.place.kill(name)
        time.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()) + OUTAGE_SECONDS)
        run.struck = time.monotonic()
        self.place.start("prefect")
        self.place.start(CPU, GPU)
        row = self.finish(run, "server and workers down when a run was due", "ran late", retry=False)
        self.place.ask(f"{path}/{made['id']}", method="DELETE")
        name = str(self.place.ask(f"flow_runs/{run.id}")["name"])
        kept = f"-{due:%Y%m%d-%H%M%S}-" in name
        return row if kept else Row(row.fault, row.happened, f"its due time: it is called {name}", row.recovery)


_LOOK_AT_THE_WORLD = {"", "take_snapshot", "freeze_test_set", "find_champion", "find_previous_snapshot", "remember_snapshot"}
"""Stages that every run does: the source, the frozen set's pointer, the registry."""

FAULTS: dict[str, Callable[[Matrix], Row]] = {
    "nothing": Matrix.nothing,
    "cancelled": Matrix.cancelled,
    "gpu-worker-killed": Matrix.gpu_worker_killed,
    "cpu-worker-killed": Matrix.cpu_worker_killed,
    "gpu-worker-alone-killed": Matrix.gpu_worker_alone_killed,
    "cpu-worker-alone-killed": Matrix.cpu_worker_alone_killed,
    "server-restarted": Matrix.server_restarted,
    "database-locked": Matrix.database_locked,
    "mlflow-down": Matrix.mlflow_down,
    "store-unreachable": Matrix.store_unreachable,
    "disk-full": Matrix.disk_full,
    "clock-jump": Matrix.clock_jump,
    "schedule-missed": Matrix.schedule_missed,
}


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    """Another, temporary file system over a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _trainers(place: Installation) -> list[int]:
    """Processes of this installation that train."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace")
            if "tasks.training.trainer.worker" in words and str(place.folder) in words:
                found.append(int(path.parent.name))
    return found


def _stage_of(task: dict[str, Any]) -> str:
    """The stage of a task run; of the stand-in for a flow below, nothing."""
    name = str(task["name"]).rpartition("-")[0]
    return "" if "-" in name else name


def _words(run: dict[str, Any]) -> str:
    """The name of the error that a run ended with; docs/operating.md says what each means."""
    message = str((run["state"] or {}).get("message") or "").split("exception: ")[-1]
    return message.partition(":")[0]


def _post(url: str, body: Any) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def _now() -> str:
    return datetime.now(UTC).isoformat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    options = parser.parse_args()
    if os.geteuid() != 0:
        print("not tried: it mounts file systems, in a mount namespace of its own; run it as root")
        return
    if "FAILURE_MATRIX_NAMESPACE" not in os.environ:  # nothing that it mounts is seen outside
        os.environ["FAILURE_MATRIX_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything it started ends with it
    with tempfile.TemporaryDirectory(prefix="perennial-matrix-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        stack.enter_context(_mounted(folder / "store", f"size={STORE_BYTES}"))
        config = small_job(folder)
        config["training"]["sft"] |= {"max_steps": 60, "save_interval_seconds": 0, "max_attempts": 2}
        place = stack.enter_context(installation(folder, "prefect", "mlflow"))
        place.start(CPU, GPU)
        place.perennial("deploy", "--file", str(place.deployments(config)))
        matrix = Matrix(place, config)
        print("| fault | what happened | lost or stuck | all well after |\n|---|---|---|---|", flush=True)
        for fault in options.faults:
            try:
                row = FAULTS[fault](matrix)
            except Exception as error:  # one fault that was not understood must not hide the others
                row = Row(fault, f"not understood: {type(error).__name__}: {error}", "?", "-")
            print(f"| {row.fault} | {row.happened} | {row.lost} | {row.recovery} |", flush=True)


if __name__ == "__main__":
    main()
