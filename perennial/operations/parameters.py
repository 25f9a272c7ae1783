"""Checks the parameters of a deployments file before they are sent to Prefect.

Prefect stores a deployment's parameters and shows them to every user; a server that rejects them repeats them.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from flows.support.config import MAX_BYTES, describe_faults, size_of
from tasks.core.errors import ConfigError
from tasks.core.term_lists import CONFIDENTIAL, listings_in


def check_parameters(function: Callable[..., Any], parameters: Mapping[str, Any], where: str) -> None:
    """Rejects parameters that the flow rejects, inline confidential lists, and more bytes than a server accepts.

    Args:
        function: The flow's function.
        parameters: The parameters in the file; Prefect's form may request further ones.
        where: Their location, for the error.

    Raises:
        ConfigError: A parameter is invalid; the error names the setting, never its value.
    """
    types = typing.get_type_hints(function)
    for name, value in parameters.items():
        if name not in types:
            raise ConfigError(
                f"{where}.{name}", "a parameter that the flow does not have", ", ".join(types), "Remove or rename it."
            )
        try:
            settings = TypeAdapter(types[name]).validate_python(value)
        except ValidationError as error:
            raise ConfigError(
                f"{where}.{name}",
                describe_faults(error, types[name]),
                "every setting as docs/configuration.md describes it",
                "Correct them and deploy again.",
            ) from None
        for path, listing in listings_in(settings).items() if isinstance(settings, BaseModel) else ():
            if path.rpartition(".")[2] in CONFIDENTIAL and isinstance(listing, tuple) and listing:
                raise ConfigError(
                    f"{where}.{name}.{path}",
                    f"an inline list of {len(listing):,}",
                    "`{file: PATH}`, which the worker reads: Prefect shows parameters to every user",
                    "Put the list into a file on the workers.",
                )
    if (size := size_of(parameters)) > MAX_BYTES:
        raise ConfigError(
            where,
            f"{size:,} bytes",
            f"at most {MAX_BYTES:,} bytes, since Prefect stores them with every run",
            "Put long lists into files: `{file: PATH}`.",
        )
