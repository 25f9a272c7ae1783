"""Exceptions of libraries, by what they mean for a training: out of memory, or settings that the base does not allow."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tasks.core.errors import ConfigError, PerennialError
from tasks.modeling.profile import library_message
from tasks.training.trainer.ranks import world_size

_MEMORY_ERRORS = ("can't allocate memory", "CUDA out of memory", "std::bad_alloc", "CUBLAS_STATUS_ALLOC_FAILED")

_OF_THE_MACHINE = ("No space left", "CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an exception says that an allocation failed, on the device or on the machine."""
    out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return out_of_memory or any(message in str(error) for message in _MEMORY_ERRORS)


@contextmanager
def refusing(doing: str) -> Iterator[None]:
    """Turns what a library raises before the first step into a refusal with its own message: repeating would not help.

    Nothing renders a text here, so the message quotes none. Memory, devices, files and the network have endings of their
    own, and one of several processes may only have noticed that another is gone.

    Args:
        doing: What is done, for the message.

    Raises:
        ConfigError: A library raised.
    """
    try:
        yield
    except (PerennialError, OSError):
        raise
    except Exception as error:
        if is_out_of_memory(error) or world_size() > 1 or any(message in str(error) for message in _OF_THE_MACHINE):
            raise
        traceback.print_exc()
        raise ConfigError(
            "training.base_model",
            f"{library_message(error)}, while {doing}",
            "a base model and settings that train together",
            "Change the setting that the message names, or the base model; `trainer.log` in the work folder says more.",
        ) from error
