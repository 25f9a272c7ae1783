"""The finished adapter as a folder: safetensors, PEFT's configuration, a manifest. Never a pickle.

The same training gives the same bytes, so nothing in the folder names a time, a path or a machine.
"""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

from tasks.contracts.training import TrainingPlan
from tasks.core.storage import sha256_of_json
from tasks.training.launch.protocol import TrainerSpec

MANIFEST = "training.json"
_VERSIONS = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")


def write_adapter(source: Path, folder: Path, spec: TrainerSpec, plan: TrainingPlan) -> None:
    """Writes ``folder`` from PEFT's output in ``source``; replaces what was there.

    Args:
        source: The output of ``save_pretrained``: the adapter, or the whole model after full fine-tuning.
        folder: The result.
        spec: The specification.
        plan: The plan that was carried out.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in sorted(source.glob("*.safetensors*")):
        shutil.copyfile(path, folder / path.name)
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    if (source / "adapter_config.json").is_file():
        settings = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
        settings["base_model_name_or_path"] = spec.base.name
        settings["inference_mode"] = True
        # PEFT keeps these as sets, whose order changes from process to process.
        for name, value in settings.items():
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                settings[name] = sorted(value)
        _write_json(folder / "adapter_config.json", settings)
    _write_json(folder / MANIFEST, _manifest(spec, plan))


def _manifest(spec: TrainerSpec, plan: TrainingPlan) -> dict[str, Any]:
    method = spec.method
    return {
        "method": method.kind,
        "base_model": {"name": spec.base.name, "sha256": spec.base.folder.sha256, "note": spec.base.note},
        "license": spec.base.license,
        "continues_adapter_sha256": method.adapter.sha256 if method.adapter else None,
        "train_sha256": spec.train.sha256,
        "validation_sha256": None if spec.validation is None else spec.validation.sha256,
        "config_sha256": sha256_of_json(method.config.model_dump(mode="json")),
        "seed": method.config.seed,
        "precision": plan.precision,
        "quantization": plan.quantization,
        "num_steps": plan.num_steps,
        "max_length": plan.max_length_tokens,
        "versions": {name: importlib.metadata.version(name) for name in _VERSIONS},
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
