"""What this machine offers a trainer."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil

import psutil
import torch

from tasks.core.errors import ConfigError
from tasks.modeling.loading import best_dtype
from tasks.training.planning import Hardware


def find_hardware(device: str) -> Hardware:
    """The device to train on, what it has and what of it is free.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA when there is a device.

    Raises:
        ConfigError: CUDA was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "training.device", "no CUDA device", "one that this PyTorch build can use", "Set `device` to auto or cpu."
        )
    if device != "cpu" and torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Hardware(
            device="cuda",
            name=torch.cuda.get_device_name(),
            num_devices=torch.cuda.device_count(),
            memory_bytes=total,
            free_memory_bytes=free,
            supports_bfloat16=best_dtype("cuda") == torch.bfloat16,
            supports_packed_attention=torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0),
            supports_liger_kernel=_can_build_kernels() and importlib.util.find_spec("liger_kernel") is not None,
        )
    memory = psutil.virtual_memory()
    return Hardware(
        device="cpu",
        name=f"CPU, {available_cores()} cores",
        num_devices=1,
        memory_bytes=memory.total,
        free_memory_bytes=memory.available,
        supports_bfloat16=best_dtype("cpu") == torch.bfloat16,
    )


def peak_memory_bytes() -> int:
    """The most memory that this process has held: of its GPU where there is one, else of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _can_build_kernels() -> bool:
    """Whether Triton is there, and the C compiler that it calls for every kernel's launcher."""
    compilers = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(map(shutil.which, compilers))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
