"""The embedded server over a real registry: it answers from the registered files, and from no other."""

from __future__ import annotations

import sys
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
from tasks.core.source_hash import file_of
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
    client = connect()
    client.create_registered_model("desk")
    for seed in (1, 2):
        add_version(client, tmp_path, tiny_model_dir, seed)
    client.set_registered_model_alias("desk", "champion", "1")
    return client


def add_version(client: Any, folder: Path, model: Path, seed: int) -> None:
    """Registers a version whose adapter is drawn by a seed."""
    store = open_store(folder / "store")
    base = BaseLanguageModel(name="tiny", folder=store.add_folder(model), license="apache-2.0", num_parameters=1)
    made = make_candidate(store, folder)
    torch.manual_seed(seed)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(load_base(model), lora).save_pretrained(folder / f"trained-{seed}")
    adapter = store.add_folder(folder / f"trained-{seed}")
    register(client, "desk", make_from(adapter, base, made.scores.dataset, made.trained.curves, decide()))


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


def test_each_version_is_prompted_by_the_code_that_it_carries(
    registry: Any, tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered = tmp_path / "conversations.py"
    raising = "\n\ndef prompt_token_ids(tokenizer, messages):\n    raise ValueError('the code of version 3')\n"
    altered.write_text(file_of("tasks.modeling.conversations").read_text() + raising)
    with monkeypatch.context() as patched:
        patched.setattr(
            "tasks.registry.served_code.file_of",
            lambda module: altered if module == "tasks.modeling.conversations" else file_of(module),
        )
        add_version(registry, tmp_path, tiny_model_dir, 3)
    registry.set_registered_model_alias("desk", "rollout", "3")
    paths = list(sys.path)
    (_, first), (version, third) = (load_from_registry(registry, "desk", alias) for alias in ("champion", "rollout"))
    question = [{"role": "user", "content": "Hello"}]
    assert version == "3"
    assert first(question, 6)[0]
    with pytest.raises(ValueError, match="the code of version 3"):
        third(question, 6)
    assert first(question, 6)[0]
    assert sys.path == paths
