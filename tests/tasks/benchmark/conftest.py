"""Models for the benchmark's tests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tasks.modeling.loading import load_base


@pytest.fixture(scope="module")
def adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the model visibly, without training one."""
    torch.manual_seed(0)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(load_base(tiny_model_dir), lora)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return folder
