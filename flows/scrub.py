"""Scrubs data sets of any size: small ones in one stage, large ones in shards on a task runner."""

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
    """The rows with personal data replaced; the result is byte-identical whether or not it is sharded."""
    if dataset.num_rows <= settings.rows_per_shard:
        return pii.scrub(dataset, settings)
    return scrub_in_shards.with_options(task_runner=task_runner(settings))(dataset, settings)


@flow(
    name="scrub-in-shards",
    persist_result=True,
    result_serializer=CONTRACTS,
    flow_run_name=name_of("scrub-{dataset.num_rows}-rows"),
)
def scrub_in_shards(dataset: DatasetRef, settings: pii.PiiConfig) -> ScrubReport:
    """Splits the data set into shards, scrubs them on the task runner, and verifies them together.

    A shard that was scrubbed before a crash is not scrubbed again.

    Args:
        dataset: The rows to scrub.
        settings: Policy, shard size and runner.
    """
    cut = pii.cut_shards(dataset, settings)
    parts = pii.scrub_shard.map(
        cut.shards, common=unmapped(cut.common), config=unmapped(settings), store_uri=unmapped(run_store().uri)
    ).result()
    return pii.join_shards(dataset, cut, parts, settings)


def task_runner(settings: pii.PiiConfig) -> TaskRunner[Any]:
    """The task runner of the shards: threads on this machine, or Ray.

    Raises:
        MissingDependencyError: Ray is configured, and prefect-ray is not installed.
    """
    if settings.runner == "local":
        # One shard at a time: each uses every core with its own processes.
        return ThreadPoolTaskRunner(max_workers=1)
    options: dict[str, Any] = {}
    if settings.ray_address is None:
        # Ray listens on every interface and runs any code sent with its token. By default one token in the home folder
        # serves all clusters; here each process has its own. A dashboard is not needed.
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
