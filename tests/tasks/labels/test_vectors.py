"""Where the audit's vectors come from: the wheel's model is loaded once, another one whenever it is wanted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tasks.labels import vectors
from tasks.labels.config import LabelAuditConfig
from tasks.modeling.embedding import has_wheel


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, int]]]:
    """The models that were loaded, with their longest text."""
    names: list[tuple[str, int]] = []

    class Embedder:
        def __init__(self, source: str, *, max_tokens: int) -> None:
            self.name = source
            names.append((source, max_tokens))

    vectors._wheel_embedder.cache_clear()
    monkeypatch.setattr(vectors, "SentenceEmbedder", Embedder)
    yield names
    vectors._wheel_embedder.cache_clear()


def choose(**settings: object) -> str:
    return vectors.choose_vectorizer(LabelAuditConfig(**settings)).name  # type: ignore[arg-type]


def test_the_audits_of_a_process_load_the_wheels_model_once(loaded: list[tuple[str, int]]) -> None:
    assert {choose(embedding_model="minilm") for _ in range(3)} == {"minilm"}
    assert loaded == [("minilm", 128)]
    choose(embedding_model="minilm", max_tokens=64)
    assert loaded == [("minilm", 128), ("minilm", 64)], "texts cut elsewhere have other vectors"


@pytest.mark.skipif(not has_wheel(), reason="the wheel is not installed")
def test_auto_shares_it(loaded: list[tuple[str, int]]) -> None:
    choose(embedding_model="minilm")
    choose(embedding_model="auto")
    assert len(loaded) == 1


@pytest.mark.parametrize("source", ["/models/mine", "org/name"])
def test_what_may_change_meanwhile_is_loaded_anew(loaded: list[tuple[str, int]], source: str) -> None:
    choose(embedding_model=source)
    choose(embedding_model=source)
    assert len(loaded) == 2


def test_what_one_audit_learned_does_not_reach_the_next(loaded: list[tuple[str, int]]) -> None:
    config = LabelAuditConfig(embedding_model="minilm")
    assert vectors.choose_vectorizer(config) is not vectors.choose_vectorizer(config)
