"""The configuration of a retrain as one typed tree; each section belongs to the stage that reads it."""

from __future__ import annotations

import difflib
import functools
import json
import re
import typing
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from flows.support.operating import OperateConfig
from tasks.alerts import BridgeConfig
from tasks.benchmark import BenchmarkConfig, LatencyConfig
from tasks.bias import BiasConfig
from tasks.confidential import ConfidentialConfig
from tasks.contracts.base import FrozenModel
from tasks.core.documents import parse_yaml, read_text
from tasks.core.errors import ConfigError
from tasks.core.storage import open_store
from tasks.core.term_lists import KeptList, by_reference, listings_in
from tasks.deduplication import DeduplicationConfig
from tasks.dossier import DossierConfig
from tasks.groundtruth import GroundTruthConfig
from tasks.guard import GuardRulesConfig
from tasks.ingest import LogConfig, SourceConfig
from tasks.labels import LabelAuditConfig
from tasks.monitoring import AlertRuleConfig, DriftConfig, SignalConfig
from tasks.pii import PiiConfig
from tasks.promotion import PromotionConfig
from tasks.prompting import FitConfig
from tasks.pruning import PruningConfig
from tasks.redteam import RedTeamConfig
from tasks.registry import RegistryConfig
from tasks.splitting import SplitConfig
from tasks.training import TrainingConfig
from tasks.validation import ValidationConfig


class Section(FrozenModel):
    """Base of every section: frozen; an unknown key is an error."""


class PrepareConfig(Section):
    """How raw rows become training rows; the same for examples and for preference pairs."""

    validation: ValidationConfig = Field(ValidationConfig(), description="Great Expectations: the expectations on rows.")
    deduplication: DeduplicationConfig = Field(DeduplicationConfig(), description="Exact and near duplicates.")
    confidential: ConfidentialConfig = Field(ConfidentialConfig(), description="Secrets and deny-listed terms.")
    pii: PiiConfig = Field(PiiConfig(), description="Personal data: what is detected and what replaces it.")
    labels: LabelAuditConfig = Field(
        LabelAuditConfig(), description="Label noise and replies that do not match their prompt."
    )
    bias: BiasConfig = Field(BiasConfig(), description="Representation and outcome differences across groups.")
    splitting: SplitConfig = Field(SplitConfig(), description="Frozen test set, decontamination, train and validation rows.")


