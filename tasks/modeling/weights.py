"""Models that others made, reduced to what may be read of them: weights in safetensors, tokenizer, settings.

A pickle (``pytorch_model.bin`` and its like) is a program that runs when it is read, and a model may bring code of its own
(``auto_map``). Neither is ever read, so a folder that has nothing else is refused before a library looks at it.
"""

from __future__ import annotations

import json
from pathlib import Path

from tasks.core.errors import ModelNotFoundError

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model")


def check_weights(folder: Path, setting: str) -> None:
    """Refuses a model folder whose weights could only be read by running what is in them.

    Args:
        folder: The folder of a model in Hugging Face's form.
        setting: Where the configuration names it.

    Raises:
        ModelNotFoundError: It holds no safetensors, or needs code of its own; names the files.
    """
    faults = []
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        faults.append(f"{', '.join(pickles)}, a pickle, which is never read" if pickles else "no *.safetensors")
    if needs_own_code(folder / "config.json"):
        faults.append("a config.json that requires code of its own (auto_map), which is never run")
    if faults:
        raise ModelNotFoundError(
            setting,
            f"{folder} with {' and '.join(faults)}",
            "a model whose weights are safetensors and whose architecture transformers knows",
            "Save it again with `save_pretrained` (safe_serialization is its default), or name another model.",
        )


def needs_own_code(config: Path) -> bool:
    """Whether a model's ``config.json`` names code in its own folder; False where there is no such file, or no JSON."""
    try:
        settings = json.loads(config.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and "auto_map" in settings


def quantization_of(folder: Path) -> str | None:
    """The kind of quantised weights that a folder's ``config.json`` names; None for plain ones."""
    try:
        settings = json.loads((folder / "config.json").read_bytes()).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return None
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else None


def local_folder(source: str, setting: str) -> Path:
    """The folder of a model: ``source`` itself, or what the hub or its local cache holds under that id, without pickles.

    Raises:
        ModelNotFoundError: There is no such folder and the hub does not give it, or it may not be read.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _from_hub(source, setting)
    check_weights(folder, setting)
    return folder


def _from_hub(source: str, setting: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        return Path(snapshot_download(source, allow_patterns=list(_HUB_FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ModelNotFoundError(
            setting,
            f"{source}: no such folder, and the hub does not give it ({type(error).__name__})",
            "a local folder, or a hub id in reach or in the local cache",
            "Correct the name, or download the model and name its folder.",
        ) from error
