"""The stage decorator: makes a function a Prefect task that is named, retried, and cached by content.

The name, two log lines, progress, duration and artifact of a stage are derived from the function::

    @stage(page=report_table, title="Exact and near duplicates")
    def deduplicate(dataset: DatasetRef, config: DeduplicationConfig) -> DeduplicationReport:
        progress = stage_progress()
        ...
        progress.summarize(f"{kept.num_rows} rows kept")
        return DeduplicationReport(...)
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import State, Task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import INPUTS, RUN_ID, CachePolicy
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext
from pydantic import BaseModel

from tasks.contracts.references import DatasetRef
from tasks.core.cache_key import ContentCachePolicy
from tasks.core.errors import RegistryOutageError
from tasks.core.progress import StageProgress, report_progress
from tasks.core.results import CONTRACTS

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_before_work: ContextVar[Callable[[], None] | None] = ContextVar("before_work", default=None)


@contextmanager
def before_work(act: Callable[[], None]) -> Iterator[None]:
    """Calls ``act`` before every stage inside the block that runs; not for a cached stage.

    A resource that only a running stage needs, such as a GPU, is thus acquired after the cache lookup.
    """
    token = _before_work.set(act)
    try:
        yield
    finally:
        _before_work.reset(token)


def _begin_work() -> None:
    act = _before_work.get()
    if act is not None:
        act()


OUTAGE_DELAYS_SECONDS = [2.0, 5.0, 10.0, 20.0, *[30.0] * 18]
"""Delays before a stage retries a call to an unavailable server: a few seconds at first, ten minutes in total."""


def _is_outage(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage failed because a server did not respond; a rejection is final."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, RegistryOutageError):
        logger.warning("%s waits for MLflow and retries, for ten minutes at most: %s", task.name, error)
        return True
    return False


_progress: ContextVar[StageProgress] = ContextVar("stage_progress")


def stage_progress() -> StageProgress:
    """The progress of the running stage.

    Raises:
        LookupError: The caller is not inside a stage.
    """
    return _progress.get()


@contextmanager
def _current(progress: StageProgress) -> Iterator[None]:
    """Makes it the progress of the running stage within the block.

    Ray pickles a stage with the globals that it reads, and a context variable cannot be pickled. Hence this function.
    """
    token = _progress.set(progress)
    try:
        yield
    finally:
        _progress.reset(token)


def stage(
    *,
    cached: bool = True,
    patient: bool = False,
    unit: str = "rows",
    page: Callable[[Any], str] | None = None,
    title: str | Callable[[Any], str] = "",
    key: str | Callable[[Any], str] = "",
) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A decorator that makes a function a stage: a Prefect task under the function's own name.

    Args:
        cached: False for side effects in every run, such as moving an alias.
        patient: Whether it retries while MLflow does not respond, see :data:`OUTAGE_DELAYS_SECONDS`. Only for an idempotent
            stage.
        unit: The unit of its progress. The total of ``rows`` is that of the first data set among the parameters.
        page: Makes the Markdown artifact of the run's page from the stage's result; an empty text makes none.
        title: Describes that artifact; a function makes the description from the result.
        key: The artifact's key, or a function that makes it from the result; without it the stage's name.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        # It would be reported as done before its work begins.
        assert not any(is_late(function) for is_late in (inspect.isgeneratorfunction, inspect.iscoroutinefunction)), function
        name, signature = function.__name__, inspect.signature(function)

        @functools.wraps(function)
        def work(*args: P.args, **kwargs: P.kwargs) -> R:
            _begin_work()
            started = time.monotonic()
            dataset = _first_dataset(signature.bind(*args, **kwargs).arguments.values())
            log = logging.getLogger(function.__module__)
            log.info("%s: %s", name, f"{dataset.num_rows} rows of {dataset.sha256[:12]}" if dataset else "started")
            total = dataset.num_rows if dataset and unit == "rows" else 0
            with report_progress(name, total, unit) as progress:
                with _current(progress):
                    result = _timed(function(*args, **kwargs), started)
                if page is not None and TaskRunContext.get() is not None:
                    _publish(page(result), _text(key, result) or name.replace("_", "-"), _text(title, result))
                progress.finish()
            log.info("%s: %s", name, progress.summary or "done")
            return result

        return _as_task(work, name, Path(function.__code__.co_filename), cached=cached, patient=patient)

    return decorate


def _first_dataset(values: Any) -> DatasetRef | None:
    """The first data set among some parameters, or the one that a report among them carries."""
    for value in values:
        found = value if isinstance(value, DatasetRef) else getattr(value, "dataset", None)
        if isinstance(found, DatasetRef):
            return found
    return None


def _publish(markdown: str, key: str, description: str) -> None:
    if markdown:
        create_markdown_artifact(markdown, key=key, description=description)


def _text(text: str | Callable[[Any], str], result: Any) -> str:
    return text(result) if callable(text) else text


def _timed(result: R, started: float) -> R:
    """The result with its duration, if it has a field for it that the stage left unset."""
    if isinstance(result, BaseModel) and "seconds" in type(result).model_fields.keys() - result.model_fields_set:
        return result.model_copy(update={"seconds": time.monotonic() - started})
    return result


@dataclass
class _StageName(CachePolicy):
    """The stage's name as a part of a key."""

    stage: str = ""

    def compute_key(self, *_: Any, **__: Any) -> str:
        """The name."""
        return self.stage


def once_a_run(name: str) -> CachePolicy:
    """One result per run, stage and parameters; without the stage, two with equal parameters would share a result."""
    return INPUTS + RUN_ID + _StageName(stage=name)


class Stage(Task[P, R]):
    """A Prefect task that is the plain function outside a run: without a server, and without reuse of earlier results."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result."""
        if FlowRunContext.get() is None and TaskRunContext.get() is None:
            return self.fn(*args, **kwargs)
        return super().__call__(*args, **kwargs)


def _as_task(function: Callable[P, R], name: str, file: Path, *, cached: bool, patient: bool) -> Task[P, R]:
    return Stage(
        fn=function,
        name=name,
        retries=len(OUTAGE_DELAYS_SECONDS) if patient else 0,
        retry_delay_seconds=OUTAGE_DELAYS_SECONDS if patient else None,
        retry_condition_fn=_is_outage if patient else None,
        persist_result=True,
        result_serializer=CONTRACTS,
        cache_policy=ContentCachePolicy(stage=name, module_file=file) if cached else once_a_run(name),
    )
