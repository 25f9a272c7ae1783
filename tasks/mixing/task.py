"""Mixing as a Prefect task."""

from __future__ import annotations

from tasks.contracts.preparation import Mixture, MixturePart
from tasks.core.errors import InputError
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import MIXED, run_store


@stage()
def mix(parts: tuple[MixturePart, ...], seed: int) -> Mixture:
    """One data set of all parts; its parents are all of theirs, and it went through the gates that every part did.

    Args:
        parts: Prepared data sets with their weights, the leading one first.
        seed: Chooses the rows of a fraction of a weight.

    Raises:
        InputError: A part is of another kind than the first, or gives no row.
    """
    from tasks.mixing.weighting import mix_rows

    store, kind = run_store(), parts[0].dataset.kind
    for part in parts:
        if part.dataset.kind != kind:
            raise InputError(
                f"mixture.{part.name}", f"rows of kind {part.dataset.kind}", kind, "Mix sources of one kind only."
            )
    rows, counts = mix_rows([(part.name, part.weight, store.read_rows(part.dataset)) for part in parts], seed=seed)
    mixed = tuple(
        part.model_copy(update={"num_rows": num_rows, "num_duplicates": num_duplicates})
        for part, (num_rows, num_duplicates) in zip(parts, counts, strict=True)
    )
    for part in mixed:
        if not part.num_rows:
            raise InputError(
                f"mixture.{part.name}",
                f"no row left of {part.dataset.num_rows} at weight {part.weight:g}, {part.num_duplicates} of them "
                "duplicates",
                "at least one row",
                "Raise its weight, leave the source out, or look at what the earlier stages removed.",
            )
    shared = [gate for gate in parts[0].dataset.passed if all(gate in part.dataset.passed for part in parts)]
    dataset = store.write_rows(rows, kind=kind, parents=[part.dataset for part in parts], passed=(*shared, MIXED))
    shares = ", ".join(f"{part.name} {part.num_rows / len(rows):.0%}" for part in mixed)
    stage_progress().summarize(f"{len(rows)} rows: {shares}")
    return Mixture(dataset=dataset, parts=mixed)
