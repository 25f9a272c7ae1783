"""Detection: rules over a shared tokenized text, Presidio's recognizers behind gates, and one pass of a name model.

The project's own recognizers are Presidio ``EntityRecognizer``s over tables of rules (:mod:`tasks.pii.detect.rules`). Each
reads a :class:`~tasks.pii.detect.tokens.TokenizedText`, so that a text is taken apart once for all of them.
"""
