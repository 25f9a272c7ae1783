"""Lists of the settings go by reference and come back as they were, wherever in the settings they stand."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tasks.confidential import ConfidentialConfig
from tasks.confidential.filtering import ConfidentialMatcher
from tasks.core.cache_key import content_of
from tasks.core.errors import ConfigError, IntegrityError
from tasks.core.storage import open_store
from tasks.core.term_lists import KeptList, ListFile, Listing, by_reference, in_full, items_of, listings_in


class Inner(BaseModel):
    words: Listing = ()
    name: str = "inner"


class Outer(BaseModel):
    inner: Inner = Inner()
    several: tuple[Inner, ...] = ()
    own: Listing = ()
    nothing: Inner | None = None


TERMS = st.lists(st.text(st.characters(codec=None), max_size=20), max_size=5).map(tuple)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=TERMS, second=TERMS, third=TERMS)
def test_what_goes_by_reference_comes_back(
    tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], third: tuple[str, ...]
) -> None:
    given_ = Outer(inner=Inner(words=first), several=(Inner(words=second), Inner()), own=third)
    sent = by_reference(given_, open_store(tmp_path))
    assert by_reference(sent, open_store(tmp_path)) == sent
    assert type(given_).model_validate(sent.model_dump(mode="json")) == sent
    assert in_full(sent) == given_
    assert all(isinstance(listing, KeptList) or listing == () for listing in listings_in(sent).values())
    assert content_of(sent) == content_of(by_reference(given_, open_store(tmp_path)))


def test_a_file_is_read_without_comments_and_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "terms.txt").write_text("﻿Bluefinch\n\n# a comment\n Hollow Maple # another\n", encoding="utf-8")
    own = Outer(own=ListFile(file=str(tmp_path / "terms.txt")))
    in_place = Outer(own=("Bluefinch", "Hollow Maple"))
    assert in_full(own) == in_place
    assert by_reference(own, open_store(tmp_path)) == by_reference(in_place, open_store(tmp_path))


def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    for name in ("absent.txt", "latin.txt", ""):
        listing = Outer(inner=Inner(words=ListFile(file=str(tmp_path / name))))
        with pytest.raises(ConfigError, match=r"inner\.words\.file"):
            by_reference(listing, open_store(tmp_path))


def test_a_list_that_was_altered_or_is_gone_is_not_used(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    sent = by_reference(Outer(own=("Bluefinch",)), store)
    (path,) = (tmp_path / "files").rglob("*.json")
    path.write_text('["Other"]')
    with pytest.raises(IntegrityError):
        in_full(sent)
    path.unlink()
    with pytest.raises(IntegrityError):
        in_full(sent)


def test_a_list_that_was_not_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    sent = by_reference(ConfidentialConfig(denied_terms=("Bluefinch",)), open_store(tmp_path))
    with pytest.raises(AssertionError):
        items_of(sent.denied_terms)
    with pytest.raises(AssertionError):
        ConfidentialMatcher(sent)
    assert ConfidentialMatcher(in_full(sent)).find("about Bluefinch")
