"""A stage's result is kept by the content of what it depends on, and never when its files are gone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from pydantic import BaseModel

from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef
from tasks.contracts.training import SearchTrial
from tasks.core.cache_key import cached_measurements, content_of, references_in
from tasks.core.errors import IntegrityError
from tasks.core.results import CONTRACTS
from tasks.core.stage import stage
from tasks.core.storage import open_store, run_store
from tasks.pii.config import PiiConfig

calls: list[str] = []


class Settings(BaseModel):
    shout: bool = False


class Ceiling(BaseModel):
    excluded_from_cache_key: ClassVar[bool] = True
    max_cost: float


@stage()
def copy(dataset: DatasetRef, settings: Settings, ceiling: Ceiling) -> DatasetRef:
    calls.append(dataset.sha256)
    store = run_store()
    return store.write_rows(store.read_rows(dataset), kind="messages", parents=[dataset], passed=["copied"])


@flow
def copy_flow(dataset: DatasetRef, settings: Settings, max_cost: float = 1) -> DatasetRef:
    return copy(dataset, settings, Ceiling(max_cost=max_cost))


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    row = {"id": str(tmp_path), "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}
    return open_store(tmp_path / "store").write_rows([row], kind="messages")


@pytest.mark.usefixtures("embedded_home")
def test_the_same_content_is_worked_on_once_and_changed_settings_again(dataset: DatasetRef) -> None:
    calls.clear()
    first = copy_flow(dataset, Settings())
    assert copy_flow(dataset, Settings()) == first
    assert len(calls) == 1
    copy_flow(dataset, Settings(), max_cost=2)
    assert len(calls) == 1, "a ceiling decides whether a stage may run, not what comes out"
    copy_flow(dataset, Settings(shout=True))
    assert len(calls) == 2


@pytest.mark.usefixtures("embedded_home")
def test_a_kept_result_whose_file_is_gone_is_made_again(dataset: DatasetRef) -> None:
    calls.clear()
    first = copy_flow(dataset, Settings())
    Path(run_store().uri_of(first).removeprefix("file://")).unlink()
    assert copy_flow(dataset, Settings()) == first
    assert len(calls) == 2
    assert copy_flow(dataset, Settings()) == first
    assert len(calls) == 2


def test_what_a_setting_points_to_is_content(tmp_path: Path) -> None:
    class DenyList(BaseModel):
        path: str

        def external_fingerprints(self) -> dict[str, str]:
            return {"terms": Path(self.path).read_text()}

    terms = tmp_path / "terms.txt"
    terms.write_text("falcon")
    before = content_of(DenyList(path=str(terms)))
    terms.write_text("falcon, heron")
    assert content_of(DenyList(path=str(terms))) != before


def test_a_rotated_key_changes_what_the_scrubber_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    contents = []
    for key in ("one", "one", "two", ""):
        monkeypatch.setenv("PERENNIAL_PII_KEY", key)
        contents.append(content_of(PiiConfig(operator="surrogate")))
    assert contents[0] == contents[1]
    assert contents[0] != contents[2]
    assert contents[3]["outside"] == {}
    assert "two" not in str(contents[2])


def test_content_is_hashes_not_places(dataset: DatasetRef) -> None:
    earlier = DatasetRef.model_validate({**dataset.model_dump(), "uri": "file:///elsewhere"})
    assert earlier == dataset, "a record of an earlier release held a place"
    assert content_of({"a": [dataset]}) == {"a": [dataset.sha256]}
    assert list(references_in({"a": [dataset, {"b": earlier}]})) == [dataset, earlier]


def test_what_was_measured_of_the_same_content_is_not_measured_again(tmp_path: Path) -> None:
    store, asked = open_store(tmp_path / "store"), []

    def measure() -> tuple[Measurement, ...]:
        asked.append(len(asked))
        return (Measurement(name="rate", value=0.1 + 0.2, low=None, high=0.5, num_samples=7),)

    content = {"version": 1, "model": "f" * 64}
    first = cached_measurements(store, "probes", content, measure)
    assert cached_measurements(open_store(tmp_path / "store"), "probes", dict(reversed(content.items())), measure) == first
    assert asked == [0]
    for folder, other in (("probes", {**content, "version": 2}), ("tasks", content)):
        assert cached_measurements(store, folder, other, measure) == first
    assert asked == [0, 1, 2]


def test_a_record_brings_back_contracts_and_calls_nothing_else() -> None:
    trial = SearchTrial(outcome="complete", learning_rate=0.5, r=8)
    kept = CONTRACTS.dumps({"trials": [trial], "fields": 1})
    assert CONTRACTS.loads(kept) == {"trials": [trial], "fields": 1}
    for name in ("os.system", "tasks.core.storage.Store", "tasks.core.results.encode_contract", 7):
        forged = json.dumps({"contract": name, "fields": {}}).encode()
        with pytest.raises(IntegrityError, match="in place of a contract"):
            CONTRACTS.loads(forged)


@flow(persist_result=True, result_serializer=CONTRACTS)
def told_flow() -> SearchTrial:
    return SearchTrial(outcome="complete", learning_rate=0.5, r=8)


@pytest.mark.usefixtures("embedded_home")
def test_a_flow_that_is_done_comes_back_as_the_contract_it_returned() -> None:
    state = told_flow(return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id).state
    assert found is not None
    assert found.result() == SearchTrial(outcome="complete", learning_rate=0.5, r=8), "what a Retry of its parent gets"
