"""Mixing as a Prefect task."""

from __future__ import annotations

import logging

from tasks.contracts.preparation import Mixture, MixturePart
from tasks.core.errors import InputError
from tasks.core.progress import report_progress
from tasks.core.stage import stage_task
from tasks.core.storage import MIXED, run_store

logger = logging.getLogger(__name__)


@stage_task("mix")
def mix(parts: tuple[MixturePart, ...], seed: int) -> Mixture:
    """One data set of all parts; its parents are all of theirs, and it went through the gates that every part did.

    Args:
        parts: Prepared data sets with their weights, the leading one first.
        seed: Chooses the rows of a fraction of a weight.

    Raises:
        InputError: A part is of another kind than the first, or gives no row.
    """
    from tasks.mixing.weighting import mix_rows

    kind = parts[0].dataset.kind
    for part in parts:
        if part.dataset.kind != kind:
            raise InputError(
                f"mixture.{part.name}", f"rows of kind {part.dataset.kind}", kind, "Mix sources of one kind only."
            )
    store = run_store()
    with report_progress("mix", sum(part.dataset.num_rows for part in parts)) as progress:
        sources = [(part.name, part.weight, run_store().read_rows(part.dataset)) for part in parts]
        rows, counts = mix_rows(sources, seed=seed)
        for part, (num_rows, num_duplicates) in zip(parts, counts, strict=True):
            if not num_rows:
                raise InputError(
                    f"mixture.{part.name}",
                    f"no row left of {part.dataset.num_rows} at weight {part.weight:g}, {num_duplicates} of them duplicates",
                    "at least one row",
                    "Raise its weight, leave the source out, or look at what the earlier stages removed.",
                )
        shared = [gate for gate in parts[0].dataset.passed if all(gate in part.dataset.passed for part in parts)]
        dataset = store.write_rows(rows, kind=kind, parents=[part.dataset for part in parts], passed=(*shared, MIXED))
        shares = ", ".join(f"{part.name} {count / len(rows):.0%}" for part, (count, _) in zip(parts, counts, strict=True))
        progress.finish(f"{len(rows)} rows: {shares}")
    logger.info("mix: %d rows of %d sources as %s", len(rows), len(parts), dataset.sha256[:12])
    return Mixture(
        dataset=dataset,
        parts=tuple(
            part.model_copy(update={"num_rows": num_rows, "num_duplicates": num_duplicates})
            for part, (num_rows, num_duplicates) in zip(parts, counts, strict=True)
        ),
    )
