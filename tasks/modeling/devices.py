"""The name of the device that generates on this machine. A light import, because cache keys need it without a model."""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path


@cache
def answering_device() -> str:
    """The name of the GPU if there is one, else of the processor."""
    if has_gpu_driver():
        import torch

        if torch.cuda.is_available():
            name: str = torch.cuda.get_device_name()
            return name
    return f"cpu, {processor_name()}"


def has_gpu_driver() -> bool:
    """Whether PyTorch could find a GPU: NVIDIA's driver library or AMD's device exists.

    Without either PyTorch is not imported, which takes two CPU seconds, a fifth of a retrain in which nothing changed.
    """
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Path("/dev/kfd").exists()
    return True


def processor_name(information: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's model as the kernel names it, else the machine's architecture."""
    lines = information.read_text().splitlines() if information.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
