"""The frozen test set, the fresh one, decontamination and the train and validation split as Prefect tasks."""

from __future__ import annotations

import logging
import time

from prefect.artifacts import create_markdown_artifact
from prefect.context import TaskRunContext

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import RecentHoldout, Split, StageReport
from tasks.contracts.references import DatasetRef
from tasks.core.progress import report_progress
from tasks.core.quarantine import count_reasons, report_table
from tasks.core.stage import stage_task
from tasks.core.storage import run_store
from tasks.splitting.config import SplitConfig

logger = logging.getLogger(__name__)


@stage_task("freeze_test_set", cached=False)
def freeze_test_set(dataset: DatasetRef, config: SplitConfig, name: str) -> DatasetRef:
    """The frozen test set called ``name``: chosen from these rows the first time, the same ever after.

    It is never cached, because whether it exists already is not in the parameters. A set that exists is returned whatever
    its kind and whatever the configuration says now: changing it would make last quarter's scores incomparable.

    Raises:
        InputError: The first snapshot has too few rows to set some aside.
        IntegrityError: The set exists, but its file is gone or altered.
    """
    from tasks.splitting.groups import FREEZE, choose_groups, groups_of

    store = run_store()
    pointer = f"benchmarks/{name}"
    with report_progress(FREEZE, dataset.num_rows) as progress:
        frozen = store.read_pointer(pointer)
        if frozen is not None:
            store.read_table(frozen, columns=[])
            progress.finish(f"{frozen.num_rows} rows, frozen earlier")
            logger.info("freeze_test_set: %s has %d rows, frozen earlier", name, frozen.num_rows)
            return frozen
        rows = store.read_rows(dataset)
        groups = groups_of(rows, config.near_duplicate_threshold)
        chosen = choose_groups(
            groups,
            share=config.test_share,
            max_rows=config.max_test_rows,
            purpose="test",
            seed=config.seed,
            where=f"test set {name} from data set {dataset.sha256[:12]}",
        )
        chosen_here = store.write_rows(
            [row for row, group in zip(rows, groups, strict=True) if group in chosen],
            kind=dataset.kind,
            parents=[dataset],
            passed=dataset.passed,
        )
        # Of two first runs the one that comes first chooses for both.
        frozen = store.create_record(pointer, chosen_here)
        if frozen != chosen_here:
            store.read_table(frozen, columns=[])
        progress.finish(f"{frozen.num_rows} of {dataset.num_rows} rows frozen")
    logger.info("freeze_test_set: %d of %d rows frozen as %s", frozen.num_rows, dataset.num_rows, name)
    return frozen


@stage_task("hold_out_fresh")
def hold_out_fresh(dataset: DatasetRef, frozen: DatasetRef, config: SplitConfig) -> RecentHoldout:
    """The newest rows, which this run's training leaves out; none, with the reason, where there are too few."""
    from tasks.splitting.freshness import choose_fresh

    if not config.fresh_share:
        return RecentHoldout(reason="prepare.splitting.fresh_share is 0")
    store = run_store()
    with report_progress("hold_out_fresh", dataset.num_rows) as progress:
        chosen = choose_fresh(
            store.read_rows(dataset),
            store.read_rows(frozen),
            share=config.fresh_share,
            days=config.fresh_days,
            threshold=config.near_duplicate_threshold,
            seed=config.seed,
        )
        fresh = RecentHoldout(since=chosen.since, reason=chosen.reason)
        if chosen.rows:
            rows = store.write_rows(chosen.rows, kind=dataset.kind, parents=[dataset, frozen], passed=dataset.passed)
            fresh = fresh.model_copy(update={"dataset": rows})
        progress.finish(f"{len(chosen.rows)} newest rows held out" if chosen.rows else f"none: {chosen.reason}")
    logger.info("hold_out_fresh: %d of %d rows; %s", len(chosen.rows), dataset.num_rows, fresh.reason or "the newest")
    return fresh


@stage_task("decontaminate")
def decontaminate(
    dataset: DatasetRef, frozen: DatasetRef, config: SplitConfig, fresh: RecentHoldout | None = None
) -> StageReport:
    """The rows that neither are, nor nearly equal, a frozen or a fresh test row.

    Preference pairs and further sources are held against the test examples too.
    """
    from tasks.splitting.groups import DECONTAMINATE, decontaminate_rows

    held_out = [frozen, *([fresh.dataset] if fresh and fresh.dataset else [])]
    started = time.monotonic()
    store = run_store()
    logger.info("decontaminate: %d rows against %d frozen ones", dataset.num_rows, frozen.num_rows)
    with report_progress(DECONTAMINATE, dataset.num_rows) as progress:
        result = decontaminate_rows(
            store.read_rows(dataset), store.read_rows(frozen), threshold=config.near_duplicate_threshold
        )
        kept, dropped = result.kept, result.dropped
        for newest in held_out[1:]:
            left = decontaminate_rows(
                kept,
                store.read_rows(newest),
                threshold=config.near_duplicate_threshold,
                reasons=("held_out_fresh", "near_fresh"),
            )
            kept, dropped = left.kept, [*dropped, *left.dropped]
        progress.finish(f"{len(kept)} rows kept, {len(dropped)} held out or too near the test sets")
    report = StageReport(
        stage=DECONTAMINATE,
        dataset=store.write_rows(
            kept, kind=dataset.kind, parents=[dataset, *held_out], passed=(*dataset.passed, "decontaminated")
        ),
        num_rows_in=dataset.num_rows,
        quarantine=store.write_refused(dropped, parents=[dataset, *held_out], passed=dataset.passed),
        dropped=count_reasons(dropped, "dropped"),
        measurements=(
            Measurement(
                name="frozen_rows_with_a_near_twin",
                value=result.num_twinned / frozen.num_rows if frozen.num_rows else None,
                num_samples=frozen.num_rows,
                note="Share of the test rows that would have been contaminated.",
            ),
        ),
        seconds=time.monotonic() - started,
    )
    logger.info("decontaminate: %d rows kept, %d dropped", len(kept), len(dropped))
    if TaskRunContext.get() is not None:
        create_markdown_artifact(report_table(report), key="decontaminate", description="Rows kept away from the test set")
    return report


@stage_task("split")
def split(dataset: DatasetRef, config: SplitConfig) -> Split:
    """Train and validation rows; no near-duplicate group stands in both.

    Raises:
        InputError: Too few rows to set some aside.
    """
    from tasks.splitting.groups import SPLIT, choose_groups, groups_of

    store = run_store()
    with report_progress(SPLIT, dataset.num_rows) as progress:
        rows = store.read_rows(dataset)
        groups = groups_of(rows, config.near_duplicate_threshold)
        chosen = choose_groups(
            groups,
            share=config.validation_share,
            max_rows=config.max_validation_rows,
            purpose="validation",
            seed=config.seed,
            where=f"split of data set {dataset.sha256[:12]}",
        )
        sides: dict[bool, list[dict[str, object]]] = {False: [], True: []}
        for row, group in zip(rows, groups, strict=True):
            sides[group in chosen].append(row)
        train, validation = (
            store.write_rows(side, kind=dataset.kind, parents=[dataset], passed=dataset.passed)
            for side in (sides[False], sides[True])
        )
        progress.finish(f"{train.num_rows} rows to train on, {validation.num_rows} for validation")
    logger.info("split: %d train and %d validation rows", train.num_rows, validation.num_rows)
    return Split(train=train, validation=validation, num_groups=len(set(groups)))
