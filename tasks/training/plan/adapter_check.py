"""Whether a base model can take the configured adapter: tried when a run starts, remembered by content. Imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks.contracts.base import Contract
from tasks.contracts.references import FolderRef
from tasks.contracts.training import StartingPoint
from tasks.core.errors import ConfigError
from tasks.core.library_versions import version_of
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, sha256_of_json
from tasks.modeling.resolution import count_parameters
from tasks.training.config import LoraSettings


class AdapterSize(Contract):
    """The size of an adapter that a base model can take."""

    num_parameters: int


def check_adapter(base: FolderRef, lora: LoraSettings, store: Store) -> int:
    """Refuses an adapter that the base model cannot take; tried once for each base, settings and version of the code.

    Returns:
        Its number of parameters.

    Raises:
        ConfigError: See :func:`tasks.training.plan.adapters.count_trainable`.
    """
    maker = [code_sha256(file_of("tasks.training.plan.adapters")), version_of("peft"), version_of("transformers")]
    name = f"profiles/adapter-{sha256_of_json([base.sha256, lora.model_dump(mode='json'), *maker])}"
    size = store.read_record(name, AdapterSize)
    if size is None:
        from tasks.training.plan.adapters import count_trainable

        size = AdapterSize(num_parameters=count_trainable(store.fetch_folder(base), lora))
        store.create_record(name, size)
    return size.num_parameters


def check_start(start: StartingPoint, base: FolderRef, lora: LoraSettings | None, store: Store) -> None:
    """Refuses to continue an adapter of other settings: it would be trained in its own, and the run show those configured.

    Raises:
        ConfigError: Rank, scale, dropout or size differ.
    """
    folder = store.fetch_folder(start.adapter)
    found = _settings_of(folder)
    if lora is None or not found:
        expected, size = None, 0
    else:
        alpha = 2 * lora.r if lora.lora_alpha is None else lora.lora_alpha
        expected = {"r": lora.r, "lora_alpha": alpha, "lora_dropout": lora.lora_dropout, "use_rslora": lora.use_rslora}
        size = check_adapter(base, lora, store)
    num_parameters = count_parameters(folder)
    if expected != found or num_parameters != size:
        raise ConfigError(
            "training.sft.lora",
            f"{expected} with {size} parameters",
            f"the settings of version {start.version}, whose adapter is continued: {found} with {num_parameters} parameters",
            "Make them the same, or set `training.start_from: base` for this run.",
        )


def _settings_of(adapter: Path) -> dict[str, Any]:
    """The settings of an adapter that decide what it computes; empty for a whole model."""
    path = adapter / "adapter_config.json"
    if not path.is_file():
        return {}
    settings = json.loads(path.read_text(encoding="utf-8"))
    return {name: settings.get(name) for name in ("r", "lora_alpha", "lora_dropout", "use_rslora")}
