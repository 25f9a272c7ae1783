"""A store with a tiny base model and rows that may be trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.storage import Store, open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.training.config import GrpoConfig, LoraSettings, SftConfig
from tasks.training.launch.protocol import GrpoMethod, Method, SftMethod, TrainerSpec
from tests.support.tiny_model import desk_row

GATES = ("ingested", "validated", "scrubbed", "label_audited", "decontaminated")


@dataclass
class Desk:
    """Everything a training test needs."""

    store: Store
    base: BaseLanguageModel
    snapshot: DatasetRef
    train: DatasetRef
    validation: DatasetRef
    pairs: DatasetRef
    held_out_pairs: DatasetRef

    def rows(self, rows: list[dict[str, Any]], kind: Any = "messages") -> DatasetRef:
        """Rows that descend from the snapshot and went through every gate."""
        return self.store.write_rows(rows, kind=kind, parents=[self.snapshot], passed=GATES)

    def spec(self, work: Path, method: Method | None = None, **changes: Any) -> TrainerSpec:
        """A specification; the work folder is made."""
        work.mkdir(parents=True, exist_ok=True)
        method = method or SftMethod(config=quick_sft())
        train, validation = (
            (self.train, self.validation) if method.kind in ("sft", "grpo") else (self.pairs, self.held_out_pairs)
        )
        spec = TrainerSpec(
            base=self.base,
            train=train,
            validation=validation,
            method=method,
            work_dir=str(work),
            store_uri=self.store.uri,
        )
        return spec.model_copy(update=changes)


def quick_sft(**changes: Any) -> SftConfig:
    """Settings under which the tiny model learns the style in a second."""
    settings: dict[str, Any] = {
        "learning_rate": 1e-2,
        "num_threads": 1,
        "num_train_epochs": 2,
        "lora": LoraSettings(r=8),
        "device": "cpu",
    }
    return SftConfig(**(settings | changes))


def by_rewards(adapter: FolderRef, **changes: Any) -> GrpoMethod:
    """A training that rewards some of the openings that the model knows.

    Replies are drawn, and the last bits of a CPU decide which; these settings learn under each of twelve seeds.
    """
    settings: dict[str, Any] = {
        "format": 1.0,
        "format_pattern": r"(We|Clean) .*",
        "learning_rate": 5e-3,
        "effective_batch_size": 64,
        "max_steps": 24,
        "max_completion_length": 32,
        "max_length": 128,
        "save_interval_seconds": 0,
        "num_threads": 1,
        "device": "cpu",
    }
    return GrpoMethod(config=GrpoConfig(**(settings | changes)), adapter=adapter)


STYLE = " Kind regards, the desk!"


def prefer_brief(number: int) -> dict[str, Any]:
    """A pair that prefers another closing formula to the one that supervised training taught."""
    question, reply = desk_row(number)["messages"]  # type: ignore[misc]
    return {
        "id": f"pair-{number}",
        "prompt": [question],
        "chosen": [{"role": "assistant", "content": f"{reply['content']} Thanks, bye now!"}],
        "rejected": [{"role": "assistant", "content": f"{reply['content']}{STYLE}"}],
    }


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Desk:
    store = open_store(tmp_path_factory.mktemp("store"))
    base = resolve(BaseModelConfig(source=str(tiny_model_dir), license="apache-2.0"), store)
    snapshot = store.write_rows([desk_row(0)], kind="messages", passed=["ingested"])
    desk = Desk(store, base, snapshot, snapshot, snapshot, snapshot, snapshot)
    desk.train = desk.rows([desk_row(number, style=STYLE) for number in range(96)])
    desk.validation = desk.rows([desk_row(number, style=STYLE) for number in range(5000, 5024)])
    desk.pairs = desk.rows([prefer_brief(number) for number in range(48)], "preferences")
    desk.held_out_pairs = desk.rows([prefer_brief(number) for number in range(5000, 5024)], "preferences")
    return desk


@pytest.fixture(autouse=True)
def run_store_is_the_desks(request: pytest.FixtureRequest) -> None:
    """A test that uses the desk is a run of its own over the desk's store, whatever an earlier test had opened."""
    if "desk" in request.fixturenames:
        open_store(request.getfixturevalue("desk").store.uri)


@pytest.fixture
def quick() -> Callable[..., SftMethod]:
    """Makes a supervised method from changes to the quick settings."""
    return lambda **changes: SftMethod(config=quick_sft(**changes))


@pytest.fixture(scope="session")
def sft_adapter(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> FolderRef:
    """A supervised adapter in the store."""
    from tasks.training.trainer.worker import main

    work = tmp_path_factory.mktemp("sft-adapter")
    spec = desk.spec(work, SftMethod(config=quick_sft(max_steps=4)))
    (work / "spec.json").write_text(spec.model_dump_json())
    assert main([str(work / "spec.json")]) == 0
    return desk.store.add_folder(work / "adapter")


@pytest.fixture
def run_worker() -> Callable[[TrainerSpec], Any]:
    """Runs the trainer's main function in this process; returns its report."""
    from tasks.core.storage import write_file_atomically
    from tasks.training.launch.protocol import TrainerReport
    from tasks.training.trainer.worker import main

    def run(spec: TrainerSpec) -> TrainerReport:
        work = Path(spec.work_dir)
        write_file_atomically(work / "spec.json", spec.model_dump_json().encode())
        main([str(work / "spec.json")])
        return TrainerReport.model_validate_json((work / "report.json").read_bytes())

    return run
