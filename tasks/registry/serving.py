"""The code inside a registered model version: MLflow runs this file to serve the adapter on its base model.

It is copied into the version ("models from code") and needs no pickle. Of this project it imports only the rendering of
conversations, which the version carries too (``served_code.py``): a reply is prompted for, and ends, as in training. The
adapter is part of the version; the base model, thirty times its size, is read from the store: at its place at registration,
or where ``PERENNIAL_STORE`` points. Without the store, ``PERENNIAL_BASE_MODEL`` names a folder or a hub id. Only registered
files are read, and only where their digests are the registered ones. This file cannot verify itself: `perennial fetch`
compares every file of a version with the registry first.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import tempfile
from pathlib import Path
from typing import Any

import mlflow


class AdapterOnBase(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Replies to conversations, greedily: input column ``messages``, parameter ``max_new_tokens``."""

    def load_context(self, context: Any) -> None:
        """Loads base model and adapter.

        Raises:
            RuntimeError: The base model or a file is missing or differs from what was registered.
        """
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        config = context.model_config
        conversations = importlib.import_module(f"{config['rendering']}.modeling.conversations")
        source = _base_model(config)
        with tempfile.TemporaryDirectory(prefix="perennial-serving-") as name:
            base = _checked(_local(source, list(config["base_files"])), config["base_files"], Path(name) / "base")
            files = _checked(Path(context.artifacts["adapter"]), config["adapter_files"], Path(name) / "adapter")
            self._tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, trust_remote_code=False)
            adapter = PeftModel.from_pretrained(model, str(files), use_safetensors=True)
            self._model = adapter.merge_and_unload(safe_merge=True).eval()
        self._conversations = conversations
        # Greedy, as the scores were measured: `generate` fills what is not set from the model's own settings.
        ends = conversations.stop_token_ids(self._tokenizer, self._model.generation_config)
        self._model.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=sorted(ends) or None, pad_token_id=self._tokenizer.pad_token_id
        )

    # No annotations: MLflow would derive another signature from them, and run the model to check it.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """One reply per conversation."""
        return [self._reply([dict(turn) for turn in messages], params or {}) for messages in model_input["messages"]]

    def _reply(self, messages: list[dict[str, str]], params: dict[str, Any]) -> str:
        import torch

        ids = torch.tensor([self._conversations.prompt_token_ids(self._tokenizer, messages)])
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=params.get("max_new_tokens", 256)
            )
        reply: str = self._tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
        return reply.strip()


def _base_model(config: dict[str, Any]) -> str:
    """The place of the base model: a folder or a hub id."""
    if source := os.environ.get("PERENNIAL_BASE_MODEL"):
        return source
    sha256 = config["base_model_sha256"]
    store = os.environ.get("PERENNIAL_STORE")
    place = f"{store}/folders/{sha256[:2]}/{sha256}" if store else str(config["base_model"])
    folder = place.removeprefix("file://")
    if not Path(folder).is_dir():
        raise RuntimeError(
            f"{place}: found no folder on this machine; expected the base model. Name the store's present path in "
            "PERENNIAL_STORE, or a folder or hub id of the base model in PERENNIAL_BASE_MODEL."
        )
    return folder


def _local(source: str, names: list[str]) -> Path:
    """The folder of a base model; for a hub id the folder in the hub's cache, downloaded where that is allowed."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(source, allow_patterns=names))


def _checked(folder: Path, digests: dict[str, str], into: Path) -> Path:
    """A folder with links to exactly the named files, each compared with its SHA-256."""
    for name, digest in digests.items():
        path = (folder / name).resolve()
        if not path.is_file():
            raise RuntimeError(f"{folder / name}: found no file; expected the one that was registered. Restore the folder.")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise RuntimeError(
                f"{folder / name}: found SHA-256 {found[:12]}; expected {digest[:12]}, the file that was registered. "
                "Restore it, or name the right base model in PERENNIAL_BASE_MODEL."
            )
        (into / name).parent.mkdir(parents=True, exist_ok=True)
        (into / name).symlink_to(path)
    return into


mlflow.models.set_model(AdapterOnBase())
