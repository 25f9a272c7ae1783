"""The price table: what an hour of a device costs, for training and for serving alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

PriceTable = Mapping[str, Annotated[float, Field(ge=0, allow_inf_nan=False)]]
"""Price of an hour by device: ``cpu``, ``cuda``, or a part of the device's name such as ``H100``."""


def price_of(table: Mapping[str, float], device: str, name: str) -> float | None:
    """The price of one hour of a device, None where the table has none.

    Args:
        table: As :data:`PriceTable`; case is ignored.
        device: ``cpu`` or ``cuda``.
        name: The device's own name, such as ``NVIDIA H100 80GB HBM3``.
    """
    matches = [key for key in table if key.lower() == device or key.lower() in name.lower()]
    # A name says more than a kind, and a longer part of it more than a shorter one.
    best = max(matches, key=lambda key: (key.lower() != device, len(key)), default=None)
    return None if best is None else table[best]
