"""A stage is a function with one decorator; CONTRIBUTING.md shows one, and here it is added and run."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from tasks.contracts.references import DatasetRef
from tasks.core.errors import QualityLimitError
from tasks.core.progress import Progress, listening
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, open_store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The stage of CONTRIBUTING.md as a module."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "added_stage.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import added_stage

    yield added_stage
    del sys.modules["added_stage"]


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    rows = [
        {"id": str(n), "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi " * n}]}
        for n in range(1, 5)
    ]
    return Store(str(tmp_path / "store")).write_rows(rows, kind="messages")


@pytest.mark.usefixtures("embedded_home")
def test_the_stage_of_the_guide_is_a_task_with_everything_derived(
    shown: ModuleType, dataset: DatasetRef, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Progress] = []

    @flow(name="count-lengths")
    def counted() -> tuple[object, object]:
        open_store(str(tmp_path / "store"))
        return tuple(shown.drop_long_replies(dataset, shown.LengthConfig(max_characters=10)) for _ in range(2))

    with caplog.at_level(logging.INFO, logger="added_stage"), listening(seen.append):
        first, second = counted()

    assert first == second
    assert (first.num_rows_in, first.dataset.num_rows, first.dropped) == (4, 3, {"long_reply": 1})
    assert first.seconds > 0
    assert [record.message for record in caplog.records if record.name == "added_stage"] == [
        f"drop_long_replies: 4 rows of {dataset.sha256[:12]}",
        "drop_long_replies: 3 rows kept, 1 dropped",
    ], "the second call is kept"
    ends = [one for one in seen if one.finished]
    assert [(one.stage, one.total, one.detail) for one in ends] == [
        ("drop_long_replies", 4, "3 rows kept, 1 dropped"),
        ("drop_long_replies", 0, "kept from an earlier run"),
    ]
    with get_client(sync_client=True) as client:
        (page,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["drop-long-replies"])))
    assert page.description == "Rows whose reply is too long"
    assert "| dropped: long_reply | 1 |" in str(page.data)


def test_a_stage_that_refuses_is_not_shown_as_finished(dataset: DatasetRef) -> None:
    @stage()
    def refuse(dataset: DatasetRef) -> DatasetRef:
        stage_progress().summarize("all rows kept")
        raise QualityLimitError("rows", "4", "5", "Add one.")

    seen: list[Progress] = []
    with listening(seen.append), pytest.raises(QualityLimitError):
        refuse.fn(dataset)
    assert not any(one.finished for one in seen)


@pytest.mark.usefixtures("embedded_home")
def test_two_stages_with_equal_parameters_have_results_of_their_own() -> None:
    @stage(cached=False)
    def first_of_two(number: int) -> str:
        return f"first {number}"

    @stage(cached=False)
    def second_of_two(number: int) -> str:
        return f"second {number}"

    @flow(name="two-stages", persist_result=True)
    def both() -> list[str]:
        return [first_of_two(1), second_of_two(1), first_of_two(1), second_of_two(2)]

    assert both() == ["first 1", "second 1", "first 1", "second 2"]


def test_what_a_stage_counts_is_its_own_choice(dataset: DatasetRef) -> None:
    @stage(unit="models")
    def compare(dataset: DatasetRef) -> int:
        stage_progress()(1, 2, "base")
        return 2

    seen: list[Progress] = []
    with listening(seen.append):
        assert compare.fn(dataset) == 2
    assert [(one.done, one.total, one.unit) for one in seen] == [(0, 0, "models"), (1, 2, "models"), (2, 2, "models")]


def test_only_a_stage_at_work_has_progress() -> None:
    with pytest.raises(LookupError):
        stage_progress()


def test_a_stage_does_its_work_when_it_is_called() -> None:
    def generate(dataset: DatasetRef) -> Iterator[DatasetRef]:
        yield dataset

    async def await_nothing(dataset: DatasetRef) -> DatasetRef:
        return dataset

    for function in (generate, await_nothing):
        with pytest.raises(AssertionError):
            stage()(function)
