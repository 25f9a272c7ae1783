"""Models as files: `perennial deploy models/` makes the deployments of each file from one template.

A file is the model's configuration, with the section ``operate``. The template, ``deployments/model.yaml``, lists the
deployments of each model, with marks such as ``{name}``, and those that all models share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.support.config import RetrainConfig, load_settings, read_document, settings_of
from perennial.operations.deployment_file import (
    DEFAULT_QUEUE,
    Deployment,
    FileSet,
    Source,
    identity_of,
    reject_namesakes,
)
from tasks.core.errors import ConfigError
from tasks.core.pages import artifact_key

TEMPLATE = Path("deployments/model.yaml")
_MARK = re.compile(r"\{([a-z_]+)\}")
_SUFFIXES = (".yaml", ".yml")
_ALERT_FLOW = "retrain_on_alert"
_QUEUES = {"high": "high", "normal": DEFAULT_QUEUE, "low": "low"}


@dataclass(frozen=True)
class ModelFile:
    """One model.

    Attributes:
        path: Its file.
        document: The file's content.
        config: The content as settings.
    """

    path: Path
    document: Mapping[str, Any]
    config: RetrainConfig


class ModelTemplate(BaseModel):
    """The template's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    each_model: tuple[dict[str, Any], ...] = Field(min_length=1)
    shared: tuple[Deployment, ...] = ()


def read_models(paths: Sequence[Path]) -> tuple[ModelFile, ...]:
    """The models in files and folders, by path; the faults of all files are reported together.

    Args:
        paths: YAML files, and folders of them.

    Raises:
        ConfigError: A file has faults, a folder has no files, or two files would write the same names.
    """
    models, faults = readable_models(paths)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        found = "".join(f"\n{error.where}: {error.found.rstrip()}" for error in faults)
        todo = "Correct them; nothing was deployed."
        raise ConfigError(f"{len(faults)} files of models", found, "configurations of models", todo)
    _reject_shared_names(models)
    return tuple(models)


def readable_models(paths: Sequence[Path]) -> tuple[list[ModelFile], list[ConfigError]]:
    """The models whose files have no faults, by path, and the faults of the others.

    Raises:
        ConfigError: A folder has no files.
    """
    models: list[ModelFile] = []
    faults: list[ConfigError] = []
    for path in _files_in(paths):
        try:
            document = read_document(path)
            models.append(ModelFile(path, document, settings_of(document, RetrainConfig, str(path))))
        except ConfigError as error:
            faults.append(error)
    return models, faults


def deployments_of(paths: Sequence[Path], template: Path = TEMPLATE) -> FileSet:
    """The deployments of all models, and those that they share.

    Args:
        paths: YAML files, and folders of them; a folder's file that is gone is noticed.
        template: The file that lists the deployments of a model.

    Raises:
        ConfigError: See :func:`read_models`; or the template has faults, or makes two deployments of one name.
    """
    parts = load_settings(template, ModelTemplate)
    sources = [Source(template, parts.shared)]
    for model in read_models(paths):
        made = tuple(_expand(parts.each_model, model, template))
        sources.append(Source(model.path, made, model.config.registry.registered_name))
    reject_namesakes(tuple(sources))
    folders = tuple(identity_of(path) for path in paths if path.is_dir())
    return FileSet(tuple(sources), template.parent / "pools", folders)


