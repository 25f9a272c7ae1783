"""Looking, making, and what somebody else made in between."""

from __future__ import annotations

import pytest

from tasks.core.ensuring import AlreadyThereError, ensure
from tasks.core.errors import PerennialError


def test_a_thing_is_made_where_it_is_absent_and_found_where_it_is_not() -> None:
    shelf: dict[str, int] = {}
    assert ensure("it", lambda: shelf.get("it"), lambda: shelf.update(it=1)) == (1, True)
    assert ensure("it", lambda: shelf.get("it"), lambda: shelf.update(it=2)) == (1, False)


def test_what_another_made_in_between_is_taken() -> None:
    shelf: dict[str, int] = {}

    def make() -> None:
        shelf["it"] = 7
        raise AlreadyThereError

    assert ensure("it", lambda: shelf.get("it"), make) == (7, False)


def test_a_server_that_has_it_and_shows_it_to_nobody_is_an_explained_error() -> None:
    def make() -> None:
        raise AlreadyThereError

    with pytest.raises(PerennialError, match=r"^it: "):
        ensure("it", lambda: None, make)


def test_other_refusals_pass() -> None:
    def make() -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        ensure("it", lambda: None, make)
