"""Preference rows that the chat template refuses end a run before training, within the share that training may leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.storage import open_store
from tasks.modeling.config import BaseModelConfig
from tasks.modeling.resolution import resolve
from tasks.training import DpoConfig, KtoConfig, check_test_rows
from tests.support.chat_templates import FAMILIES
from tests.support.tiny_model import desk_row


def test_preference_rows_are_checked_against_the_share_of_their_training(tiny_model_dir: Path, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    template = FAMILIES["gemma-2"].template
    base = resolve(BaseModelConfig(source=str(tiny_model_dir), chat_template=template, license="mit"), store)
    user, reply = desk_row(1)["messages"]  # type: ignore[misc]
    frozen = store.write_rows([desk_row(1)], kind="messages")

    def pair(name: str, prompt: list[Any]) -> dict[str, Any]:
        return {"id": name, "prompt": prompt, "chosen": [reply], "rejected": [reply]}

    pairs = store.write_rows([pair("odd", [user, user]), *(pair(f"p{n}", [user]) for n in range(3))], kind="preferences")
    for method in (DpoConfig, KtoConfig):
        assert check_test_rows.fn(base, frozen, None, pairs, method(max_refused_share=0.25)) == base
        with pytest.raises(InputError, match=r"1 of 4 rows .* odd"):
            check_test_rows.fn(base, frozen, None, pairs, method(max_refused_share=0.2))
    assert check_test_rows.fn(base, frozen, None, pairs, None) == base
