"""The devices to train on: those of this machine, or those that a configuration declares."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
from dataclasses import dataclass

import psutil
import torch

from tasks.core.errors import ConfigError
from tasks.modeling.loading import best_dtype
from tasks.training.config import HardwareConfig


@dataclass(frozen=True)
class Hardware:
    """The devices to train on.

    Attributes:
        memory_bytes: All the memory of one device. It decides micro-batch, checkpointing and quantisation, and so the model:
            what else runs on the device has no part in it.
        free_memory_bytes: The memory that is free now. It decides only whether training can begin; None where nothing else
            runs.
    """

    device: str
    name: str
    num_devices: int
    memory_bytes: int
    supports_bfloat16: bool
    supports_packed_attention: bool = False
    supports_liger_kernel: bool = False
    free_memory_bytes: int | None = None

    @property
    def room_bytes(self) -> int:
        """The memory that training may use now."""
        return self.memory_bytes if self.free_memory_bytes is None else self.free_memory_bytes


def declared_hardware(declared: HardwareConfig) -> Hardware:
    """The devices that a configuration declares, with nothing else running on them."""
    on_gpu = declared.device == "cuda"
    return Hardware(
        device=declared.device,
        name=declared.name,
        num_devices=declared.count,
        memory_bytes=int(declared.memory_gb * 1e9),
        supports_bfloat16=on_gpu,
        supports_packed_attention=on_gpu and declared.packed_attention,
        supports_liger_kernel=on_gpu and declared.liger_kernel,
    )


def find_hardware(device: str) -> Hardware:
    """The device of this machine to train on, with its memory.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA when there is a device.

    Raises:
        ConfigError: The device is ``cuda`` and the machine has none.
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
    """The most memory that this process has held: on its GPU if it has one, else on the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _can_build_kernels() -> bool:
    """Whether Triton is installed, and the C compiler that it calls for every kernel's launcher."""
    compilers = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return importlib.util.find_spec("triton") is not None and any(map(shutil.which, compilers))


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
