"""The adapter merged into its base: a whole model that any server loads, proven to generate the same tokens.

It is merged in float32 into the unquantised base, also after QLoRA: adding to rounded weights would round twice.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import MergedModel, TrainingResult
from tasks.core.errors import StoreError, TrainingError
from tasks.core.rows import prompt_messages
from tasks.core.storage import run_store
from tasks.core.storage.folders import MANIFEST as STORE_MANIFEST
from tasks.modeling.conversations import Messages, prompt_token_ids
from tasks.modeling.loading import best_device, load_base, load_tokenizer, load_with_adapter
from tasks.training.launch.work_folder import work_root

logger = logging.getLogger(__name__)

MANIFEST = "merged.json"
NUM_NEW_TOKENS = 32
"""Tokens compared for each prompt; the end of a reply does not end the comparison."""
_NUM_PROMPTS = 4


def merge_into_base(trained: TrainingResult, rows: DatasetRef) -> MergedModel:
    """The adapter merged into its base, stored beside it.

    Args:
        trained: The last training step.
        rows: The rows whose first prompts both models must continue alike.

    Raises:
        TrainingError: A continuation differs.
        StoreError: There is too little room.
    """
    store = run_store()
    prompts = [prompt_messages(row) for row in store.read_rows(rows)[:_NUM_PROMPTS]]
    base, adapter = store.fetch_folder(trained.base.folder), store.fetch_folder(trained.adapter)
    root = work_root(store)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix="merge-") as name:
        folder = Path(name)
        check_room(folder, trained.base.num_parameters)
        num_compared_tokens = merge(base, adapter, folder, prompts)
        write_manifest(folder, adapter, trained)
        merged = store.add_folder(folder)
    logger.info("merged %s into %s: %s", trained.adapter.sha256[:12], trained.base.name, merged.sha256[:12])
    return MergedModel(
        folder=merged,
        base_sha256=trained.base.folder.sha256,
        adapter_sha256=trained.adapter.sha256,
        num_compared_tokens=num_compared_tokens,
    )


def merge(base: Path, adapter: Path, folder: Path, prompts: Sequence[Messages]) -> int:
    """Writes the merged model with its tokenizer into an empty folder; returns the number of compared tokens.

    The base with its adapter, the merged model, and the model read back from the folder continue the same prompts greedily.
    All three must agree token by token.

    Args:
        base: Folder of the base model.
        adapter: Folder of the adapter.
        folder: Receives the model.
        prompts: At least one conversation up to the reply.

    Raises:
        TrainingError: A continuation differs.
    """
    device = best_device()
    tokenizer = load_tokenizer(base)
    prompt_ids = [prompt_token_ids(tokenizer, prompt) for prompt in prompts]
    model = load_with_adapter(base, adapter, device=device, dtype=torch.float32)
    expected = [_continue(model, ids) for ids in prompt_ids]
    model = model.merge_and_unload(safe_merge=True).eval()
    _compare("merging", expected, [_continue(model, ids) for ids in prompt_ids])
    # A path of this machine is not part of the model.
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    del model
    for path in sorted(base.iterdir()):
        kept = path.is_file() and path.name != STORE_MANIFEST and ".safetensors" not in path.name
        if kept and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    reloaded = load_base(folder, device=device, dtype=torch.float32)
    _compare("saving and reading it back", expected, [_continue(reloaded, ids) for ids in prompt_ids])
    return sum(len(ids) for ids in expected)


def write_manifest(folder: Path, adapter: Path, trained: TrainingResult) -> None:
    """Writes into the folder what it was made of; the same bytes for the same parts."""
    manifest = {
        "base_model": {"name": trained.base.name, "sha256": trained.base.folder.sha256, "note": trained.base.note},
        "adapter_sha256": trained.adapter.sha256,
        "license": trained.base.license,
        "precision": "float32",
        "training": json.loads((adapter / "training.json").read_text(encoding="utf-8")),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_room(folder: Path, num_parameters: int) -> None:
    """Refuses a disk that cannot hold the merged model twice: here, and in the store.

    Raises:
        StoreError: There is too little room.
    """
    needed, free = 2 * 4 * num_parameters, shutil.disk_usage(folder).free
    if free < needed:
        raise StoreError(
            str(folder),
            f"{free / 1e9:.2f} GB free",
            f"{needed / 1e9:.2f} GB for the merged model",
            "Free disk space, or set `training.merge` to false.",
        )


def _continue(model: Any, prompt_ids: Sequence[int]) -> list[int]:
    """Greedy tokens after a prompt; a bare loop, so that no generation setting of the model applies."""
    step, past, tokens = torch.tensor([list(prompt_ids)], device=model.device), None, []
    with torch.inference_mode():
        for _ in range(NUM_NEW_TOKENS):
            output = model(input_ids=step, past_key_values=past, use_cache=True)
            token, past = output.logits[:, -1:].argmax(dim=-1), getattr(output, "past_key_values", None)
            # A model without keys and values (Mamba) computes the whole text again.
            step = torch.cat([step, token], dim=1) if past is None else token
            tokens.append(int(token))
    return tokens


def _compare(after: str, expected: list[list[int]], actual: list[list[int]]) -> None:
    for number, (tokens, other_tokens) in enumerate(zip(expected, actual, strict=True), start=1):
        pairs = enumerate(zip(tokens, other_tokens, strict=True), start=1)
        place = next((index for index, (token, other) in pairs if token != other), None)
        if place is not None:
            raise TrainingError(
                "training.merge",
                f"after {after}, reply {number} of {len(expected)} differs from token {place} on",
                "the tokens of the base model with its adapter",
                "Serve the adapter on its base model instead, and set `training.merge` to false.",
            )
