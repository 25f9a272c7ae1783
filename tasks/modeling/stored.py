"""Models whose files are in the run's store."""

from __future__ import annotations

from tasks.contracts.references import FolderRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.storage import run_store
from tasks.modeling.generation import LoadedModel, load_model


def load_stored_model(base: BaseLanguageModel, adapter: FolderRef | None) -> LoadedModel:
    """The base model, or the base model with an adapter merged into it, as it would be served."""
    folder = run_store().fetch_folder(base.folder)
    return load_model(folder, run_store().fetch_folder(adapter) if adapter else None)
