"""Removes old versions, snapshots and work folders that nothing in use and no recent run needs."""

from __future__ import annotations

from prefect import flow

from flows.support.config import RetrainConfig
from flows.support.run_names import scheduled_run_name
from tasks import pruning, registry
from tasks.contracts.pruning import PruneReport
from tasks.core.errors import RegistryError
from tasks.core.results import CONTRACTS


@flow(name="prune", flow_run_name=scheduled_run_name("prune"), persist_result=True, result_serializer=CONTRACTS)
def prune(config: RetrainConfig, remove: bool = False) -> PruneReport:
    """What can be removed, or was; never a version with an alias, a rollout or an open approval request, nor its lineage.

    Args:
        config: The configuration of the retrain; its section `pruning` defines what is kept.
        remove: False only lists, with sizes.

    Raises:
        RegistryError: ``remove`` is set, and the registry is not the one that the store belongs to.
    """
    settings = config.pruning
    unknown = registry.check_registry(config.store)
    if unknown and remove:
        raise RegistryError(
            "pruning",
            f"a registry that cannot say what the store is needed for: {unknown}",
            "the registry whose versions need what lies in this store",
            "Set MLFLOW_TRACKING_URI to it. Where a registry or a model is gone for good, remove its note from the store.",
        )
    if unknown:
        return pruning.find_prunable(config.store, None, settings, unknown)
    old = registry.find_old_versions(config.registry, settings.keep_versions, settings.keep_days)
    if remove:
        # Versions first, each checked again: the store then keeps what a version that stays needs.
        old = registry.remove_old_versions(config.registry, old, settings.keep_versions, settings.keep_days)
    found = pruning.find_prunable(config.store, old, settings)
    return pruning.remove_prunable(config.store, found) if remove else found
