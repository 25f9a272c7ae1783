"""A base that cannot hold a conversation is refused when a run starts, and a person reads what was done to its template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import ModelNotFoundError
from tasks.core.storage import Store
from tasks.modeling import template_profile
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.modeling.template_profile import TemplateProfile, describe_template, template_in_store
from tests.support.chat_templates import FAMILIES, tokenizer_of
from tests.support.tiny_bases import build_tiny_base


@pytest.mark.parametrize("family", FAMILIES)
def test_a_person_reads_what_was_done_to_a_template(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    lines = dict(describe_template(tmp_path).summary)
    moved = family in ("gemma-2", "mistral-0.1", "mistral-0.3")
    assert ("moved into the first user message" in lines["template"]) == moved
    assert ("date" in lines) == (family in ("llama-3.2", "granite-3", "gpt-oss"))
    assert ("reply" in lines) == (family in ("qwen-3", "deepseek-r1", "gpt-oss"))
    assert (FAMILIES[family].end or FAMILIES[family].special[1]) in lines["special tokens"]


def damaged(file: str, change: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        path = folder / file
        if isinstance(change, dict):
            path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        elif change is None:
            path.unlink(missing_ok=True)
        else:
            path.write_text(change)

    return write


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ([damaged("tokenizer.json", "{}")], "transformers cannot load"),
        ([damaged("tokenizer.json", "no JSON")], "transformers cannot load"),
        ([damaged("chat_template.jinja", None)], "without a chat template"),
        ([damaged("chat_template.jinja", "{{ raise_exception('no') }}")], "refuses a conversation"),
        ([damaged("chat_template.jinja", "{% if %}")], "refuses a conversation"),
        (
            [damaged("config.json", {"eos_token_id": None}), damaged("tokenizer_config.json", {"eos_token": None})],
            "without an end-of-sequence token",
        ),
    ],
)
def test_a_base_that_cannot_converse_is_refused_when_it_is_resolved(
    damage: list[Callable[[Path], None]], message: str, tmp_path: Path
) -> None:
    folder = build_tiny_base("llama", tmp_path / "base")
    for write in damage:
        write(folder)
    with pytest.raises(ModelNotFoundError, match=message) as caught:
        resolve(BaseModelConfig(source=str(folder), license="mit"), Store(str(tmp_path / "store")))
    assert caught.value.exit_code == 2
    assert str(caught.value).count("found") == 1


def test_a_template_is_described_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path / "store"))
    folder = store.add_folder(build_tiny_base("llama", tmp_path / "base"))
    described = template_in_store(store, folder)
    monkeypatch.setattr(template_profile, "describe_template", lambda folder: pytest.fail("described again"))
    assert template_in_store(store, folder) == described
    assert TemplateProfile.model_validate_json(described.model_dump_json()) == described
