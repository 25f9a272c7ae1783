"""The name of the device, found without importing PyTorch where there is no GPU."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.modeling import devices


@pytest.fixture(autouse=True)
def uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "answering_device", devices.answering_device.__wrapped__)


@pytest.mark.skipif(devices.has_gpu_driver(), reason="this machine has a GPU's driver")
@pytest.mark.parametrize(
    "program",
    [
        "from tasks.modeling.devices import answering_device; answering_device()",
        "from tasks.benchmark import BenchmarkConfig; BenchmarkConfig().external_fingerprints()",
        "import flows.retrain",
    ],
)
def test_without_a_driver_a_cache_key_imports_no_pytorch(program: str) -> None:
    subprocess.run([sys.executable, "-c", f"{program}; import sys; assert 'torch' not in sys.modules"], check=True)


def test_pytorch_names_the_gpu_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    assert devices.answering_device() == "NVIDIA L4"


def test_a_driver_without_a_device_leaves_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.answering_device().startswith("cpu, ")


def test_the_processor_is_named_from_its_information(tmp_path: Path) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("processor\t: 0\nmodel name\t: Some CPU 9000\n")
    assert devices.processor_name(information) == "Some CPU 9000"
