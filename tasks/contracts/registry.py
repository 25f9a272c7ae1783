"""Model versions, approvals and changes of champion."""

from __future__ import annotations

from typing import Literal

from tasks.contracts.base import Contract
from tasks.contracts.references import FolderRef
from tasks.contracts.training import BaseLanguageModel


class RegisteredVersion(Contract):
    """A model version in the MLflow registry."""

    name: str
    version: str
    run_id: str
    source_uri: str
    aliases: tuple[str, ...] = ()


class Champion(Contract):
    """The reigning champion, with what is needed to benchmark it again."""

    version: RegisteredVersion
    base: BaseLanguageModel
    adapter: FolderRef


class Approval(Contract):
    """A person's word on a candidate: the question, and the answer once there is one; times are ISO 8601 in UTC.

    The registry keeps it as a tag of the model version; that tag is the only record that counts. A question that another
    champion has outdated is ``withdrawn``: nobody may answer it any more. ``also_waiting`` are flow runs that asked the same
    question before and wait for its answer too.
    """

    outcome: Literal["PROMOTE", "NEEDS_HUMAN"]
    champion_version: str | None
    asked_at: str
    expires_at: str | None = None
    flow_run_id: str | None = None
    also_waiting: tuple[str, ...] = ()
    verdict: Literal["approve", "reject", "withdrawn"] | None = None
    by: str | None = None
    reason: str | None = None
    answered_at: str | None = None


class PromotionRecord(Contract):
    """What promotion did: the version that now holds ``champion``, and the one it replaced.

    ``rollout_share`` is the share of the traffic, in per cent, of a candidate whose rollout is under way: it is not champion
    yet. ``late`` says why an answer was not taken; the rest is then what stands.
    """

    candidate: RegisteredVersion
    promoted: bool
    champion_version: str | None
    previous_version: str | None
    reason: str
    approval: Approval | None = None
    rollout_share: int | None = None
    late: str | None = None


class ChampionEvent(Contract):
    """One change, as the registry remembers it; ``at`` is ISO 8601 in UTC, ``by`` the person who approved it or did it.

    ``rollout`` and ``abort`` begin and end a rollout; the champion, ``replaced``, stays what it is.
    """

    action: Literal["promote", "rollback", "rollout", "abort"]
    version: str
    replaced: str | None
    reason: str
    at: str
    by: str | None = None


class RollbackPlan(Contract):
    """What a rollback would do now: ``returns`` gets all the traffic, ``leaves`` none; under ``rollout`` no alias moves."""

    name: str
    returns: str
    leaves: str
    rollout: bool = False
    returns_run: str | None = None
    returns_since: str | None = None


class RegistryMark(Contract):
    """The registries that versions of a model were registered in from a store, by when each made the model.

    The time, in milliseconds since 1970, is the registry's own: it outlives a move of its database to another place, and
    differs in every other registry.
    """

    created_at_ms: tuple[int, ...]
