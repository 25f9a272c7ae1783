"""The choice of training rows as a Prefect task."""

from __future__ import annotations

from tasks.contracts.preparation import Split
from tasks.contracts.refresh import TrainingRows
from tasks.contracts.training import Start
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import run_store


@stage()
def choose_training_rows(rows: Split, start: Start, replay: float | None, seed: int) -> TrainingRows:
    """What the training learns: all rows, or where it continues a version those new to it and some to replay.

    A version that knows every row of today has nothing new to learn from them: the training starts from the base model.
    """
    from tasks.refresh.replay import choose_rows, content_of

    everything = TrainingRows(rows=rows, start=start.point, reason=start.reason)
    if replay is None or start.point is None:
        return everything
    store = run_store()
    learned = (content_of(row) for dataset in start.learned for row in store.read_rows(dataset))
    refresh = choose_rows(store.read_rows(rows.train), learned, replay=replay, seed=seed)
    known = rows.train.num_rows - refresh.num_new
    if not refresh.num_new:
        why = f"the base model: version {start.point.version} has learned all of the {known} rows"
        return everything.model_copy(update={"start": None, "reason": why})
    train = store.write_rows(refresh.rows, kind=rows.train.kind, parents=[rows.train], passed=rows.train.passed)
    counts = f"{refresh.num_new} rows new to it and {refresh.num_replayed} of the {known} that it knows"
    stage_progress().summarize(f"{train.num_rows} of {rows.train.num_rows} rows")
    return TrainingRows(
        rows=rows.model_copy(update={"train": train}), start=start.point, reason=f"{start.reason}, over {counts}"
    )
