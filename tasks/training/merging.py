"""The adapter merged into its base: a whole model that any server loads, shown to say what the adapter on the base says.

Merged in float32 into the unquantised base, also after QLoRA: adding to rounded weights would round twice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tasks.contracts.training import TrainingResult
from tasks.core.errors import StoreError, TrainingError
from tasks.core.storage.folders import MANIFEST as STORE_MANIFEST
from tasks.modeling.loading import best_device, load_base, load_tokenizer, load_with_adapter
from tasks.modeling.prompts import Messages, prompt_token_ids

MANIFEST = "merged.json"
NUM_NEW_TOKENS = 32
"""Tokens compared for each prompt; the end of a reply does not end the comparison."""


def merge(base: Path, adapter: Path, folder: Path, prompts: Sequence[Messages]) -> int:
    """Writes the merged model with its tokenizer into an empty folder; the number of tokens that were compared.

    The same prompts are continued greedily by the base with its adapter, by the merged model, and by what is read back
    from the folder; all three must agree token by token.

    Args:
        base: Folder of the base model.
        adapter: Folder of the adapter.
        folder: Where the model goes.
        prompts: At least one conversation up to the reply.

    Raises:
        TrainingError: A continuation differs.
    """
    device = best_device()
    tokenizer = load_tokenizer(base)
    asked = [prompt_token_ids(tokenizer, prompt) for prompt in prompts]
    model = load_with_adapter(base, adapter, device=device, dtype=torch.float32)
    expected = [_continue(model, ids) for ids in asked]
    model = model.merge_and_unload(safe_merge=True).eval()
    _compare("merging", expected, [_continue(model, ids) for ids in asked])
    # The path of this machine is no part of the model.
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    del model
    for path in sorted(base.iterdir()):
        kept = path.is_file() and path.name != STORE_MANIFEST and ".safetensors" not in path.name
        if kept and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    reloaded = load_base(folder, device=device, dtype=torch.float32)
    _compare("saving and reading it back", expected, [_continue(reloaded, ids) for ids in asked])
    return sum(len(ids) for ids in expected)


def write_manifest(folder: Path, adapter: Path, trained: TrainingResult) -> None:
    """Says in the folder what it was made of; the same bytes for the same parts."""
    manifest = {
        "base_model": {"name": trained.base.name, "sha256": trained.base.folder.sha256, "note": trained.base.note},
        "adapter_sha256": trained.adapter.sha256,
        "license": trained.base.license,
        "precision": "float32",
        "training": json.loads((adapter / "training.json").read_text(encoding="utf-8")),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_room(folder: Path, num_parameters: int) -> None:
    """Refuses to merge where the model would not fit: once here, once in the store.

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
    """Greedy tokens after a prompt; a bare loop, so that no generation setting of the model has a say."""
    step, past, found = torch.tensor([list(prompt_ids)], device=model.device), None, []
    with torch.inference_mode():
        for _ in range(NUM_NEW_TOKENS):
            output = model(input_ids=step, past_key_values=past, use_cache=True)
            step, past = output.logits[:, -1:].argmax(dim=-1), output.past_key_values
            found.append(int(step))
    return found


def _compare(after: str, expected: list[list[int]], found: list[list[int]]) -> None:
    for number, (one, other) in enumerate(zip(expected, found, strict=True), start=1):
        if one != other:
            place = next(index for index, pair in enumerate(zip(one, other, strict=True), start=1) if pair[0] != pair[1])
            raise TrainingError(
                "training.merge",
                f"after {after}, reply {number} of {len(expected)} differs from token {place} on",
                "the tokens of the base model with its adapter",
                "Serve the adapter on its base model instead, and set `training.merge` to false.",
            )