class MixedSource(Section):
    """A further data set to train on together with `examples`, prepared like them, without rows of their test sets."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$", description="Its name in the mixture, and the prefix of its rows' ids."
    )
    source: SourceConfig = Field(description="Where its rows come from.")
    weight: float = Field(
        1.0,
        gt=0,
        le=100,
        description="How often each of its rows is used, relative to a row of `examples`: 0.25 is a random quarter of them, "
        "2 is every row twice.",
    )


class MonitoringConfig(Section):
    """Production monitoring: `perennial check`, and the deployment `check-production`."""

    log: LogConfig = Field(description="The production log.")
    window_hours: int = Field(
        24, ge=1, le=2_160, description="Length of a window. Checks may be more frequent; windows then overlap."
    )
    delay_minutes: int = Field(
        5,
        ge=0,
        le=10_080,
        description="A window ends at the last full hour that is this long before the scheduled time: logs arrive late.",
    )
    signals: SignalConfig = Field(SignalConfig(), description="Limits of feedback, escalation, refusal, error, latency.")
    drift: DriftConfig = Field(DriftConfig(), description="Tests of the requests against the champion's training rows.")
    alert: AlertRuleConfig = Field(AlertRuleConfig(), description="When violated signals become an alert.")


class RetrainConfig(Section):
    """One retrain: the sources of the rows, their preparation, the training, and the criteria for promotion."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9-]{0,62}$",
        description="Name of the model: its registered model, its frozen benchmark and its MLflow experiment.",
    )
    store: str = Field(
        ".perennial/store", description="Where data sets, models and dossiers are kept: a folder, or s3:// storage."
    )
    examples: SourceConfig = Field(description="The rows to train on.")
    mixture: tuple[MixedSource, ...] = Field((), description="Further data sets for supervised training, with weights.")
    preferences: SourceConfig | None = Field(None, description="Preference pairs, for DPO or KTO; `null` skips both.")
    prepare: PrepareConfig = Field(PrepareConfig(), description="The data stages.")
    fit: FitConfig = Field(FitConfig(), description="Prompting baselines: whether training is needed, measured before it.")
    training: TrainingConfig = Field(TrainingConfig(), description="Base model, supervised and preference training.")
    benchmark: BenchmarkConfig = Field(BenchmarkConfig(), description="How the models are compared.")
    redteam: RedTeamConfig = Field(RedTeamConfig(), description="The attacks on the models.")
    promotion: PromotionConfig = Field(PromotionConfig(), description="What a candidate must prove.")
    registry: RegistryConfig = Field(RegistryConfig(), description="How versions are registered.")
    truth: GroundTruthConfig = Field(
        GroundTruthConfig(), description="Planted ground truth to measure the stages against, if any."
    )
    guard: GuardRulesConfig = Field(
        GuardRulesConfig(), description="Filters around the served model, for `perennial guard`."
    )
    dossier: DossierConfig = Field(DossierConfig(), description="The evidence page.")
    monitoring: MonitoringConfig | None = Field(None, description="Production monitoring; `null` disables it.")
    pruning: PruningConfig = Field(PruningConfig(), description="What `perennial prune` keeps, and for how long.")
    operate: OperateConfig = Field(OperateConfig(), description="Schedules, owner and alert policy, for `perennial deploy`.")

    @model_validator(mode="after")
    def _checks_what_it_monitors(self) -> Self:
        if self.operate.checks and self.monitoring is None:
            raise ValueError("operate.checks schedules checks of production, and there is no section monitoring; add it")
        return self

    @model_validator(mode="after")
    def _names_its_approvers_once(self) -> Self:
        listed = self.registry.approvers
        if self.operate.approvers and listed and set(listed) != set(self.operate.approvers):
            raise ValueError("operate.approvers and registry.approvers differ; keep one of them")
        return self

    @model_validator(mode="after")
    def _a_guard_has_its_evidence(self) -> Self:
        guards = self.promotion.safety_guards
        if guards and guards != PromotionConfig().safety_guards and not self.redteam.enabled:
            raise ValueError(
                "promotion.safety_guards guard rates that redteam.enabled: false leaves unmeasured; "
                "turn the red team on, or leave its guards out"
            )
        return self

    @model_validator(mode="after")
    def _a_refresh_has_fresh_rows(self) -> Self:
        if self.promotion.policy == "refresh" and not self.prepare.splitting.fresh_share:
            raise ValueError(
                "promotion.policy: refresh requires fresh rows, and prepare.splitting.fresh_share: 0 holds out none; "
                "raise the share, or choose the policy improve"
            )
        return self

    @model_validator(mode="after")
    def _sources_have_names_of_their_own(self) -> Self:
        names = ["examples", *(source.name for source in self.mixture)]
        if len(set(names)) < len(names):
            raise ValueError("mixture: the names must all differ, and none may be `examples`")
        return self

    @model_validator(mode="after")
    def _names_what_has_no_name(self) -> Self:
        if self.registry.model_name is None:
            object.__setattr__(self, "registry", self.registry.model_copy(update={"model_name": self.name}))
        if self.operate.approvers:
            given = {**self.registry.model_dump(exclude_unset=True), "approvers": self.operate.approvers}
            object.__setattr__(self, "registry", RegistryConfig.model_validate(given))
        if self.fit.metric is None:
            object.__setattr__(self, "fit", self.fit.model_copy(update={"metric": self.promotion.primary_metric}))
        if self.benchmark.price_per_device_hour is None:
            budget = self.training.budget
            prices = {
                "price_per_device_hour": budget.price_per_device_hour,
                "currency": self.benchmark.currency or budget.currency,
            }
            object.__setattr__(self, "benchmark", self.benchmark.model_copy(update=prices))
        if self.promotion.max_latency_increase is not None and self.benchmark.latency is None:
            timed = self.benchmark.model_copy(update={"latency": LatencyConfig()})
            object.__setattr__(self, "benchmark", timed)
        if self.prepare.labels.review_name is None:
            labels = self.prepare.labels.model_copy(update={"review_name": self.name})
            object.__setattr__(self, "prepare", self.prepare.model_copy(update={"labels": labels}))
        return self

    @model_validator(mode="after")
    def _guards_what_it_measures(self) -> Self:
        if self.promotion.max_retention_loss is not None and not self.benchmark.retention:
            raise ValueError("benchmark.retention is off: set promotion.max_retention_loss to null too, or turn it on")
        return self

    def within(self, created_after: datetime | None, created_before: datetime | None) -> Self:
        """The same retrain on the rows created in a window; None keeps the source's own limit.

        Preference pairs and further sources are read whole unless they have a ``created_at_column``.
        """
        window = {
            "created_after": created_after or self.examples.created_after,
            "created_before": created_before or self.examples.created_before,
        }
        changes: dict[str, Any] = {"examples": self.examples.model_copy(update=window)}
        if self.preferences and self.preferences.created_at_column:
            changes["preferences"] = self.preferences.model_copy(update=window)
        changes["mixture"] = tuple(
            part.model_copy(update={"source": part.source.model_copy(update=window)})
            if part.source.created_at_column
            else part
            for part in self.mixture
        )
        return self.model_copy(update=changes)


