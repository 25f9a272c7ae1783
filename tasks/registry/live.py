"""The rollout's state in the registry: one tag of the champion's version. Callers that write hold the model's lock."""

from __future__ import annotations

from typing import Any

from tasks.errors import InputError
from tasks.registry.config import RolloutConfig
from tasks.registry.rollout import ROLLOUT, Rollout, start
from tasks.registry.versions import CHAMPION, PREVIOUS, aliases_of


def prepare(client: Any, name: str, version: str, config: RolloutConfig, now: str) -> None:
    """Plans the rollout of a version that is about to be champion, before it is: a router never sees it without its plan.

    Where the configuration does not ask for one, or no champion would share the traffic, what an earlier attempt planned is
    removed. The reigning champion's rollout stays as it is.
    """
    champion = aliases_of(client, name).get(CHAMPION)
    if champion == version:
        return
    if config.at_promotion and champion is not None:
        client.set_model_version_tag(name, version, ROLLOUT, start(config, champion, now).model_dump_json())
    else:
        client.delete_model_version_tag(name, version, ROLLOUT)


def read_rollout(client: Any, name: str) -> tuple[str, str | None, Rollout | None]:
    """The champion's version, the version that shares its traffic, and the rollout if there is one.

    Raises:
        InputError: There is no champion.
    """
    aliases = aliases_of(client, name)
    version = aliases.get(CHAMPION)
    if version is None:
        raise InputError(f"registered model {name}", "no champion", "a champion", "Run `perennial retrain` first.")
    tag = client.get_model_version(name, version).tags.get(ROLLOUT)
    return version, aliases.get(PREVIOUS), Rollout.model_validate_json(tag) if tag else None


def write_rollout(client: Any, name: str, version: str, rollout: Rollout) -> None:
    """Writes the state in one step."""
    client.set_model_version_tag(name, version, ROLLOUT, rollout.model_dump_json())
