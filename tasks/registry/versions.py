"""Candidates as MLflow model versions, and back: a version holds all that is needed to benchmark and serve it again.

A version holds the adapter, the code that serves it, a model card, and tags: references to base model, adapter and merged
model (so that the champion can be loaded again next quarter), digests of everything that it descends from, the decision
with its figures, and the base model's licence. The base model is a reference, not a copy: it is thirty times larger.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import mlflow.pyfunc
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array, Object, Property

from tasks.contracts.evaluation import BenchmarkReport, PromotionDecision
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.registry import Champion, RegisteredVersion, Verdict
from tasks.contracts.run import RunFindings
from tasks.contracts.training import BaseLanguageModel, StartingPoint, TrainingResult
from tasks.core.addresses import without_secrets
from tasks.core.ensuring import AlreadyThereError
from tasks.core.errors import RegistryError
from tasks.core.paging import every_token
from tasks.core.scratch import scratch_folder
from tasks.core.storage import run_store, sha256_of_files, sha256_of_json
from tasks.registry.card import model_card
from tasks.registry.served_code import write_served_code
from tasks.registry.verdicts import figures_of, question_of, verdict_tag, verdicts_in
from tasks.tracking import TrackingRun, already_there, open_run, registry_errors

logger = logging.getLogger(__name__)

CHAMPION, CHALLENGER, PREVIOUS, UNDER_ROLLOUT = "champion", "challenger", "previous", "rollout"
_TAG = "perennial."
FILES = "perennial.files"
"""Tag of a version: the SHA-256 of each of its files, code included, by name. It is not in the artifact store."""
_MESSAGES = Array(Object([Property("role", DataType.string), Property("content", DataType.string)]))
_SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(_MESSAGES, "messages")]),
    outputs=Schema([ColSpec(DataType.string, "reply")]),
    # Without a schema of parameters MLflow's server ignores them in silence.
    params=ParamSchema([ParamSpec("max_new_tokens", DataType.long, 256)]),
)
_EXAMPLE = pd.DataFrame({"messages": [[{"role": "user", "content": "Hello"}]]})


@dataclass(frozen=True)
class Candidate:
    """What is registered: a trained adapter with its evidence.

    Attributes:
        model_name: Name of the retrain; its MLflow experiment.
        run_name: Name of the run that trained it.
        trained: The last training step.
        scores: Its benchmark.
        decision: The gate's decision.
        lineage: Digests by name: raw file, snapshot, rows trained on, settings.
        flow_run_url: Where the run is shown, if anywhere.
        merged: The merged model in the store, where the configuration merges.
        reason: Why a person started the run, where one did.
        question: The digest of the settings that decide, see :mod:`tasks.registry.verdicts`.
        started_from: The version that was trained further; None: the base model.
    """

    model_name: str
    run_name: str
    trained: TrainingResult
    scores: BenchmarkReport
    decision: PromotionDecision
    lineage: Mapping[str, str]
    flow_run_url: str | None = None
    merged: FolderRef | None = None
    reason: str | None = None
    question: str = ""
    started_from: StartingPoint | None = None

    @classmethod
    def of(cls, findings: RunFindings) -> Self:
        """The candidate of a run."""
        lineage = {
            "source_sha256": findings.examples.snapshot.source_sha256,
            "snapshot_sha256": findings.examples.snapshot.dataset.sha256,
            "prepared_sha256": findings.examples.dataset.sha256,
            "train_sha256": findings.split.train.sha256,
            "frozen_sha256": findings.benchmark.dataset.sha256,
            "settings_sha256": sha256_of_json(findings.settings),
        }
        if findings.benchmark.fresh:
            lineage["fresh_sha256"] = findings.benchmark.fresh.dataset.sha256
        if findings.preferences:
            lineage["preferences_sha256"] = findings.preferences.dataset.sha256
        return cls(
            model_name=findings.model_name,
            run_name=findings.run_name,
            trained=findings.trained,
            scores=findings.benchmark,
            decision=findings.decision,
            lineage=lineage,
            flow_run_url=findings.flow_run_url,
            merged=findings.merged.folder if findings.merged else None,
            reason=findings.reason,
            question=question_of(findings.settings),
            started_from=findings.sft.started_from,
        )

    @property
    def identity(self) -> str:
        """A digest of base, adapter and frozen set: the same model on the same examples is the same candidate."""
        return sha256_of_json(
            {
                "base": self.trained.base.folder.sha256,
                "adapter": self.trained.adapter.sha256,
                "frozen": self.scores.dataset.sha256,
            }
        )


def register(client: Any, name: str, candidate: Candidate) -> RegisteredVersion:
    """The candidate's version in the registry, made now or found from before; it becomes ``challenger``.

    A kill leaves at worst an MLflow run without a version, and the next call makes both again: a version and all its tags
    are made in one step.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model.
        candidate: What to register.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    with registry_errors(f"registered model {name}"):
        with suppress(AlreadyThereError):
            make_registered_model(client, name)
        version = _find_version(client, name, candidate.identity)
        if version is None:
            version = _create_version(client, name, candidate)
        else:
            logger.info("registry: %s version %s is this candidate already; it is not registered twice", name, version)
            tags = dict(client.get_model_version(name, version).tags)
            for key, value in (_decision_tags(candidate, tags) | _merged_tag(candidate)).items():
                client.set_model_version_tag(name, version, key, value)
        aliases = aliases_of(client, name)
        if version not in (aliases.get(CHAMPION), aliases.get(UNDER_ROLLOUT)):
            client.set_registered_model_alias(name, CHALLENGER, version)
        return describe(client, name, version)


