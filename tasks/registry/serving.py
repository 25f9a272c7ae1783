"""The code inside a registered model version: MLflow runs this file to serve the adapter on its base model.

It is copied into the version ("models from code"), so it imports nothing of this project and no pickle is involved. The
adapter travels with the version; the base model, thirty times its size, is read from where it lay when the version was
registered, or from ``PERENNIAL_BASE_MODEL`` (a folder or a hub id) on another machine.
"""

from __future__ import annotations

import os
from typing import Any

import mlflow


class AdapterOnBase(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Replies to conversations, greedily: input column ``messages``, parameter ``max_new_tokens``."""

    def load_context(self, context: Any) -> None:
        """Loads base model and adapter."""
        from peft import PeftModel
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base = os.environ.get("PERENNIAL_BASE_MODEL") or context.model_config["base_model"].removeprefix("file://")
        self._tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, trust_remote_code=False)
        adapter = PeftModel.from_pretrained(model, context.artifacts["adapter"], use_safetensors=True)
        self._model = adapter.merge_and_unload(safe_merge=True).eval()

    # Without annotations: from them MLflow would derive a signature of its own, and run the model to check it.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
        """One reply per conversation."""
        return [self._reply([dict(turn) for turn in messages], params or {}) for messages in model_input["messages"]]

    def _reply(self, messages: list[dict[str, str]], params: dict[str, Any]) -> str:
        import torch

        inputs = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.inference_mode():
            output = self._model.generate(**inputs, do_sample=False, max_new_tokens=params.get("max_new_tokens", 256))
        reply: str = self._tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return reply.strip()


mlflow.models.set_model(AdapterOnBase())
