"""Models that others made: a pickle or code of their own is refused by name, and nothing of it runs."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ModelNotFoundError
from tasks.core.storage import open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.embedding import SentenceEmbedder
from tasks.modeling.resolution import resolve
from tasks.modeling.weights import check_weights
from tasks.monitoring.comparing import embed
from tasks.pii.config import NerConfig
from tasks.pii.detect.ner import load_names


class Command:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def gliner(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the place of a package that is not installed: it would read the pickle."""

    class GLiNER:
        @staticmethod
        def from_pretrained(folder: str) -> None:
            pickle.loads((Path(folder) / "pytorch_model.bin").read_bytes())

    module = types.ModuleType("gliner")
    module.GLiNER = GLiNER  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gliner", module)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose weights are a pickle that makes a folder."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    path = tmp_path / "model"
    path.mkdir()
    (path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\n", encoding="utf-8")
    BertTokenizerFast(vocab_file=str(path / "vocab.txt")).save_pretrained(path)
    config = BertConfig(vocab_size=6, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    BertModel(config).save_pretrained(path)
    (path / "model.safetensors").rename(tmp_path / "honest.safetensors")
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Command(tmp_path / "it-ran")))
    return path


LOADERS: dict[str, Callable[[Path], Any]] = {
    "embedding": lambda path: SentenceEmbedder(str(path)),
    "names": lambda path: load_names(NerConfig(engine="transformers", model=str(path))),
    "gliner": lambda path: load_names(NerConfig(engine="gliner", model=str(path))),
    "base model": lambda path: resolve(BaseModelConfig(source=str(path)), open_store(path.parent / "store")),
    "drift": lambda path: embed(["hello"], ["hello"], str(path), lambda done, total: None),
}


@pytest.mark.usefixtures("gliner")
@pytest.mark.parametrize("loader", LOADERS)
def test_a_pickle_is_refused_by_name(folder: Path, loader: str) -> None:
    with pytest.raises(ModelNotFoundError, match="pickle"):
        LOADERS[loader](folder)
    assert not (folder.parent / "it-ran").exists()


def test_the_pickle_beside_safetensors_is_not_read(folder: Path) -> None:
    shutil.copy(folder.parent / "honest.safetensors", folder / "model.safetensors")
    assert SentenceEmbedder(str(folder)).embed(["hello"]).shape == (1, 8)
    assert not (folder.parent / "it-ran").exists()


def test_code_of_the_models_own_is_refused_by_name(folder: Path) -> None:
    shutil.copy(folder.parent / "honest.safetensors", folder / "model.safetensors")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "auto_map": {"AutoModel": "code.Model"}}))
    with pytest.raises(ModelNotFoundError, match="auto_map"):
        SentenceEmbedder(str(folder))


@pytest.mark.parametrize("name", ["model.pt", "weights.ckpt", "classifier.joblib"])
def test_other_pickles_are_named_too(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ModelNotFoundError, match=name):
        check_weights(tmp_path, "a setting")
