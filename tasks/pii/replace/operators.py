"""What stands in the text where personal data stood: Presidio operators, spliced in by its ``AnonymizerEngine``.

``placeholder`` and ``redact`` are Presidio's own ``replace`` and ``redact``; the others are operators of this project.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig, RecognizerResult
from presidio_anonymizer.operators import Operator, OperatorType, Redact, Replace

from tasks.pii.entities import ENTITIES
from tasks.pii.policy import Policy
from tasks.pii.replace.record import RecordPeople
from tasks.pii.replace.surrogates import surrogate
from tasks.pii.spans import Span

PLACEHOLDER = re.compile(rf"<(?:{'|'.join(sorted(ENTITIES))})(?::[0-9a-f]{{12}}|_\d{{1,4}})?>")
"""What the scrubber itself writes; never scrubbed again, so that scrubbing twice equals scrubbing once. Only the entities'
own names count: ``<MARIA_KELLER>`` is somebody's name in brackets."""


class _OwnOperator(Operator):  # type: ignore[misc]
    """An operator whose parameters come from a checked policy."""

    NAME = ""

    def validate(self, params: dict[str, Any] | None = None) -> None:
        """Nothing to validate: the policy did."""

    def operator_name(self) -> str:
        """Its name in a configuration."""
        return self.NAME

    def operator_type(self) -> OperatorType:
        """An anonymizer."""
        return OperatorType.Anonymize


class MaskOperator(_OwnOperator):
    """A star for each character but spaces."""

    NAME = "mask"

    def operate(self, text: str, params: dict[str, Any]) -> str:
        """The mask of a value."""
        return "".join(character if character.isspace() else "*" for character in text)


class HashOperator(_OwnOperator):
    """A placeholder with the first digits of a keyed hash."""

    NAME = "hash"

    def operate(self, text: str, params: dict[str, Any]) -> str:
        """The hash of a value; the same in any case and spacing."""
        folded = " ".join(text.casefold().split())
        message = f"hash\0{params['entity_type']}\0{folded}".encode()
        return f"<{params['entity_type']}:{hmac.new(params['key'], message, hashlib.sha256).hexdigest()[:12]}>"


class SurrogateOperator(_OwnOperator):
    """A made-up value of the same kind, or the placeholder of an entity that has none."""

    NAME = "surrogate"

    def operate(self, text: str, params: dict[str, Any]) -> str:
        """The surrogate of a value."""
        people, entity = params["people"], params["entity_type"]
        made = surrogate(entity, text, params["key"]) if people is None else people.surrogate(entity, text)
        return f"<{params['entity_type']}>" if made is None else made


class NumberedOperator(_OwnOperator):
    """A placeholder with a number within the record."""

    NAME = "numbered"

    def operate(self, text: str, params: dict[str, Any]) -> str:
        """The numbered placeholder of a value."""
        return str(params["people"].placeholder(params["entity_type"], text))


_PRESIDIO_NAMES: Mapping[str, str] = {"placeholder": "replace"}
_OPERATORS: Mapping[str, Operator] = {
    "placeholder": Replace(),
    "redact": Redact(),
    **{operator.NAME: operator() for operator in (MaskOperator, HashOperator, SurrogateOperator, NumberedOperator)},
}


@lru_cache(maxsize=1)
def _engine() -> AnonymizerEngine:
    engine = AnonymizerEngine()
    for operator in (MaskOperator, HashOperator, SurrogateOperator, NumberedOperator):
        engine.add_anonymizer(operator)
    return engine


def people_of(record: Sequence[tuple[str, Sequence[Span]]], policy: Policy) -> RecordPeople | None:
    """What one record's values become, where that is a matter of the record; None where no operator depends on it.

    Args:
        record: Its texts with the spans that are replaced.
        policy: The frozen rules.
    """
    operators = {policy.config.operator, *policy.config.operators.values()}
    is_local = "numbered" in operators or ("surrogate" in operators and policy.config.surrogate_scope == "record")
    if not is_local:
        return None
    people = RecordPeople((_masked(text, spans) for text, spans in record), policy.key)
    # In reading order, since the values of a text are replaced from its end.
    for text, spans in record:
        for span in spans:
            if policy.operator_for(span.entity) == "numbered":
                people.placeholder(span.entity, text[span.start : span.end])
            elif policy.operator_for(span.entity) == "surrogate":
                people.surrogate(span.entity, text[span.start : span.end])
    return people


def _masked(text: str, spans: Sequence[Span]) -> str:
    parts, last = [], 0
    for span in spans:
        parts += [text[last : span.start], f"<{span.entity}>"]
        last = span.end
    return "".join([*parts, text[last:]])


def replace_spans(
    text: str, spans: Sequence[Span], policy: Policy, people: RecordPeople | None = None
) -> tuple[str, list[tuple[int, int]]]:
    """The text with each span replaced by the policy's operator for its entity, and the places of the replacements.

    Args:
        text: The text.
        spans: Disjoint spans of it, in order.
        policy: The frozen rules.
        people: What the record's values become (:func:`people_of`).
    """
    if not spans:
        return text, []
    key = {"key": policy.key or b"", "people": people}
    operators = {
        entity: OperatorConfig(_PRESIDIO_NAMES.get(name, name), key)
        for entity in {span.entity for span in spans}
        for name in (policy.operator_for(entity),)
    }
    # Two values side by side stay two: each has its own finding.
    result = _engine().anonymize(
        text,
        [RecognizerResult(span.entity, span.start, span.end, span.score) for span in spans],
        operators,
        merge_entities_with_spaces=False,
    )
    return result.text, [(item.start, item.end) for item in reversed(result.items)]


def replace_value(entity: str, value: str, policy: Policy) -> str:
    """What the recognizers read in place of a value that they found already; a surrogate would be taken for a value."""
    name = policy.operator_for(entity)
    operator = _OPERATORS["placeholder" if name in ("surrogate", "numbered") else name]
    return str(operator.operate(value, {"entity_type": entity, "key": policy.key or b""}))
