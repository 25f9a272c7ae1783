"""Whether a base model can take the configured adapter: tried when a run starts, remembered by content. Imports no torch."""

from __future__ import annotations

from tasks.contracts.base import Contract
from tasks.contracts.references import FolderRef
from tasks.core.library_versions import version_of
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, sha256_of_json
from tasks.training.config import LoraSettings


class AdapterSize(Contract):
    """The size of an adapter that a base model can take."""

    num_parameters: int


def check_adapter(base: FolderRef, lora: LoraSettings, store: Store) -> None:
    """Refuses an adapter that the base model cannot take; tried once for each base, settings and version of the code.

    Raises:
        ConfigError: See :func:`tasks.training.plan.adapters.count_trainable`.
    """
    maker = [code_sha256(file_of("tasks.training.plan.adapters")), version_of("peft"), version_of("transformers")]
    name = f"profiles/adapter-{sha256_of_json([base.sha256, lora.model_dump(mode='json'), *maker])}"
    if store.read_record(name, AdapterSize) is None:
        from tasks.training.plan.adapters import count_trainable

        store.create_record(name, AdapterSize(num_parameters=count_trainable(store.fetch_folder(base), lora)))