def describe(client: Any, name: str, version: str) -> RegisteredVersion:
    """A version with its present aliases."""
    found = client.get_model_version(name, version)
    return RegisteredVersion(
        name=name,
        version=str(version),
        run_id=found.run_id or "",
        source_uri=found.source,
        aliases=tuple(sorted(found.aliases)),
    )


def verdicts_on(client: Any, name: str, candidate: Candidate) -> tuple[Verdict, ...]:
    """The verdicts so far on a candidate that may be registered already, oldest first.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    with registry_errors(f"registered model {name}"):
        version = _find_version(client, name, candidate.identity)
        return verdicts_in(tags_of(client, name, version) or {}) if version is not None else ()


def champion_of(client: Any, name: str) -> Champion | None:
    """The champion with all that is needed to load it again; None while there is none.

    Raises:
        RegistryError: The alias points to a version that Perennial did not register.
    """
    with registry_errors(f"registered model {name}"):
        version = aliases_of(client, name).get(CHAMPION)
        if version is None:
            return None
        tags = client.get_model_version(name, version).tags
        if f"{_TAG}base" not in tags or f"{_TAG}adapter" not in tags:
            raise RegistryError(
                f"registered model {name}, version {version}",
                "the alias champion on a version without the tags perennial.base and perennial.adapter",
                "a version that Perennial registered",
                "Move the alias champion to such a version, or remove the alias to start again.",
            )
        return Champion(
            version=describe(client, name, version),
            base=BaseLanguageModel.model_validate_json(tags[f"{_TAG}base"]),
            adapter=FolderRef.model_validate_json(tags[f"{_TAG}adapter"]),
        )


def started_from(tags: Mapping[str, str]) -> StartingPoint | None:
    """The version that a version was trained from, by its tags; None: the base model."""
    point = tags.get(f"{_TAG}started_from")
    return StartingPoint.model_validate_json(point) if point else None


def training_rows_of(client: Any, name: str) -> str | None:
    """SHA-256 of the rows that the champion was trained on; None while there is no champion."""
    with registry_errors(f"registered model {name}"):
        version = aliases_of(client, name).get(CHAMPION)
        tags = client.get_model_version(name, version).tags if version is not None else {}
    return tags.get(f"{_TAG}train_sha256")


def needed_references(client: Any, name: str) -> list[tuple[str, FolderRef, bool]]:
    """The folders that versions with an alias need from the store: which version needs it, and whether it has a copy.

    Raises:
        RegistryError: MLflow does not answer.
    """
    needed: list[tuple[str, FolderRef, bool]] = []
    with registry_errors(f"registered model {name}"):
        for alias, version in sorted(aliases_of(client, name).items()):
            tags, owner = client.get_model_version(name, version).tags, f"{name} version {version} ({alias})"
            if f"{_TAG}base" in tags:
                needed.append((owner, BaseLanguageModel.model_validate_json(tags[f"{_TAG}base"]).folder, False))
            folders = ((tags[f"{_TAG}{part}"], part) for part in ("adapter", "merged") if f"{_TAG}{part}" in tags)
            needed += [(owner, FolderRef.model_validate_json(folder), part == "adapter") for folder, part in folders]
    return needed


def aliases_of(client: Any, name: str) -> dict[str, str]:
    """Versions by alias; empty when there is no such registered model."""
    found = _find(client.get_registered_model, name)
    return {str(alias): str(version) for alias, version in found.aliases.items()} if found else {}


def model_tags_of(client: Any, name: str) -> dict[str, str] | None:
    """The tags of a registered model, or None where there is none."""
    found = _find(client.get_registered_model, name)
    return dict(found.tags) if found else None


def tags_of(client: Any, name: str, version: str) -> dict[str, str] | None:
    """The tags of a version, or None where it was deleted."""
    found = _find(client.get_model_version, name, version)
    return dict(found.tags) if found else None


def _find(read: Callable[..., Any], *arguments: str) -> Any:
    """What MLflow returns, or None where it does not exist."""
    try:
        return read(*arguments)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def make_registered_model(client: Any, name: str, tags: Mapping[str, str] | None = None) -> None:
    """Makes the registered model, with ``tags`` in the same step.

    Raises:
        AlreadyThereError: It exists.
    """
    with already_there():
        description = "Retrained by Perennial: serve the alias champion."
        client.create_registered_model(name, tags=dict(tags or {}), description=description)


def _find_version(client: Any, name: str, identity: str) -> str | None:
    query = f"name = '{name}' and tags.`{_TAG}identity` = '{identity}'"
    pages = every_token(lambda size, token: client.search_model_versions(query, max_results=size, page_token=token))
    version = next(pages, None)
    return str(version.version) if version else None


def _create_version(client: Any, name: str, candidate: Candidate) -> str:
    """A new MLflow run with scores and files, then the version that points to them."""
    trained, decision = candidate.trained, candidate.decision
    tags = {
        f"{_TAG}stage": "candidate",
        f"{_TAG}identity": candidate.identity,
        f"{_TAG}training_run_id": trained.mlflow_run_id or "",
        **{f"{_TAG}{key}": value for key, value in candidate.lineage.items()},
    }
    with open_run(candidate.model_name, candidate.run_name, tags) as run:
        run.log_params({"base_model": trained.base.name, "method": trained.method, "policy_outcome": decision.outcome})
        for arm in candidate.scores.arms:
            run.log_metrics({f"{arm.arm}/{score.name}": score.value for score in arm.scores if score.value is not None})
        _log_test_set(run, "benchmark", candidate.scores.dataset)
        if fresh := candidate.scores.fresh:
            _log_test_set(run, "fresh", fresh.dataset)
            for arm in fresh.arms:
                scores = {f"fresh/{arm.arm}/{score.name}": score.value for score in arm.scores if score.value is not None}
                run.log_metrics(scores)
        run.log_dataset(trained.dataset, "training")
        with scratch_folder("version") as folder:
            _write_model(folder / "model", candidate)
            files = sha256_of_files(folder / "model")
            client.log_artifacts(run.run_id, str(folder / "model"), "model")
    source = f"{client.get_run(run.run_id).info.artifact_uri}/model"
    version = client.create_model_version(
        name,
        source,
        run.run_id,
        tags={
            **tags,
            f"{_TAG}base": trained.base.model_dump_json(),
            f"{_TAG}adapter": trained.adapter.model_dump_json(),
            FILES: json.dumps(files, sort_keys=True),
            f"{_TAG}license": trained.base.license,
            f"{_TAG}run_name": candidate.run_name,
            f"{_TAG}flow_run_url": without_secrets(candidate.flow_run_url or ""),
            **({f"{_TAG}reason": candidate.reason} if candidate.reason else {}),
            **({f"{_TAG}started_from": candidate.started_from.model_dump_json()} if candidate.started_from else {}),
            **_decision_tags(candidate, {}),
            **_merged_tag(candidate),
        },
        description=f"{trained.method} adapter on {trained.base.name}, from {candidate.run_name}: {decision.outcome}.",
    )
    return str(version.version)


def _log_test_set(run: TrackingRun, name: str, dataset: DatasetRef) -> None:
    """Records the test set of the scores: as an input of the run, and its reference as a file."""
    run.log_dataset(dataset, name)
    run.log_artifact_bytes(f"test_sets/{name}.json", dataset.model_dump_json(indent=2).encode())


def _merged_tag(candidate: Candidate) -> dict[str, str]:
    """The reference to the merged model, when there is one; like the base model it is not copied."""
    return {f"{_TAG}merged": candidate.merged.model_dump_json()} if candidate.merged else {}


def _decision_tags(candidate: Candidate, tags: Mapping[str, str]) -> dict[str, str]:
    """The decision and its figures, and its place among the verdicts in the version's present tags."""
    decision = candidate.decision
    return {
        f"{_TAG}decision": decision.outcome,
        f"{_TAG}reasons": " ".join(decision.reasons),
        **{f"{_TAG}gate.{name}": figures for name, figures in figures_of(decision).items()},
        **verdict_tag(tags, candidate.run_name, candidate.question, decision),
    }


