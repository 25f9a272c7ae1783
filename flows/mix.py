"""Mixes several sources into one data set, each after its own preparation."""

from __future__ import annotations

from flows.prepare import prepare_dataset
from flows.support.config import RetrainConfig
from tasks import mixing
from tasks.contracts.preparation import Mixture, MixturePart, PreparedDataset
from tasks.core.storage import run_store


def mix_sources(examples: PreparedDataset, config: RetrainConfig) -> Mixture:
    """The prepared examples, with the further sources of ``config.mixture``, if any.

    The frozen and the fresh test set come from the examples; rows of other sources that equal one of theirs are removed.
    """
    leading = MixturePart(name="examples", dataset=examples.dataset, snapshot_sha256=examples.snapshot.dataset.sha256)
    if not config.mixture:
        return Mixture(dataset=examples.dataset, parts=(leading.model_copy(update={"num_rows": examples.dataset.num_rows}),))
    prepared = tuple(
        prepare_dataset(
            part.source,
            config.prepare,
            store_uri=run_store().uri,
            benchmark=config.name,
            fresh=examples.fresh,
            series=f"{config.name}/{part.name}",
        )
        for part in config.mixture
    )
    further = tuple(
        MixturePart(name=part.name, weight=part.weight, dataset=rows.dataset, snapshot_sha256=rows.snapshot.dataset.sha256)
        for part, rows in zip(config.mixture, prepared, strict=True)
    )
    mixed = mixing.mix((leading, *further), config.prepare.splitting.seed)
    return mixed.model_copy(update={"prepared": prepared})
