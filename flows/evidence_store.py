"""In which store a run's evidence lies now: where the run wrote it, or where its model's deployment says today.

A run that waits for a person keeps the parameters it began with. When the store moves meanwhile, the operator deploys the
model with its new place, and the run finds what it wrote there.
"""

from __future__ import annotations

from collections.abc import Iterator

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from tasks.contracts import RunFindings
from tasks.errors import IntegrityError
from tasks.stage import references_in
from tasks.storage import Store, open_store

_PAGE = 200
"""The most deployments that Prefect's server returns at once."""


def open_evidence_store(findings: RunFindings, store_uri: str) -> Store:
    """Opens the store that holds everything a run found out, before anything acts on it.

    Args:
        findings: What the run found.
        store_uri: Where it wrote to.

    Raises:
        IntegrityError: No known store holds all of it; nothing was changed.
    """
    places = [store_uri]
    missing = _num_missing(findings, store_uri)
    if missing:
        places += [place for place in _deployed_stores(findings.model_name) if place != store_uri]
        for place in places[1:]:
            if not _num_missing(findings, place):
                return open_store(place)
        raise IntegrityError(
            f"run {findings.run_name}",
            f"{missing} things of its evidence missing in {', '.join(places)}",
            "a store that holds all of them",
            "Restore the store, and deploy the model with its place in `store`; `perennial store verify` reads it back.",
        )
    return open_store(store_uri)


def _num_missing(findings: RunFindings, place: str) -> int:
    store = Store(place)
    return sum(not store.holds(ref) for ref in set(references_in(findings)))


def _deployed_stores(model_name: str) -> Iterator[str]:
    """The stores that the deployments of a model's retrain name."""
    offset = 0
    with get_client(sync_client=True) as client:
        while True:
            page = client.read_deployments(
                flow_filter=FlowFilter(name=FlowFilterName(any_=["retrain"])), limit=_PAGE, offset=offset
            )
            for deployment in page:
                config = deployment.parameters.get("config")
                if isinstance(config, dict) and config.get("name") == model_name and config.get("store"):
                    yield str(config["store"])
            if len(page) < _PAGE:
                return
            offset += _PAGE
