"""The red team on one model as a Prefect task."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tasks.contracts.evaluation import RedTeamArm
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.cache_key import cached_measurements, content_of
from tasks.core.errors import InputError, IntegrityError
from tasks.core.pages import measurement_table
from tasks.core.source_hash import code_sha256, file_of, libraries_of
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import Store, run_store, sha256_of_json
from tasks.core.term_lists import in_full
from tasks.measures.safety import RATES
from tasks.modeling.devices import answering_device
from tasks.redteam.config import RedTeamConfig

if TYPE_CHECKING:
    from tasks.modeling.generation import LoadedModel

_GARAK_VERSION = 2
"""Raised when the same probes would be run or counted differently."""

logger = logging.getLogger(__name__)


@stage()
def check_probes(base: BaseLanguageModel, config: RedTeamConfig) -> BaseLanguageModel:
    """The base model, once its chat template is known to take every probe: the red team attacks hours later.

    Raises:
        InputError: The template refuses a probe.
    """
    from tasks.modeling.resolution import stored_template
    from tasks.redteam.probing import refused_probes

    if config.enabled and (refused := refused_probes(stored_template(base, run_store()), config)):
        raise InputError(
            "redteam.probe_files",
            f"{len(refused)} probes that the base model's chat template refuses, such as {', '.join(refused[:5])}",
            "probes that the base model can be prompted with",
            "Correct the order of roles in these probes (strict templates alternate user and assistant), or leave them out.",
        )
    return base


@stage(
    unit="probes",
    page=lambda probed: measurement_table("rate", probed.rates, unit="probes", digits=3),
    key=lambda probed: f"redteam-{probed.arm}",
    title=lambda probed: f"Red team on the {probed.arm} model",
)
def probe_model(
    arm: str, base: BaseLanguageModel, adapter: FolderRef | None, findings: Sequence[DatasetRef], config: RedTeamConfig
) -> RedTeamArm:
    """One model's rates under attack, each with its interval; outcomes per probe are in a table, no reply is kept.

    Outcomes are kept in the store under the model and the settings, and those of personal values under the data too: the
    base model, and a champion that was probed as a candidate, are probed once.

    Args:
        arm: The model's part in the comparison: ``base``, ``candidate`` or ``champion``.
        base: The base model.
        adapter: The adapter on top of it, or None for the base itself.
        findings: The scrubber's findings in each training source, examples first; their parent is the rows before
            scrubbing.
        config: Probes and their number.

    Raises:
        IntegrityError: The rows before scrubbing are gone from the store.
        MissingDependencyError: garak is configured, and its environment has none.
        InputError: A file of probes became invalid after the configuration was read.
    """
    from tasks.redteam.memory import canary_probes, found_value_probes
    from tasks.redteam.probing import outcomes_table, probe_behaviour, probe_memory, summarise

    config, store = in_full(config), run_store()
    sources = [_rows_before_scrubbing(store, table) for table in findings]
    options = {"num_decoys": config.num_decoys, "seed": config.seed}
    values = canary_probes((row for rows in sources for row in rows), count=config.num_canaries, **options)
    for number, (rows, table) in enumerate(zip(sources, findings, strict=True)):
        probes = found_value_probes(rows, store.read_table(table).to_pylist(), limit=config.max_probes_per_kind, **options)
        # Two sources may have rows with the same id.
        values += [replace(probe, id=f"{number}/{probe.id}") if number else probe for probe in probes]
    model_sha256 = sha256_of_json({"base": base.folder.sha256, "adapter": adapter.sha256 if adapter else None})
    progress = stage_progress()

    @cache
    def loaded() -> LoadedModel:
        from tasks.modeling.stored import load_stored_model

        return load_stored_model(base, adapter)

    memory = _kept(
        store,
        f"redteam-memory/{_key(model_sha256, config, [ref.sha256 for ref in findings])}",
        lambda: outcomes_table(probe_memory(loaded(), values, config, progress)),
    )
    behaviour = _kept(
        store,
        f"redteam/{_key(model_sha256, config)}",
        lambda: outcomes_table(probe_behaviour(loaded(), config, progress)),
    )
    garak = garak_rates(store, model_sha256, loaded, config) if config.garak else ()
    table = pa.concat_tables([store.read_table(part).replace_schema_metadata() for part in (behaviour, memory)])
    probed = RedTeamArm(
        arm=arm,
        model_sha256=model_sha256,
        probes=store.write_table(table, kind="table", parents=[*findings, behaviour]),
        rates=(*summarise(table.to_pylist(), config), *garak),
    )
    progress.summarize(_summary(probed))
    return probed


def _rows_before_scrubbing(store: Store, findings: DatasetRef) -> list[dict[str, Any]]:
    original = store.find_dataset(findings.parents[0]) if findings.parents else None
    if original is None:
        raise IntegrityError(
            f"findings {findings.sha256[:12]}",
            "no rows before scrubbing in the store",
            "the data set that the scrubber read",
            "Run again; the stage that made it re-runs.",
        )
    return store.read_rows(original)


def garak_rates(
    store: Store, model_sha256: str, loaded: Callable[[], LoadedModel], config: RedTeamConfig
) -> tuple[Measurement, ...]:
    """Garak's rates, kept in the store under the model and the settings, because they take long."""
    from tasks.redteam.garak import garak_version, probe_with_garak

    settings = config.garak
    assert settings is not None
    options = {"max_new_tokens": config.max_new_tokens, "seed": config.seed}

    def probe() -> tuple[Measurement, ...]:
        logger.info("red team: model %s under %s of garak", model_sha256[:12], ", ".join(settings.probes))
        return probe_with_garak(loaded(), settings, **options)

    versions = {"garak": garak_version(settings), **libraries_of(file_of("tasks.redteam.garak"))}
    key = {
        "version": _GARAK_VERSION,
        "model": model_sha256,
        "probes": settings.probes,
        "libraries": versions,
        "device": answering_device(),
        **options,
    }
    return cached_measurements(store, "garak", key, probe)


def _kept(store: Store, name: str, probe: Callable[[], pa.Table]) -> DatasetRef:
    """The outcomes in the store under a name, or those that ``probe`` returns now."""
    kept = store.read_pointer(name)
    if kept is None or not store.holds(kept):
        kept = store.ensure_pointer(name, store.write_table(probe(), kind="table"))
    return kept


def _key(model_sha256: str, config: RedTeamConfig, findings: Sequence[str] | None = None) -> str:
    """The hash of what outcomes depend on: model, settings, own probe files, code, and the data that values come from."""
    content = {
        "model": model_sha256,
        "config": content_of(config.model_copy(update={"garak": None})),
        "code": code_sha256(Path(__file__)),
    }
    return sha256_of_json(content if findings is None else {**content, "findings": findings})


def _summary(probed: RedTeamArm) -> str:
    failed = [
        f"{rate.name} {round(rate.value * rate.num_samples)} of {rate.num_samples}"
        for rate in probed.rates
        if rate.value and rate.num_samples and rate.name in RATES
    ]
    return f"{probed.arm}: {', '.join(failed) or 'no probe failed'}"
