"""Scrubbing at any size: one stage for what one machine holds well, shards on a task runner for what it does not."""

from __future__ import annotations

import os
import secrets
from typing import Any

from prefect import flow, unmapped
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.support.run_names import name_of
from tasks import pii
from tasks.contracts.preparation import ScrubReport
from tasks.contracts.references import DatasetRef
from tasks.core.errors import MissingDependencyError
from tasks.core.results import CONTRACTS
from tasks.core.storage import run_store


def scrub_dataset(dataset: DatasetRef, settings: pii.PiiConfig) -> ScrubReport:
    """The rows with personal data replaced, the same to the byte whichever way it is done."""
    if dataset.num_rows <= settings.rows_per_shard:
        return pii.scrub(dataset, settings)
    return scrub_in_shards.with_options(task_runner=_runner(settings))(dataset, settings)


@flow(
    name="scrub-in-shards",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name=name_of("scrub-{dataset.num_rows}-rows"),
)
def scrub_in_shards(dataset: DatasetRef, settings: pii.PiiConfig) -> ScrubReport:
    """Cuts the data set, scrubs the shards wherever the task runner puts them, and checks them together.

    A shard that was scrubbed before a crash is not scrubbed again.

    Args:
        dataset: The rows to scrub.
        settings: Policy, shard size and runner.
    """
    cut = pii.cut_shards(dataset, settings)
    parts = pii.scrub_shard.map(
        cut.shards, common_terms=unmapped(cut.common_terms), config=unmapped(settings), store_uri=unmapped(run_store().uri)
    ).result()
    return pii.join_shards(dataset, cut, parts, settings)


def _runner(settings: pii.PiiConfig) -> TaskRunner[Any]:
    if settings.runner == "local":
        # One shard at a time: each uses every core by processes of its own.
        return ThreadPoolTaskRunner(max_workers=1)
    options: dict[str, Any] = {}
    if settings.ray_address is None:
        # Ray listens on every interface and runs what whoever has its token sends. By default that is one token for all
        # clusters, in the home folder; here it is this process's own. A dashboard is not needed.
        options["include_dashboard"] = False
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        from prefect_ray import RayTaskRunner
    except ImportError as error:
        raise MissingDependencyError(
            "pii.runner", "ray without the package prefect-ray", "prefect-ray", "Install perennial-llm[ray]."
        ) from error
    runner: TaskRunner[Any] = RayTaskRunner(address=settings.ray_address, init_kwargs=options)
    return runner
