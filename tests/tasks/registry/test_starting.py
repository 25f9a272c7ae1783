"""Where a training starts that is to continue the champion, and what is refused or said where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contracts.training import BaseLanguageModel, Start, StartingPoint
from tasks.core.storage import Store
from tasks.registry.starting import starting_point, with_learned_rows
from tasks.registry.versions import Candidate, champion_of, register, started_from
from tests.support.candidates import make_candidate

LEARNED, NEW, FROZEN = "c" * 64, "e" * 64, "f" * 64


@pytest.fixture
def candidate(store: Store, tmp_path: Path) -> Candidate:
    made = make_candidate(store, tmp_path)
    return replace(made, lineage={**made.lineage, "frozen_sha256": FROZEN})


def start_for(client: Any, name: str, candidate: Candidate, **changes: Any) -> Start:
    """The start of a run over new rows, on the champion's base and frozen examples but for the changes."""
    run: dict[str, Any] = {"base": candidate.trained.base, "rows": NEW, "frozen": FROZEN, **changes}
    rows, frozen = (candidate.scores.dataset.model_copy(update={"sha256": run[part]}) for part in ("rows", "frozen"))
    return starting_point(client, champion_of(client, name), run["base"], rows, frozen)


def champion(client: Any, name: str, candidate: Candidate) -> str:
    version = register(client, name, candidate).version
    client.set_registered_model_alias(name, "champion", version)
    return version


def test_new_rows_continue_the_champion_and_every_ancestor_is_named(
    client: Any, name: str, candidate: Candidate, store: Store, tmp_path: Path
) -> None:
    assert start_for(client, name, candidate).reason == "the base model: there is no champion yet"
    first = champion(client, name, candidate)
    start = start_for(client, name, candidate)
    assert start == Start(point=StartingPoint(version=first, adapter=candidate.trained.adapter), reason=f"version {first}")

    second = replace(
        candidate,
        trained=make_candidate(store, tmp_path, number=2).trained,
        lineage={**candidate.lineage, "train_sha256": NEW},
        started_from=start.point,
    )
    newer = champion(client, name, second)
    assert started_from(client.get_model_version(name, newer).tags) == start.point
    third = start_for(client, name, candidate, rows="d" * 64).point
    assert third is not None
    assert (third.version, third.ancestors, third.versions) == (newer, (first,), (first, newer))
    # The run that made the champion, once more: it starts where it started, and finds its training done.
    again = start_for(client, name, candidate)
    assert again == Start(point=start.point, reason=f"version {first}, as version {newer} did, which learned these rows")


def test_a_champion_that_learned_these_rows_from_the_base_is_not_their_start(
    client: Any, name: str, candidate: Candidate
) -> None:
    version = champion(client, name, candidate)
    start = start_for(client, name, candidate, rows=LEARNED)
    assert start == Start(reason=f"the base model, as version {version} did, which learned these rows")


@pytest.mark.parametrize("differs", ["base", "frozen"])
def test_another_base_or_other_frozen_examples_start_from_the_base_and_say_so(
    client: Any, name: str, candidate: Candidate, differs: str
) -> None:
    version = champion(client, name, candidate)
    folder = candidate.trained.base.folder.model_copy(update={"sha256": "9" * 64})
    other = BaseLanguageModel(name="other", folder=folder, license="apache-2.0", num_parameters=1)
    start = start_for(client, name, candidate, **{differs: other if differs == "base" else "9" * 64})
    why = {
        "base": f"version {version} has another one, tiny",
        "frozen": f"version {version} was measured on other frozen examples, and may have learned the present ones",
    }
    assert start == Start(reason=f"the base model: {why[differs]}")


def test_the_rows_of_every_ancestor_are_found_and_those_that_the_store_lacks_are_named(
    client: Any, name: str, candidate: Candidate, store: Store, tmp_path: Path
) -> None:
    first = champion(client, name, candidate)
    rows = store.write_rows([], kind="messages", passed=["decontaminated"])
    trained = make_candidate(store, tmp_path, number=2).trained
    lineage = {**candidate.lineage, "train_sha256": rows.sha256}
    second = champion(client, name, replace(candidate, trained=trained, lineage=lineage))
    point = StartingPoint(version=second, adapter=trained.adapter, ancestors=(first,))
    start = with_learned_rows(client, name, Start(point=point, reason=f"version {second}"), store)
    assert start.learned == (rows,)
    assert start.reason == f"version {second} (the store lacks the rows of version {first}, which count as new)"
