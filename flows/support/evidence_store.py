"""Finds the store of a run's evidence: the one that the run wrote to, or the one that its model's deployment names now.

A suspended run keeps its original parameters. If the store moves meanwhile, the operator deploys the model with the new
location, and the run finds its evidence there.
"""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName

from tasks.contracts.run import RunFindings
from tasks.core.cache_key import references_in
from tasks.core.errors import IntegrityError
from tasks.core.paging import every
from tasks.core.storage import Store, open_store


def open_evidence_store(findings: RunFindings, store_uri: str) -> Store:
    """Opens the store that holds all evidence of a run, before any side effect.

    Args:
        findings: The results of the run.
        store_uri: The store that the run wrote to.

    Raises:
        IntegrityError: No known store holds all of the evidence; nothing was changed.
    """
    missing = {store_uri: _num_missing(findings, store_uri)}
    if missing[store_uri]:
        for place in _deployed_stores(findings.model_name):
            missing.setdefault(place, _num_missing(findings, place))
    nearest = min(missing, key=lambda place: missing[place])
    if missing[nearest]:
        raise IntegrityError(
            f"run {findings.run_name}",
            f"{missing[nearest]} objects of its evidence missing in {nearest}",
            "a store that holds all of them",
            "Restore the store, and deploy the model with its location in `store`; `perennial store verify` checks it.",
        )
    return open_store(nearest)


def _num_missing(findings: RunFindings, place: str) -> int:
    store = Store(place)
    return sum(not store.holds(ref) for ref in set(references_in(findings)))


def _deployed_stores(model_name: str) -> list[str]:
    """The stores in the deployments of a model's retrain."""
    retrain = FlowFilter(name=FlowFilterName(any_=["retrain"]))
    with get_client(sync_client=True) as client:
        found = every(lambda limit, offset: client.read_deployments(flow_filter=retrain, limit=limit, offset=offset))
        configs = [deployment.parameters.get("config") for deployment in found]
    return [
        str(config["store"])
        for config in configs
        if isinstance(config, dict) and config.get("name") == model_name and config.get("store")
    ]