def _files_in(paths: Sequence[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for path in paths:
        found = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES) if path.is_dir() else [path]
        if not found:
            todo = "Name the folder that holds them. To remove every model, delete its deployments in Prefect."
            raise ConfigError(str(path), "no file that ends in .yaml", "one file for each model", todo)
        files.update(dict.fromkeys(found))
    return list(files)


def _reject_shared_names(models: Sequence[ModelFile]) -> None:
    """Rejects two models that would write the same names.

    The experiment, frozen benchmark, reviews and ``latest`` go by the model's name, the versions by the registered name, and
    the pages in Prefect by a key in which some characters are equal.
    """
    uses: tuple[tuple[str, Callable[[RetrainConfig], str]], ...] = (
        ("name", lambda config: config.name),
        ("registered model", lambda config: config.registry.registered_name),
        ("key of pages in Prefect", lambda config: artifact_key("", config.registry.registered_name)),
        ("key of pages in Prefect", lambda config: artifact_key("", config.name)),
    )
    for use, name_of in uses:
        seen: dict[str, Path] = {}
        for model in models:
            name = name_of(model.config)
            if name in seen:
                raise ConfigError(
                    str(model.path),
                    f"the {use} {name!r}, which {seen[name]} has too",
                    "names that no other model writes",
                    "Change `name` or `registry.model_name` in one of them.",
                )
            seen[name] = model.path


def _expand(entries: Sequence[Mapping[str, Any]], model: ModelFile, template: Path) -> Iterator[Deployment]:
    """The deployments of one model."""
    operate, name = model.config.operate, model.config.name
    own = (f"model:{name}", *((f"owner:{operate.owner}",) if operate.owner else ()), *operate.tags)
    document = _as_json(model.document)
    marks: dict[str, Any] = {
        "name": name,
        "config": document,
        "registration": {**document.get("registry", {}), "model_name": model.config.registry.registered_name},
        "policy": operate.policy.model_dump(mode="json", exclude_unset=True),
        "schedules": [schedule.model_dump(mode="json") for schedule in operate.schedules],
        "checks": [schedule.model_dump(mode="json") for schedule in operate.checks],
        "queue": _QUEUES[operate.priority],
    }
    _route_alerts(document, model.config, entries, marks)
    for number, entry in enumerate(entries):
        where = f"{template}, each_model.{number}"
        needs = entry.get("needs")
        if needs is not None and needs not in RetrainConfig.model_fields:
            known = "a section of the configuration, such as monitoring"
            raise ConfigError(f"{where}.needs", "no such section", known, "Correct it.")
        if needs is not None and getattr(model.config, needs) is None:
            continue
        filled = _filled({key: value for key, value in entry.items() if key != "needs"}, marks, where)
        deployment = settings_of(filled, Deployment, f"{where}, for {model.path}")
        yield deployment.model_copy(update={"tags": (*deployment.tags, *own)})


def _route_alerts(
    document: dict[str, Any], config: RetrainConfig, entries: Sequence[Mapping[str, Any]], marks: Mapping[str, Any]
) -> None:
    """Sends the alerts of the model's checks to its own deployment, unless the file names another."""
    if config.monitoring is None or "deployment" in config.monitoring.alert.model_fields_set:
        return
    for entry in entries:
        if str(entry.get("entrypoint", "")).endswith(f":{_ALERT_FLOW}"):
            name = _filled(entry.get("name"), marks, "name")
            alert = document["monitoring"].setdefault("alert", {})
            alert["deployment"] = f"{_ALERT_FLOW.replace('_', '-')}/{name}"


def _filled(node: Any, marks: Mapping[str, Any], where: str) -> Any:
    """A part of the template with its marks replaced; a text that is one mark alone becomes the mark's value."""
    if isinstance(node, dict):
        return {key: _filled(value, marks, f"{where}.{key}") for key, value in node.items()}
    if isinstance(node, list):
        return [_filled(value, marks, where) for value in node]
    if not isinstance(node, str):
        return node
    for mark in _MARK.findall(node):
        if mark not in marks:
            raise ConfigError(where, "an unknown mark in braces", f"one of {', '.join(marks)}", "Correct it.")
        if node == f"{{{mark}}}":
            return marks[mark]
        if not isinstance(marks[mark], str):
            todo = "Let the mark be the whole value."
            raise ConfigError(where, f"the mark {mark} inside a text", "a mark that is a text", todo)
    return _MARK.sub(lambda match: marks[match[1]], node)


def _as_json(document: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a YAML document as JSON, as Prefect keeps it: dates become texts."""
    copy: dict[str, Any] = json.loads(json.dumps(document, default=str))
    return copy
