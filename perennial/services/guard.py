"""`perennial guard`: reads a policy from a configuration or a file, and filters lines by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.support.config import RetrainConfig, load_config
from tasks.core.errors import ConfigError, InputError
from tasks.core.term_lists import in_full

if TYPE_CHECKING:
    from tasks.guard.filtering import GuardPolicy


def choose_policy(config: Path | None, policy: Path | None) -> GuardPolicy:
    """The policy of a configuration, or the one in a policy file.

    Raises:
        ConfigError: Neither or both are given, or the given file cannot be read.
    """
    from tasks.guard.filtering import read_policy

    if config is not None and policy is None:
        return policy_of(load_config(config))
    if policy is not None and config is None:
        return read_policy(policy)
    found = "both" if config else "neither"
    raise ConfigError("perennial guard", found, "either --config or --policy", "Give one of them.")


def policy_of(settings: RetrainConfig) -> GuardPolicy:
    """The policy of a configuration."""
    from tasks.guard.filtering import GuardPolicy

    full = in_full(settings)
    return GuardPolicy.of(full.guard, full.prepare.pii, full.prepare.confidential)


def filter_lines(policy: GuardPolicy, lines: Iterable[bytes], direction: Literal["input", "output"]) -> Iterator[str]:
    """One output line per input line; see :meth:`tasks.guard.filtering.Guard.filter_lines`."""
    from tasks.guard.filtering import Guard

    return Guard(policy).filter_lines(lines, direction)


def export_policy(policy: GuardPolicy, out: Path) -> None:
    """Writes the policy as JSON after checking that it can be applied; built-in injection patterns are included.

    Raises:
        ConfigError: The policy cannot be applied: a key or a file that it needs is missing.
        InputError: The file cannot be written.
    """
    from tasks.guard.filtering import Guard

    Guard(policy)
    try:
        out.write_text(policy.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(str(out), type(error).__name__, "a file that can be written", "Correct the path.") from error
