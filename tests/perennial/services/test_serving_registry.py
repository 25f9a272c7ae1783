"""The embedded server over a real registry: it answers from the registered files, and from no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from peft import LoraConfig, get_peft_model

from perennial.services.serving import create_app
from perennial.services.serving_counts import LiveCounts
from perennial.services.serving_versions import Versions, load_from_registry
from tasks.contracts.training import BaseLanguageModel
from tasks.core.errors import IntegrityError
from tasks.core.storage import open_store
from tasks.modeling.loading import load_base
from tasks.registry.live import read_traffic
from tasks.registry.versions import register
from tasks.tracking import connect
from tests.support.candidates import decide, make_candidate, make_from

TOKEN = "0123456789abcdef"


@pytest.fixture
def registry(tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """MLflow with two versions of a tiny model, the first of them champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    client, store = connect(), open_store(tmp_path / "store")
    client.create_registered_model("desk")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(tiny_model_dir), license="apache-2.0", num_parameters=1)
    made = make_candidate(store, tmp_path)
    for seed in (1, 2):
        torch.manual_seed(seed)
        lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(load_base(tiny_model_dir), lora).save_pretrained(tmp_path / f"trained-{seed}")
        adapter = store.add_folder(tmp_path / f"trained-{seed}")
        register(client, "desk", make_from(adapter, base, made.scores.dataset, made.trained.curves, decide()))
    client.set_registered_model_alias("desk", "champion", "1")
    return client


def test_the_server_answers_from_the_registered_files_and_follows_the_champion(registry: Any, tmp_path: Path) -> None:
    versions = Versions(lambda: read_traffic(registry, "desk"), lambda alias: load_from_registry(registry, "desk", alias))
    versions.follow()
    question = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 6}
    with TestClient(create_app("desk", versions, LiveCounts(None), TOKEN)) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        first = client.post("/v1/chat/completions", json=question).json()
        again = client.post("/v1/chat/completions", json=question).json()
        digests = registry.get_model_version("desk", "2").tags["perennial.files"]
        registry.set_model_version_tag("desk", "2", "perennial.files", "{}")  # its files are then other files
        registry.set_registered_model_alias("desk", "champion", "2")
        with pytest.raises(IntegrityError, match="a file that was not registered"):
            versions.follow()
        assert client.post("/v1/chat/completions", json=question).json()["model"] == "desk@1"
        registry.set_model_version_tag("desk", "2", "perennial.files", digests)
        versions.follow()
        second = client.post("/v1/chat/completions", json=question).json()
    assert first["choices"] == again["choices"]
    assert (first["model"], second["model"]) == ("desk@1", "desk@2")
    assert first["choices"][0]["message"]["content"]
    assert first["choices"][0]["finish_reason"] == "length"