def _write_model(folder: Path, candidate: Candidate) -> None:
    """Writes the version's files: adapter, serving code, signature, requirements, model card."""
    trained = candidate.trained
    store = run_store()
    adapter = store.fetch_folder(trained.adapter)
    packages = ("torch", "transformers", "peft", "safetensors", "pandas", "jinja2")
    with (
        scratch_folder("served-code") as code,
        warnings.catch_warnings(record=True),
    ):  # MLflow requests type annotations although it is given a signature
        rendering = write_served_code(code)
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"adapter": str(adapter)},
            code_paths=[str(rendering)],
            signature=_SIGNATURE,
            input_example=(_EXAMPLE, {"max_new_tokens": 64}),
            pip_requirements=["mlflow", *(f"{package}=={importlib.metadata.version(package)}" for package in packages)],
            model_config={
                "base_model": without_secrets(store.uri_of(trained.base.folder)),
                "base_model_sha256": trained.base.folder.sha256,
                "base_files": store.digests_of(trained.base.folder),
                "adapter_files": store.digests_of(trained.adapter),
                "rendering": rendering.name,
            },
        )
    (folder / "MODEL_CARD.md").write_text(
        model_card(candidate.run_name, trained, candidate.scores, candidate.decision, candidate.lineage), encoding="utf-8"
    )
