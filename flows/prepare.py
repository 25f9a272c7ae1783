"""The data half of the DAG: raw rows become training rows. It runs once for examples and once for preference pairs."""

from __future__ import annotations

from pathlib import PurePosixPath

from prefect import flow, runtime

from flows.scrub import scrub_dataset
from flows.support.config import PrepareConfig
from flows.support.run_names import unique
from tasks import bias, confidential, deduplication, ingest, labels, pii, splitting, validation
from tasks.contracts.base import DatasetKind
from tasks.contracts.preparation import PreparedDataset, RecentHoldout
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store
from tasks.core.term_lists import by_reference


def _run_name() -> str:
    """``prepare-<model>-<source>-…``; the source tells the preparations of one retrain apart."""
    source, benchmark = (runtime.flow_run.parameters[name] for name in ("source", "benchmark"))
    return unique(f"prepare-{benchmark}-{PurePosixPath(source.path).stem}")


@flow(name="prepare-dataset", persist_result=True, result_serializer=CONTRACTS, flow_run_name=_run_name)
def prepare_dataset(
    source: ingest.SourceConfig,
    settings: PrepareConfig,
    store_uri: str,
    benchmark: str,
    fresh: RecentHoldout | None = None,
    series: str | None = None,
    kind: DatasetKind = "messages",
) -> PreparedDataset:
    """The prepared rows of one source, with the report of each stage.

    Args:
        source: Where the raw rows are and how to read them.
        settings: One section per stage.
        store_uri: The store that everything is written to.
        benchmark: Name of the frozen test set, whose rows are never trained on.
        fresh: The fresh test set of the examples, removed from every other source; None for the examples themselves.
        series: Name of the series of snapshots; None takes the name of the benchmark.
        kind: What the rows must be: examples (``messages``) or ``preferences``.
    """
    settings = by_reference(settings, open_store(store_uri))
    series = series or benchmark
    snapshot = ingest.take_snapshot(source, store_uri, kind)
    previous = ingest.find_previous_snapshot(snapshot, series)
    validated = validation.validate(snapshot.dataset, settings.validation, previous)
    ingest.remember_snapshot(snapshot, validated.dataset, series)
    unique = deduplication.deduplicate(validated.dataset, settings.deduplication)
    filtered = confidential.filter_confidential(unique.dataset, settings.confidential)
    scrubbed = scrub_dataset(filtered.dataset, settings.pii)
    verified = pii.verify_scrub(scrubbed, settings.pii)
    audited = labels.audit_labels(verified.dataset, settings.labels)
    reviewed = labels.await_review(verified.dataset, audited, settings.labels)
    compared = bias.audit_bias(reviewed.dataset, settings.bias)
    frozen = splitting.freeze_test_set(reviewed.dataset, settings.splitting, benchmark)
    fresh = fresh or splitting.hold_out_fresh(reviewed.dataset, frozen, settings.splitting)
    decontaminated = splitting.decontaminate(reviewed.dataset, frozen, settings.splitting, fresh)
    return PreparedDataset(
        snapshot=snapshot,
        validation=validated,
        deduplication=unique,
        confidential=filtered,
        scrub=scrubbed,
        verification=verified,
        labels=reviewed,
        bias=compared,
        frozen=frozen,
        fresh=fresh,
        decontamination=decontaminated,
    )
