"""One training from references to a stored adapter, with a real trainer process and a real MLflow store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import TrainingResult
from tasks.core.errors import InputError, LineageError
from tasks.core.storage import Store
from tasks.training.config import BudgetConfig, DpoConfig
from tasks.training.launch import execution
from tasks.training.launch.protocol import DpoMethod, SftMethod
from tasks.training.reporting import training_table
from tests.support.tiny_model import desk_row
from tests.tasks.training.conftest import quick_sft


@pytest.fixture
def tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    from tasks.tracking import connect

    return connect()


def train(desk: Any, method: Any, rows: DatasetRef, validation: DatasetRef, said: list[str]) -> TrainingResult:
    return execution.train(
        desk.base,
        rows,
        validation,
        method,
        snapshots=(desk.snapshot.sha256,),
        experiment="desk",
        on_progress=lambda done, total, detail: said.append(f"{done}/{total} {detail}"),
        budget=BudgetConfig(price_per_device_hour={"cpu": 36}),
    )


@pytest.mark.slow
def test_supervised_then_preference_training_end_to_end(desk: Any, tracking: Any, quick: Callable[..., SftMethod]) -> None:
    said: list[str] = []
    sft = train(desk, quick(), desk.train, desk.validation, said)
    assert desk.store.fetch_folder(sft.adapter).is_dir()
    assert sft.num_steps == 12
    assert any(line.startswith("12/12 loss") for line in said)
    assert any("validation loss" in line for line in said)
    curves = desk.store.read_table(sft.curves)
    assert curves.schema.names == execution.CURVES_SCHEMA.names
    assert [step for step in curves["step"].to_pylist() if step] == sorted([*range(1, 13), 3, 6, 9, 12])
    assert not Path(execution.work_folder(desk.store, desk.base, desk.train, desk.validation, quick())).exists()

    run = tracking.get_run(sft.mlflow_run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["learning_rate"] == "0.01"
    assert run.data.params["lora.r"] == "8"
    assert run.data.metrics["eval_loss_after"] == pytest.approx(
        next(item.value for item in sft.measurements if item.name == "eval_loss_after")
    )
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "memory_bytes"):
        history = tracking.get_metric_history(sft.mlflow_run_id, name)
        assert [point.step for point in history] == list(range(1, 13)), name
        assert max(point.value for point in history) > 0
    assert [point.step for point in tracking.get_metric_history(sft.mlflow_run_id, "eval_loss")] == [0, 3, 6, 9, 12]
    assert run.data.metrics["peak_memory_bytes"] == sft.peak_memory_bytes > 0
    assert run.data.metrics["cost"] == pytest.approx(36 * sft.seconds / 3600)
    assert sft.plan.cost is not None
    table = training_table(sft)
    assert "| cost, EUR |" in table
    assert "| steps | 12 | 12 |" in table
    assert {item.dataset.digest for item in run.inputs.dataset_inputs} == {
        desk.train.sha256[:36],
        desk.validation.sha256[:36],
    }

    method = DpoMethod(
        config=DpoConfig(learning_rate=1e-2, num_train_epochs=4, num_threads=1, device="cpu"), adapter=sft.adapter
    )
    dpo = train(desk, method, desk.pairs, desk.held_out_pairs, said)
    rates = {item.name: item.value for item in dpo.measurements}
    assert rates["preference_rate_after"] > rates["preference_rate_before"]  # type: ignore[operator]
    assert dpo.adapter.sha256 != sft.adapter.sha256


def test_rows_that_missed_a_gate_are_refused(desk: Any, tracking: Any, quick: Callable[..., SftMethod]) -> None:
    leaky = desk.store.write_rows([desk_row(1)], kind="messages", parents=[desk.snapshot], passed=["validated"])
    with pytest.raises(LineageError, match="scrubbed"):
        train(desk, quick(), leaky, desk.validation, [])
    with pytest.raises(LineageError, match="scrubbed"):
        train(desk, quick(), desk.train, leaky, [])


def test_rows_of_another_snapshot_are_refused(desk: Any, tracking: Any, quick: Callable[..., SftMethod]) -> None:
    other = desk.store.write_rows([desk_row(1)], kind="messages", parents=["0" * 64], passed=execution.REQUIRED_GATES)
    with pytest.raises(LineageError, match="descendant of snapshot"):
        train(desk, quick(), other, desk.validation, [])


def test_no_rows_or_rows_of_the_wrong_kind_are_refused(desk: Any, tracking: Any, quick: Callable[..., SftMethod]) -> None:
    with pytest.raises(InputError, match="0 rows"):
        train(desk, quick(), desk.rows([]), desk.validation, [])
    with pytest.raises(InputError, match="kind preferences"):
        train(desk, quick(), desk.pairs, desk.validation, [])


def test_the_work_folder_is_named_by_what_is_trained(desk: Any, tmp_path: Path) -> None:
    def folder(**changes: Any) -> Path:
        return execution.work_folder(
            desk.store, desk.base, desk.train, desk.validation, SftMethod(config=quick_sft(**changes))
        )

    assert folder() == folder()
    assert folder() != folder(learning_rate=1e-3)
    assert folder(scratch_dir=str(tmp_path)).name == folder().name
    assert folder(scratch_dir=str(tmp_path)).parent == tmp_path
    assert folder().parent == desk.store.local_path / "work"


def test_checkpoints_of_a_store_in_a_bucket_lie_where_they_outlive_the_container(
    desk: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    bucket = Store(f"memory://bucket-{tmp_path.name}")
    folder = execution.work_folder(bucket, desk.base, desk.train, desk.validation, SftMethod(config=quick_sft()))
    assert folder.parent == tmp_path / "home" / "work"
