"""The device that models answer on here. Light, because the key of a stage asks for it where no model is loaded."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path


@cache
def answering_device() -> str:
    """The GPU's own name where there is one, else the processor's."""
    if _has_gpu_driver():
        import torch

        if torch.cuda.is_available():
            name: str = torch.cuda.get_device_name()
            return name
    return f"cpu, {_processor_name()}"


def _has_gpu_driver() -> bool:
    """Whether PyTorch could find a GPU at all: without NVIDIA's driver library or AMD's device it need not be asked.

    Importing PyTorch takes two CPU seconds, a fifth of a retrain in which nothing changed.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def _processor_name(information: Path = Path("/proc/cpuinfo")) -> str:
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
