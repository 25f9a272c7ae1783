"""An adapter that a base cannot take is refused before a row is read, and one that it can take is tried once."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import get_peft_model

from tasks.contracts.training import StartingPoint
from tasks.core.errors import ConfigError
from tasks.core.storage import Store
from tasks.modeling.loading import load_base
from tasks.training.config import LoraSettings
from tasks.training.plan import adapters
from tasks.training.plan.adapter_check import check_adapter, check_start
from tests.support.tiny_bases import build_tiny_base


@pytest.mark.parametrize(
    ("name", "modules", "message"),
    [
        ("qwen3", ("embed_tokens",), "one and the same tensor"),
        ("gpt2", ("no_such_module",), "not found"),
        ("granite", ("lm_head",), "output embeddings"),
        ("falcon_h1", ("in_proj", "out_proj"), "incompatible"),
    ],
)
def test_what_a_base_cannot_take_is_refused_in_pefts_words(
    name: str, modules: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store"))
    base = store.add_folder(build_tiny_base(name, tmp_path / "base"))
    with pytest.raises(ConfigError, match=rf"training\.sft\.lora\.target_modules.*{message}"):
        check_adapter(base, LoraSettings(target_modules=modules), store)


def test_an_adapter_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"))
    base = store.add_folder(build_tiny_base("llama", tmp_path / "base"))
    check_adapter(base, LoraSettings(r=4), store)
    monkeypatch.setattr(adapters, "count_trainable", lambda *arguments: pytest.fail("tried again"))
    check_adapter(base, LoraSettings(r=4), store)


@pytest.mark.parametrize(
    "settings",
    [
        LoraSettings(r=8),
        LoraSettings(r=4, lora_alpha=4),
        LoraSettings(r=4, lora_dropout=0.1),
        LoraSettings(r=4, use_rslora=True),
        LoraSettings(r=4, target_modules=("q_proj",)),
        None,
    ],
)
def test_an_adapter_is_continued_in_its_own_settings_alone(settings: LoraSettings | None, tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path / "store")), build_tiny_base("llama", tmp_path / "base")
    base = store.add_folder(folder)
    trained = get_peft_model(load_base(folder), adapters.lora_config(LoraSettings(r=4), folder))
    trained.save_pretrained(tmp_path / "adapter")
    start = StartingPoint(version="3", adapter=store.add_folder(tmp_path / "adapter"))
    check_start(start, base, LoraSettings(r=4), store)
    with pytest.raises(ConfigError, match=r"training\.sft\.lora: .*the settings of version 3, whose adapter is continued"):
        check_start(start, base, settings, store)
    whole = StartingPoint(version="3", adapter=base)
    with pytest.raises(ConfigError, match=r"set `training\.start_from: base`"):
        check_start(whole, base, LoraSettings(r=4), store)