SettingsT = TypeVar("SettingsT", bound=BaseModel)
MAX_BYTES = 100_000
"""Limit of a configuration as JSON: Prefect stores it with every run, and rejects parameters of more than 512 kB."""
_MAX_FAULTS = 20
_NAME = re.compile(r"[a-z][a-z0-9_]{0,60}")
_FORMS = ("list", "file", "kept")
"""Tags that Pydantic adds to the location of a fault in a list; see :mod:`tasks.core.term_lists`."""
_QUOTED = re.compile(r"'[^']{3,}'|\"[^\"]{3,}\"")


def sent_to_prefect(config: RetrainConfig) -> RetrainConfig:
    """The configuration as a flow parameter: long lists by reference, within the server's size limit.

    Raises:
        ConfigError: It is still too long; the longest setting is named. Or a list's file cannot be read.
        StoreError: The store for the lists cannot be written.
    """
    if any(not isinstance(listing, KeptList) and listing for listing in listings_in(config).values()):
        config = by_reference(config, open_store(config.store))
    document = config.model_dump(mode="json")
    if (size := size_of(document)) > MAX_BYTES:
        path: list[str] = []
        value: Any = document
        while isinstance(value, dict) and value:
            name = max(value, key=lambda key: size_of(value[key]))
            path, value = [*path, name], value[name]
        raise ConfigError(
            _path_of(tuple(path)),
            f"{_kind_of(value)}, in a configuration of {size:,} bytes",
            f"at most {MAX_BYTES:,} bytes in all, since Prefect stores the configuration with every run",
            "Shorten it, or put it into a file where the setting takes one.",
        )
    return config


def size_of(document: Any) -> int:
    """Bytes of a document as JSON."""
    return len(json.dumps(document, default=str).encode())


def load_config(path: Path) -> RetrainConfig:
    """The configuration of a retrain in a YAML file. Relative paths in it are relative to the current folder.

    Raises:
        ConfigError: See :func:`load_settings`.
    """
    return load_settings(path, RetrainConfig)


def load_settings(path: Path, kind: type[SettingsT]) -> SettingsT:
    """The settings in a YAML file. An error names settings and types of values, never a value: some are confidential.

    Raises:
        ConfigError: The file is missing or is not YAML, or has faults; all of them are listed.
    """
    return settings_of(read_document(path), kind, str(path))


