"""The frozen test set, the fresh one, decontamination and the train and validation split as Prefect tasks."""

from __future__ import annotations

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import RecentHoldout, Split, StageReport
from tasks.contracts.references import DatasetRef
from tasks.core.pages import report_table
from tasks.core.quarantine import count_reasons, quarantine_row
from tasks.core.rows import TableRows
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store
from tasks.splitting.config import SplitConfig


@stage(cached=False)
def freeze_test_set(dataset: DatasetRef, config: SplitConfig, name: str) -> DatasetRef:
    """The frozen test set called ``name``: chosen from these rows the first time, the same ever after.

    It is never cached, because whether it exists already is not in the parameters. A set that exists is returned whatever
    its kind and whatever the configuration says now: changing it would make last quarter's scores incomparable.

    Raises:
        InputError: The first snapshot has too few rows to set some aside.
        IntegrityError: The set exists, but its file is gone or altered.
    """
    from tasks.splitting.groups import set_aside

    store, progress = run_store(), stage_progress()
    pointer = f"benchmarks/{name}"
    frozen = store.read_pointer(pointer)
    if frozen is not None:
        store.read_table(frozen, columns=[])
        progress.summarize(f"{frozen.num_rows} rows, frozen earlier")
        return frozen
    rows = TableRows(store.read_table(dataset))
    aside = set_aside(
        rows,
        share=config.test_share,
        max_rows=config.max_test_rows,
        purpose="test",
        seed=config.seed,
        threshold=config.near_duplicate_threshold,
        where=f"test set {name} from data set {dataset.sha256[:12]}",
    )
    chosen = store.write_table(rows.take(aside.chosen).table, kind=dataset.kind, parents=[dataset], passed=dataset.passed)
    # Of two first runs the one that comes first chooses for both.
    frozen = store.create_record(pointer, chosen)
    if frozen != chosen:
        store.read_table(frozen, columns=[])
    progress.summarize(f"{frozen.num_rows} of {dataset.num_rows} rows frozen")
    return frozen


@stage()
def hold_out_fresh(dataset: DatasetRef, frozen: DatasetRef, config: SplitConfig) -> RecentHoldout:
    """The newest rows, which this run's training leaves out; none, with the reason, where there are too few."""
    from tasks.splitting.freshness import choose_fresh

    if not config.fresh_share:
        return RecentHoldout(reason="prepare.splitting.fresh_share is 0")
    store = run_store()
    rows = TableRows(store.read_table(dataset))
    fresh = choose_fresh(
        rows,
        TableRows(store.read_table(frozen)),
        share=config.fresh_share,
        days=config.fresh_days,
        threshold=config.near_duplicate_threshold,
        seed=config.seed,
    )
    stage_progress().summarize(f"{len(fresh.places)} newest rows held out" if fresh.places else f"none: {fresh.reason}")
    return RecentHoldout(
        dataset=store.write_table(
            rows.take(fresh.places).table, kind=dataset.kind, parents=[dataset, frozen], passed=dataset.passed
        )
        if fresh.places
        else None,
        since=fresh.since,
        reason=fresh.reason,
    )


@stage(page=report_table, title="Rows kept away from the test set")
def decontaminate(
    dataset: DatasetRef, frozen: DatasetRef, config: SplitConfig, fresh: RecentHoldout | None = None
) -> StageReport:
    """The rows that neither are, nor nearly equal, a frozen or a fresh test row.

    Preference pairs and further sources are compared with the test examples too.
    """
    from tasks.splitting.groups import STAGE, decontaminate_rows

    store = run_store()
    newest = fresh.dataset if fresh else None
    parents = [dataset, frozen, *([newest] if newest else [])]
    rows = TableRows(store.read_table(dataset))
    result = decontaminate_rows(
        rows,
        TableRows(store.read_table(frozen)),
        TableRows(store.read_table(newest)) if newest else [],
        threshold=config.near_duplicate_threshold,
    )
    places = sorted(result.reasons)
    dropped = [
        quarantine_row(STAGE, str(row["id"]), result.reasons[place], row, disposition="dropped")
        for place, row in zip(places, rows.take(places), strict=True)
    ]
    kept = rows.take(place for place in range(len(rows)) if place not in result.reasons).table
    stage_progress().summarize(f"{len(kept)} rows kept, {len(dropped)} held out or too near the test sets")
    return StageReport(
        stage=STAGE,
        dataset=store.write_table(kept, kind=dataset.kind, parents=parents, passed=(*dataset.passed, "decontaminated")),
        num_rows_in=dataset.num_rows,
        quarantine=store.write_quarantine(dropped, parents=parents, passed=dataset.passed),
        dropped=count_reasons(dropped, "dropped"),
        measurements=(
            Measurement(
                name="frozen_rows_with_a_near_twin",
                value=result.num_twinned / frozen.num_rows if frozen.num_rows else None,
                num_samples=frozen.num_rows,
                note="Share of the test rows that would have been contaminated.",
            ),
        ),
    )


@stage()
def split(dataset: DatasetRef, config: SplitConfig) -> Split:
    """Train and validation rows; no near-duplicate group stands in both.

    Raises:
        InputError: Too few rows to set some aside.
    """
    from tasks.splitting.groups import set_aside

    store = run_store()
    rows = TableRows(store.read_table(dataset))
    aside = set_aside(
        rows,
        share=config.validation_share,
        max_rows=config.max_validation_rows,
        purpose="validation",
        seed=config.seed,
        threshold=config.near_duplicate_threshold,
        where=f"split of data set {dataset.sha256[:12]}",
    )
    train, validation = (
        store.write_table(rows.take(places).table, kind=dataset.kind, parents=[dataset], passed=dataset.passed)
        for places in (aside.rest, aside.chosen)
    )
    stage_progress().summarize(f"{train.num_rows} rows to train on, {validation.num_rows} for validation")
    return Split(train=train, validation=validation, num_groups=aside.num_groups)
