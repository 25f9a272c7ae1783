"""Model versions, approvals and changes of champion."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The current champion, with what is needed to benchmark it again."""

    version: RegisteredVersion
    base: BaseLanguageModel
    adapter: FolderRef


class Verdict(Contract):
    """A decision of the gate on a version; ``question`` is the digest of the settings that decide, ``figures`` the gain."""

    run_name: str
    outcome: Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]
    primary_metric: str
    question: str
    champion_version: str | None = None
    reason: str = ""
    figures: Mapping[str, str] = {}


Identity = Literal["typed", "token", "proxy"]
"""How the name of a person is known: typed by that person, from a signed token, or from an authenticating proxy."""


def known_as(name: str | None, identity: Identity | None) -> str:
    """A name, with how it is known; records of older releases do not say that."""
    words = {"typed": " (typed)", "token": " (signed token)", "proxy": " (authenticating proxy)", None: ""}
    return f"{name}{words[identity]}"


class Vote(Contract):
    """One person's approval, where several are required; ``at`` is ISO 8601 in UTC."""

    by: str
    identity: Identity
    reason: str
    at: str


class Approval(Contract):
    """Manual approval of a candidate: the request, and the answer if there is one; times are ISO 8601 in UTC.

    The authoritative record is a tag of the model version. A request that another champion has outdated is ``withdrawn`` and
    can no longer be answered. ``also_waiting`` are flow runs that made the same request before and wait for its answer too.

    ``approvers`` may answer, anybody where it is empty; ``required`` different people must approve. ``excluded``, who
    started the run, may not. With ``verified`` a typed name does not count. ``votes`` are the approvals where several are
    required; ``by`` then names all, and ``identity`` is None.
    """

    outcome: Literal["PROMOTE", "NEEDS_HUMAN"]
    champion_version: str | None
    requested_at: str
    expires_at: str | None = None
    flow_run_id: str | None = None
    also_waiting: tuple[str, ...] = ()
    verdict: Literal["approve", "reject", "withdrawn"] | None = None
    by: str | None = None
    reason: str | None = None
    answered_at: str | None = None
    identity: Identity | None = None
    approvers: tuple[str, ...] = ()
    required: int = 1
    excluded: str | None = None
    verified: bool = False
    votes: tuple[Vote, ...] = ()


class PromotionRecord(Contract):
    """The outcome of a promotion: the version that now has the alias ``champion``, and the one it replaced.

    ``rollout_share`` is the share of the traffic, in per cent, of a candidate under rollout, which is not champion yet.
    ``late`` explains why an answer was rejected; the other fields then show the unchanged state.
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
    """One change in the registry; ``at`` is ISO 8601 in UTC, ``by`` the person who approved or made it.

    ``identity`` says how that name is known.

    ``run`` is the run whose verdict led to a promotion.

    ``rollout`` and ``abort`` start and end a rollout; they do not change the champion, ``replaced``.
    """

    action: Literal["promote", "rollback", "rollout", "abort"]
    version: str
    replaced: str | None
    reason: str
    at: str
    by: str | None = None
    identity: Identity | None = None
    run: str | None = None


class SignalReading(Contract):
    """A live signal of the version under rollout and of the champion, since the rollout started.

    ``low`` and ``high`` bound the ratio of their odds at every look together, None where open; ``limit`` is the largest
    acceptable ratio, and ``exceeds`` whether it is shown to be exceeded.
    """

    name: str
    events: int
    trials: int
    champion_events: int
    champion_trials: int
    low: float | None
    high: float | None
    limit: float
    exceeds: bool


class RolloutVerdict(Contract):
    """What one look at a rollout did, and why; ``none`` where no rollout is in progress."""

    action: Literal["advance", "wait", "abort", "none"]
    reason: str
    readings: tuple[SignalReading, ...] = ()


class RolloutTick(Contract):
    """The state after one look at a rollout; ``share`` is that of ``version`` in per cent, None without a rollout."""

    name: str
    champion: str
    version: str
    share: int | None
    verdict: RolloutVerdict


class RollbackPlan(Contract):
    """The effect of a rollback: ``returns`` gets all the traffic, ``leaves`` none; with ``rollout`` no alias moves.

    ``to`` is the version that a person named. With ``already`` a rollback has put ``returns`` there before, and none is due.
    """

    name: str
    returns: str
    leaves: str
    rollout: bool = False
    returns_run: str | None = None
    returns_since: str | None = None
    to: str | None = None
    already: bool = False


class RegistryMark(Contract):
    """The registries with versions of a model from a store, by the creation time of the model in each.

    The time, in milliseconds since 1970, comes from the registry: it survives a move of the database and differs between
    registries.
    """

    created_at_ms: tuple[int, ...]