def read_document(path: Path) -> Any:
    """The parsed content of a YAML file.

    Raises:
        ConfigError: The file is missing or is not YAML.
    """
    try:
        return parse_yaml(read_text(path))
    except FileNotFoundError as error:
        raise ConfigError(
            str(path), "no such file", "a YAML configuration", "See examples/ for configurations that run."
        ) from error
    except IsADirectoryError as error:
        raise ConfigError(str(path), "a folder", "a YAML file", "Name the file itself.") from error
    except PermissionError as error:
        raise ConfigError(str(path), "a file that may not be read", "a readable file", "Check its permissions.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            str(path), f"bytes that are not UTF-8 at {error.start}", "UTF-8 text", "Save it as UTF-8."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}, column {mark.column + 1}" if mark else str(path)
        problem = _QUOTED.sub("...", str(getattr(error, "problem", None) or "characters that YAML does not allow"))
        raise ConfigError(where, problem, "valid YAML", "Correct the file there.") from None
    except (ValueError, RecursionError) as error:  # a scalar like a date or a number, or deep nesting
        found = f"a value that YAML cannot read ({type(error).__name__})"
        raise ConfigError(str(path), found, "valid YAML", "Look for impossible dates and numbers; quote them.") from None


def settings_of(document: Any, kind: type[SettingsT], where: str) -> SettingsT:
    """The settings in a parsed document.

    Args:
        document: The parsed YAML.
        kind: The class of the settings.
        where: The document's name in an error.

    Raises:
        ConfigError: It is no mapping, or has faults; all of them are listed.
    """
    if not isinstance(document, dict):
        found = "an empty file" if document is None else _kind_of(document)
        raise ConfigError(where, found, "a mapping of settings", "See examples/ for its shape.")
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        raise ConfigError(
            where,
            describe_faults(error, kind),
            "every setting as docs/configuration.md describes it",
            "Correct them and run again.",
        ) from None


def describe_faults(error: ValidationError, kind: Any) -> str:
    """The faults, one per line, without their values.

    Args:
        error: The validation error.
        kind: The expected type.
    """
    faults = [_describe(fault, kind) for fault in error.errors(include_url=False)]
    shown = faults[:_MAX_FAULTS] + ([f"and {len(faults) - _MAX_FAULTS} more"] if len(faults) > _MAX_FAULTS else [])
    listing = "\n".join(f"  - {fault}" for fault in shown)
    return f"{'1 fault' if len(faults) == 1 else f'{len(faults)} faults'}:\n{listing}\n"


def _describe(fault: Any, kind: Any) -> str:
    """One validation fault in a line: the setting's path, the problem, and for an unknown key the most similar known one."""
    if fault["type"] == "extra_forbidden":
        unknown = str(fault["loc"][-1])
        path = ".".join([_path_of(fault["loc"][:-1], kind), unknown if _NAME.fullmatch(unknown) else "?"]).lstrip(".")
        similar = difflib.get_close_matches(str(fault["loc"][-1]), _known_keys(kind, fault["loc"][:-1]), n=1)
        return f"{path}: there is no such setting" + (f"; did you mean `{similar[0]}`?" if similar else "")
    path = _path_of(fault["loc"], kind)
    if fault["type"] == "missing":
        return f"{path}: is required and absent"
    if fault["input"] is None and fault["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{path}: is empty; leave it out, or indent its settings below it"
    similar = difflib.get_close_matches(str(fault["input"]), re.findall(r"'([^']+)'", str(fault["msg"])), n=1)
    hint = f"; did you mean `{similar[0]}`?" if similar and fault["type"] == "literal_error" else ""
    return f"{path}: {fault['msg']} (given {_kind_of(fault['input'])}){hint}"


def _path_of(location: tuple[str | int, ...], kind: Any = None) -> str:
    """Settings and positions; an unknown key may hold confidential text and is replaced by ``?``."""
    known = _names_in(RetrainConfig) | _names_in(BridgeConfig) | _names_in(kind)
    shown = (str(part) if isinstance(part, int) or part in known else "?" for part in location if part not in _FORMS)
    return ".".join(shown)


@functools.cache
def _names_in(model: Any) -> frozenset[str]:
    """The names of all settings of a model and of its nested models; empty for any other type."""
    names: set[str] = set()
    waiting: list[Any] = [model]
    while waiting:
        kind = waiting.pop()
        waiting.extend(typing.get_args(kind))
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.update(kind.model_fields)
            waiting.extend(field.annotation for field in kind.model_fields.values())
    return frozenset(names)


def _kind_of(value: Any) -> str:
    """The type of a value; numbers are shown, texts may be confidential."""
    match value:
        case None | bool() | int() | float():
            return "nothing" if value is None else str(value)
        case str():
            return f"a text of {len(value):,} characters"
        case dict():
            return f"a mapping of {len(value):,}"
        case list() | tuple():
            return f"a list of {len(value):,}"
    return type(value).__name__


def _known_keys(kind: Any, location: tuple[Any, ...]) -> list[str]:
    """The settings that exist at a location in the tree."""
    model: Any = kind
    for part in location:
        if isinstance(part, int):  # a place in a list of settings
            continue
        field = model.model_fields.get(str(part)) if hasattr(model, "model_fields") else None
        if field is None:
            return []
        options = getattr(field.annotation, "__args__", (field.annotation,))
        model = next((option for option in options if hasattr(option, "model_fields")), None)
    return list(model.model_fields) if hasattr(model, "model_fields") else []
