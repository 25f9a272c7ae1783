"""Deployments of models for tests: one retrain of each file."""

from __future__ import annotations

from pathlib import Path

import yaml

from perennial.operations.deployment import deploy
from perennial.operations.model_files import deployments_of


def deploy_retrains(folder: Path) -> None:
    """Deploys each model of the folder on a pool that no worker serves."""
    entry = {"name": "{name}", "entrypoint": "flows/retrain.py:retrain", "parameters": {"config": "{config}"}, "form": []}
    entry |= {"schedules": "{schedules}", "work_pool": {"name": "fleet-status"}}
    (folder.parent / "template.yaml").write_text(yaml.safe_dump({"each_model": [entry]}))
    list(deploy(deployments_of([folder], folder.parent / "template.yaml"), "local", claims=False))
