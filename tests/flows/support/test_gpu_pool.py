"""Work handed to another pool: its answer comes back, its failure is told, and it ends with the run that asked for it."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows.prompting_baselines import measure_prompting_baselines
from flows.support.gpu_pool import POLL_SECONDS, as_json, gpu_slot
from perennial.operations import embedded
from tasks.benchmark import BenchmarkConfig
from tasks.contracts.preparation import Split
from tasks.contracts.training import BaseLanguageModel
from tasks.core.processes import start_guarded, stop_group
from tasks.core.stage import stage as stage_decorator
from tasks.core.storage import open_store
from tasks.prompting import FitConfig
from tests.support.standin import parent, stage
from tests.support.tiny_model import desk_row

ROOT = Path(__file__).parents[3]
LIMIT_SECONDS = 420


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.usefixtures("embedded_home")
def test_without_a_pool_the_stage_runs_in_this_process(tmp_path: Path) -> None:
    parent(str(tmp_path), "calm")
    assert (tmp_path / "calm.pid").read_text() == str(os.getpid())
    assert '"learning_rate":0.5' in (tmp_path / "calm.json").read_text()


@pytest.mark.usefixtures("embedded_home")
def test_what_is_kept_waits_for_no_gpu(tmp_path: Path) -> None:
    """The only slot is taken: a block whose stages are all kept goes on, one that has work left waits for the slot."""
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.concurrency.sync import concurrency

    worked: list[int] = []

    @stage_decorator()
    def train_a_little(number: int) -> int:
        with get_client(sync_client=True) as client:
            worked.append(client.read_global_concurrency_limit_by_name("gpu-slots").active_slots)
        return number

    @flow(flow_run_name="trained")
    def trained(*numbers: int) -> int:
        with gpu_slot():
            return sum(train_a_little(number) for number in numbers)

    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("gpu-slots", 1)
        try:
            assert trained(1, 2) == 3
            assert worked == [1, 1], "one slot for the block"
            assert client.read_global_concurrency_limit_by_name("gpu-slots").active_slots == 0
            with concurrency("gpu-slots", occupy=1, strict=True):
                assert trained(1, 2) == 3
                waiting = threading.Thread(target=trained, args=(1, 2, 3), daemon=True)
                waiting.start()
                waiting.join(timeout=8)
                assert waiting.is_alive(), "a stage that has to work waits"
                assert len(worked) == 2
                (run,) = (one for one in client.read_flow_runs() if one.name == "trained" and not one.state.is_final())
                assert (run.state.name, run.state.message) == ("WaitingForGpu", "1 of 1 GPU slots are taken")
            waiting.join(timeout=120)
            assert len(worked) == 3
            assert client.read_flow_run(run.id).state.name == "Completed"
        finally:
            client.delete_global_concurrency_limit_by_name("gpu-slots")


def test_what_a_fit_verdict_is_asked_with_survives_the_way_to_another_pool(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    rows = store.write_rows([desk_row(0)], kind="messages")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    asked: dict[str, Any] = {
        "store_uri": store.uri,
        "base": BaseLanguageModel(name="tiny", folder=store.add_folder(tmp_path / "model"), license="mit", num_parameters=1),
        "rows": Split(train=rows, validation=rows, num_groups=1),
        "frozen": rows,
        "settings": FitConfig(enabled=True, target=0.5),
        "scoring": BenchmarkConfig(max_examples=7),
    }
    assert measure_prompting_baselines.validate_parameters({name: as_json(value) for name, value in asked.items()}) == asked


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_stage_on_another_pool_answers_fails_and_is_cancelled(own_home: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments import run_deployment
    from prefect.states import AwaitingRetry, Cancelling, Crashed
    from prefect.utilities.callables import parameter_schema

    with ExitStack() as stack:
        api = stack.enter_context(embedded.prefect_api(print))
        client = stack.enter_context(get_client(sync_client=True))
        client.upsert_global_concurrency_limit_by_name("gpu-slots", 1)
        for pool, flow, function in (("cpu", parent, "parent"), ("gpu", stage, "stage")):
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            client.create_deployment(
                client.create_flow(flow),
                flow.name,
                work_pool_name=pool,
                entrypoint=f"tests/support/standin.py:{function}",
                pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
                parameter_openapi_schema=parameter_schema(flow).model_dump(),
            )
            worker = start_guarded(
                "prefect",
                ["worker", "start", "--pool", pool],
                environment={**os.environ, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(stop_group, worker)

        def start(mood: str) -> UUID:
            run = run_deployment(
                "stand-in-parent/stand-in-parent",
                parameters={"folder": str(own_home), "mood": mood},
                timeout=0,
                tags=["model:desk", "owner:counsel", "urgent"],
                work_queue_name="high",
            )
            return UUID(str(run.id))  # type: ignore[union-attr]

        def end_of(run: UUID) -> tuple[str, str]:
            for _ in range(LIMIT_SECONDS):
                state = client.read_flow_run(run).state
                if state is not None and state.is_final():
                    return state.type.value, state.message or ""
                time.sleep(1)
            raise AssertionError("the run did not end")

        assert end_of(start("calm"))[0] == "COMPLETED"
        assert '"learning_rate":0.5' in (own_home / "calm.json").read_text()

        assert end_of(start("shot"))[0] == "COMPLETED", "a child that crashed is started once more"
        moods = [one.parameters.get("mood") for one in client.read_flow_runs() if one.name.startswith("stage-")]
        assert sorted(moods) == ["calm", "shot", "shot"]
        children = [one for one in client.read_flow_runs() if one.name.startswith("stage-")]
        assert {(tuple(sorted(one.tags)), one.work_queue_name) for one in children} == {
            (("model:desk", "owner:counsel"), "high")
        }

        kind, words = end_of(start("dear"))
        assert kind == "FAILED"
        assert "9 hours; expected at most 3" in words
        assert "flow run stage-dear of stand-in-stage" in words, "the name that Prefect's page shows"

        # A parent that is killed and started again goes on with the child that works.
        run = start("endless")
        note = own_home / "endless.pid"
        for _ in range(LIMIT_SECONDS):
            if note.exists():
                break
            time.sleep(1)
        pid = int(note.read_text())
        assert client.read_global_concurrency_limit_by_name("gpu-slots").active_slots == 1
        client.set_flow_run_state(run, Crashed(), force=True)
        client.set_flow_run_state(run, AwaitingRetry(), force=True)
        for _ in range(LIMIT_SECONDS):
            if client.read_flow_run(run).run_count == 2:
                break
            time.sleep(1)
        time.sleep(2 * POLL_SECONDS)
        assert [one.parameters.get("mood") for one in client.read_flow_runs() if one.name == "stage-endless"] == ["endless"]
        client.set_flow_run_state(run, Cancelling())
        assert end_of(run)[0] == "CANCELLED"
        (child,) = [one for one in client.read_flow_runs() if one.parameters.get("mood") == "endless" and one.id != run]
        assert end_of(child.id)[0] == "CANCELLED"
        for _ in range(LIMIT_SECONDS):
            if not is_alive(pid):
                break
            time.sleep(1)
        assert not is_alive(pid), "the process works on after its run was cancelled"
        for _ in range(LIMIT_SECONDS):
            if client.read_global_concurrency_limit_by_name("gpu-slots").active_slots == 0:
                break
            time.sleep(1)
        assert client.read_global_concurrency_limit_by_name("gpu-slots").active_slots == 0
