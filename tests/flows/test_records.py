"""A recorded result is data: whatever a planted record names, nothing of it is imported or run."""

from __future__ import annotations

import base64
import json
import lzma
import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import prefect
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.results import ResultStore

from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef
from tasks.core.errors import IntegrityError
from tasks.core.results import CONTRACTS
from tasks.core.stage import stage


class Command:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def planted(target: Path, kind: str) -> dict[str, Any]:
    """The record of an attacker who can write into the storage of results."""
    pickled = base64.encodebytes(pickle.dumps(Command(target))).decode()
    compressed = base64.encodebytes(lzma.compress(pickled.encode())).decode()
    ours = CONTRACTS.model_dump()
    call = {**ours, "object_decoder": "os.mkdir"}
    unpickler = {**ours, "jsonlib": "planted_module"}
    serializer, result = {
        "pickle": ({"type": "pickle"}, pickled),
        "pickle of a module": ({"type": "pickle", "picklelib": "planted_module"}, pickled),
        "compressed pickle": ({"type": "compressed/pickle"}, compressed),
        "compressed": ({"type": "compressed", "serializer": {"type": "pickle"}}, compressed),
        "json with a decoder": (call, json.dumps({"path": str(target)})),
        "json of a module": (unpickler, "{}"),
        "prefect's json": ({"type": "json"}, json.dumps({"__class__": "planted_module.Thing", "data": {}})),
        "none": (None, pickled),
    }[kind]
    return {"metadata": {"storage_key": "x"} | ({"serializer": serializer} if serializer else {}), "result": result}


KINDS = (
    "pickle", "pickle of a module", "compressed pickle", "compressed", "json with a decoder", "json of a module",
    "prefect's json", "none",
)  # fmt: skip


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is made when a record runs anything; a module that says so when it is imported lies on the path."""
    path = tmp_path / "it-ran"
    (tmp_path / "planted_module.py").write_text(f"import os\nos.mkdir({str(path)!r})\nloads = dumps = Thing = dict\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "planted_module", raising=False)
    return path


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize("kind", KINDS)
def test_a_record_that_names_its_reader_is_refused_by_name(target: Path, kind: str) -> None:
    (Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"])).mkdir(parents=True, exist_ok=True)
    (Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"]) / "planted").write_text(json.dumps(planted(target, kind)))
    with pytest.raises(IntegrityError, match="serializer"):
        ResultStore().read("planted")
    assert not target.exists()


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize(
    "content",
    [
        {"serializer": {"type": "pickle"}, "data": "x", "prefect_version": "2.20"},
        {"metadata": {}, "result": "{}"},
        {"metadata": {"serializer": {"type": "nobody-knows-it"}}, "result": "{}"},
        {"metadata": None, "result": None},
    ],
)
def test_a_record_of_another_release_or_library_is_refused(content: Any) -> None:
    (Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"])).mkdir(parents=True, exist_ok=True)
    (Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"]) / "other").write_text(json.dumps(content))
    with pytest.raises(IntegrityError, match="the serializer"):
        ResultStore().read("other")
    assert not ResultStore().exists("other")


@pytest.mark.parametrize(
    "result",
    [
        {"__class__": "planted_module.Thing", "data": {}},
        {"__exc_type__": "planted_module.Thing", "message": "x"},
        {"deep": [{"contract": "planted_module.Thing", "fields": {}}]},
        {"contract": "tasks.core.stage.Store", "fields": {}},
        {"contract": "subprocess.Popen", "fields": {"args": "true"}},
    ],
)
def test_our_own_reader_imports_nothing(target: Path, result: Any) -> None:
    data = json.dumps(result).encode()
    if "contract" in data.decode():
        with pytest.raises(IntegrityError, match="in place of a contract"):
            CONTRACTS.loads(data)
    else:
        assert CONTRACTS.loads(data) == result, "a dictionary like any other"
    assert not target.exists()


calls: list[str] = []


@stage()
def measure_for_test(name: str) -> Measurement:
    calls.append(name)
    return Measurement(name=name, value=1.0)


@flow(persist_result=True, result_serializer=CONTRACTS)
def measuring(name: str) -> Measurement:
    return measure_for_test(name)


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize("kind", ["pickle", "none"])
def test_a_stage_whose_record_was_replaced_runs_again(target: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    calls.clear()
    folder = Path(os.environ["PREFECT_LOCAL_STORAGE_PATH"])
    before = set(folder.glob("measure_for_test-*"))
    measuring(kind)
    (record,) = set(folder.glob("measure_for_test-*")) - before
    record.write_text(json.dumps(planted(target, kind)))
    ResultStore().cache.clear()
    measuring(kind)
    assert (calls, target.exists()) == ([kind, kind], False)
    assert "a recorded result" in caplog.text
    measuring(kind)
    assert len(calls) == 2, "the honest record is back"


@pytest.mark.usefixtures("embedded_home")
def test_a_flow_whose_record_was_replaced_is_refused(target: Path) -> None:
    state = measuring("kept", return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id).state
    assert found is not None
    Path(found.data.storage_key).write_text(json.dumps(planted(target, "pickle")))
    with pytest.raises(IntegrityError, match="'pickle'"):
        found.result(retry_result_failure=False)
    assert not target.exists()


@flow(persist_result=True, result_serializer=CONTRACTS)
def failing() -> DatasetRef:
    raise IntegrityError("a file", "other bytes", "its bytes", "Write it again.")


@pytest.mark.usefixtures("embedded_home")
def test_a_failure_comes_back_in_its_own_words() -> None:
    state = failing(return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        found = client.read_flow_run(state.state_details.flow_run_id).state
    assert found is not None
    with pytest.raises(Exception, match=re.escape("a file: found other bytes; expected its bytes")):
        found.result(retry_result_failure=False)


def test_prefect_reads_results_through_this_door_alone() -> None:
    """A new place in Prefect that lets a record choose its reader makes this fail, and has to be looked at."""
    root = Path(prefect.__file__).parent
    readers = {
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if re.search(r"serializer\.loads\(", path.read_text(encoding="utf-8"))
    }
    assert readers == {"_internal/result_records.py", "serializers.py"}
