"""A merged model says what the adapter on its base says, and one that does not is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tasks.contracts.references import FolderRef
from tasks.contracts.training import TrainingResult
from tasks.core.errors import StoreError, TrainingError
from tasks.modeling.loading import load_base, load_with_adapter
from tasks.training import merging
from tasks.training.config import SftConfig, TrainingConfig
from tests.support.candidates import make_candidate


@pytest.fixture(scope="module")
def trained(desk: Any, sft_adapter: FolderRef, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    result = make_candidate(desk.store, tmp_path_factory.mktemp("candidate")).trained
    return result.model_copy(update={"base": desk.base, "adapter": sft_adapter})


def test_the_merged_model_is_whole_and_equals_base_and_adapter(desk: Any, trained: TrainingResult) -> None:
    merged = merging.merge_into_base(trained, desk.train)
    assert merged.num_compared_tokens == 4 * merging.NUM_NEW_TOKENS
    assert merged == merging.merge_into_base(trained, desk.train), "the same bytes every time"
    folder = desk.store.fetch_folder(merged.folder)
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "merged.json"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in names)
    assert str(desk.store.local_path) not in (folder / "config.json").read_text()
    base, adapter = desk.store.fetch_folder(desk.base.folder), desk.store.fetch_folder(trained.adapter)
    ids = torch.arange(3, 23)[None]
    expected = load_with_adapter(base, adapter, dtype=torch.float32)(ids).logits
    torch.testing.assert_close(load_base(folder, dtype=torch.float32)(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(load_base(base, dtype=torch.float32)(ids).logits, expected, atol=1e-2)


def test_a_model_that_reads_back_otherwise_is_refused(
    desk: Any, trained: TrainingResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_damaged(folder: Path, **options: Any) -> Any:
        weights = load_file(folder / "model.safetensors")
        weights["model.norm.weight"] = -weights["model.norm.weight"]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return load_base(folder, **options)

    monkeypatch.setattr(merging, "load_base", load_damaged)
    before = set((desk.store.local_path / "work").glob("*"))
    with pytest.raises(TrainingError, match=r"reading it back, reply 1 of 4 differs from token \d+ on"):
        merging.merge_into_base(trained, desk.train)
    assert set((desk.store.local_path / "work").glob("*")) == before, "nothing is left behind"


def test_a_model_that_has_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="for the merged model"):
        merging.check_room(tmp_path, 10**15)


def test_merging_without_an_adapter_is_refused_with_the_configuration() -> None:
    with pytest.raises(ValidationError, match="merge needs an adapter"):
        TrainingConfig(sft=SftConfig(lora=None), merge=True)
