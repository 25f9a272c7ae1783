"""The project's own recognizers, written as Presidio ``EntityRecognizer``s.

Each reads a :class:`~tasks.pii.reading.Reading`, so that a text is taken apart once for all of them; through ``analyze``
they also work in an ordinary Presidio ``AnalyzerEngine``.
"""

from tasks.pii.recognizers.addresses import AddressRecognizer
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.recognizers.contacts import ContactRecognizer
from tasks.pii.recognizers.identifiers import IdentifierRecognizer
from tasks.pii.recognizers.names import NameRecognizer
from tasks.pii.recognizers.people import PersonalFactRecognizer
from tasks.pii.recognizers.spoken import SpokenRecognizer

__all__ = [
    "AddressRecognizer",
    "ContactRecognizer",
    "IdentifierRecognizer",
    "NameRecognizer",
    "OwnRecognizer",
    "PersonalFactRecognizer",
    "SpokenRecognizer",
]
