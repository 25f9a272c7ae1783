"""Features of a reply: how it fits its instruction, how it ends, the order of its words, its language.

Every feature compares a reply with the *other* rows' replies. Nothing here assumes a language, a style or a length: in a
corpus without full stops a missing full stop is not suspicious. The rows are split into folds, and the features of a fold
come from the rows outside it (:class:`FoldModel`).

Texts are tokenized once (:class:`ReplyCorpus`), and all counts run on flat arrays: ten thousand replies take about a second.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from tasks.text.refusals import is_refusal

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Vectors = NDArray[np.float32]

FEATURES = (
    "cosine", "expected", "neighbours", "backward", "better_prompt", "shared_words",
    "known_words", "function_words", "characters", "characters_to_prompt", "new_words", "non_ascii", "foreign_script",
    "length", "num_words", "num_lines",
    "refusal", "refusal_likeness",
    "order", "order_per_word", "word_pairs", "start", "lower_start", "lower_after_stop", "capitals_inside",
    "end", "full_stop", "ends_in_letter", "ends_in_function_word", "ends_in_comma", "ends_in_quote",
    "inner_stops", "unbalanced",
)  # fmt: skip
"""The names of the columns that :meth:`FoldModel.features` returns."""

_TOKEN = re.compile(r"\d+|[^\W\d_]+(?:['’][^\W\d_]+)?|[^\w\s]|_")
_INNER_STOP = re.compile(r"[.!?…。！？](?=\s)")
_LOWER_AFTER_STOP = re.compile(r"[.!?]\s+[a-zà-öø-ÿа-я]")
_CAPITAL_INSIDE = re.compile(r"(?<![.!?:\"'\n])\s[A-ZÀ-ÖØ-ÞА-Я][^\W\d_]")
_HEAD_CHARS, _TAIL_CHARS = 1500, 500
"""Of a longer text only the head and the tail are tokenized."""
_ORDER_WORDS = 100
"""Word order is measured on this many words from the start."""
_NUM_SHUFFLES = 4
_HASH_BITS = 18
_NUM_FUNCTION_WORDS = 150
_SHRINKAGE = 3.0
"""Pseudo-count that shrinks shares over a reply's words towards the corpus mean: one word proves little."""
_KNOWN = 3
"""A word is known when this many distinct texts of other rows contain it."""


class ReplyCorpus:
    """Replies as flat arrays of tokens: the rows' own, then broken copies of some of them.

    Args:
        prompts: One instruction per row.
        replies: All replies; the first ``len(prompts)`` are the rows' own replies, in order.
        rows: The row that each reply answers.
    """

    def __init__(self, prompts: Sequence[str], replies: Sequence[str], rows: Ints) -> None:
        self.prompts, self.replies, self.rows = list(prompts), list(replies), rows
        self.num_rows = len(self.prompts)
        vocabulary: dict[str, int] = {}
        self.tokens, self.token_text, self.token_word = _tokenize(self.replies, vocabulary)
        self.prompt_tokens, self.prompt_token_text, _ = _tokenize(self.prompts, vocabulary)
        words = list(vocabulary)
        self.lower = np.asarray([vocabulary.get(word.lower(), index) for index, word in enumerate(words)])
        self.is_word = np.asarray([word[0].isalnum() for word in words], dtype=bool)
        self.classes, self.num_classes = self._token_classes(words)
        self.trigrams, self.bigrams, self.gram_text = _character_grams(self.replies)
        self.prompt_trigrams, self.prompt_bigrams, self.prompt_gram_text = _character_grams(self.prompts)
        self.forms = np.asarray([_form(text) for text in self.replies])
        self.prompt_non_ascii = np.asarray([_non_ascii_share(text) for text in self.prompts])
        self.scripts = [_scripts(text) for text in self.replies]
        self.prompt_scripts = [set(_scripts(text)) for text in self.prompts]
        own, distinct = set(), np.zeros(self.num_rows, dtype=bool)
        for index, text in enumerate(self.replies[: self.num_rows]):
            distinct[index] = text not in own
            own.add(text)
        self.is_distinct = distinct

    def _token_classes(self, words: list[str]) -> tuple[Ints, int]:
        """A class per vocabulary entry: frequent tokens stand for themselves, the others for their shape."""
        own = self.tokens[self.token_text < self.num_rows]
        counts = np.bincount(own, minlength=len(words))
        names: dict[str, int] = {}
        classes = np.empty(len(words), dtype=np.int64)
        frequent = set(np.argsort(-counts, kind="stable")[:600].tolist())
        for index, word in enumerate(words):
            name = word if index in frequent and counts[index] >= 8 else _shape(word)
            classes[index] = names.setdefault(name, len(names))
        return classes, len(names)


class FoldModel:
    """A statistical model of the replies of some rows.

    Args:
        corpus: All replies.
        train: Mask over rows: the ones to learn from.
        prompt_vectors: Unit vectors of the instructions, by row.
        reply_vectors: Unit vectors of the replies, by position in the corpus.
        refusal_likeness: Largest cosine to a known refusal, by position in the corpus.
    """

    def __init__(
        self, corpus: ReplyCorpus, train: Mask, prompt_vectors: Vectors, reply_vectors: Vectors, refusal_likeness: Floats
    ) -> None:
        self._corpus, self._train = corpus, train
        self._prompt_vectors, self._reply_vectors = prompt_vectors, reply_vectors
        self._refusal_likeness = refusal_likeness
        rows = np.flatnonzero(train)
        prompts, replies = prompt_vectors[rows], reply_vectors[rows]
        lengths = np.log1p(corpus.forms[rows, _FORM.index("num_words")])
        self._forward = Ridge(alpha=1.0).fit(prompts, np.column_stack([replies, lengths]))
        self._backward = Ridge(alpha=1.0).fit(replies, prompts)
        self._count_words()
        self._count_characters()
        self._count_pairs()
        self._script_share = self._count_scripts(rows)

    def _count_words(self) -> None:
        c = self._corpus
        size = len(c.lower)
        reply_rows = self._train & c.is_distinct
        own = c.token_text < c.num_rows
        mask = np.zeros(len(c.tokens), dtype=bool)
        mask[own] = reply_rows[c.token_text[own]]
        pairs = np.unique(c.token_text[mask] * size + c.lower[c.tokens[mask]])
        prompt_mask = self._train[c.prompt_token_text]
        prompt_pairs = np.unique(c.prompt_token_text[prompt_mask] * size + c.lower[c.prompt_tokens[prompt_mask]])
        self.document_frequency = np.bincount(pairs % size, minlength=size) + np.bincount(
            prompt_pairs % size, minlength=size
        )
        num_texts = int(reply_rows.sum() + self._train.sum())
        self.rarity = np.log(num_texts / (1.0 + np.minimum(self.document_frequency, num_texts - 1)))
        ranked = np.argsort(-np.where(c.is_word, self.document_frequency, 0), kind="stable")[:_NUM_FUNCTION_WORDS]
        self.is_function_word = np.zeros(size, dtype=bool)
        self.is_function_word[ranked] = True

    def _count_characters(self) -> None:
        c = self._corpus
        own = c.gram_text < c.num_rows
        mask = np.zeros(len(c.gram_text), dtype=bool)
        mask[own] = (self._train & c.is_distinct)[c.gram_text[own]]
        prompt_mask = self._train[c.prompt_gram_text]
        trigrams = np.concatenate([c.trigrams[mask], c.prompt_trigrams[prompt_mask]])
        bigrams = np.concatenate([c.bigrams[mask], c.prompt_bigrams[prompt_mask]])
        self._trigram_counts = np.bincount(trigrams, minlength=1 << _HASH_BITS).astype(np.float64)
        self._bigram_counts = np.bincount(bigrams, minlength=1 << _HASH_BITS).astype(np.float64)
        self._characters_mean = float(self._character_surprise(trigrams, bigrams).mean()) if len(trigrams) else 0.0

    def _character_surprise(self, trigrams: Ints, bigrams: Ints) -> Floats:
        """Log-probability of each character given the two before it, smoothed (floor: one in 500)."""
        return np.log((self._trigram_counts[trigrams] + 20 / 500) / (self._bigram_counts[bigrams] + 20))

    def _count_pairs(self) -> None:
        """Log-probabilities of one token class after another, with a begin and an end class."""
        c = self._corpus
        begin, end, size = c.num_classes, c.num_classes + 1, c.num_classes + 2
        own = c.token_text < c.num_rows
        mask = np.zeros(len(c.tokens), dtype=bool)
        mask[own] = (self._train & c.is_distinct)[c.token_text[own]]
        before, after = _neighbour_classes(c.classes[c.tokens[mask]], c.token_text[mask], begin, end)
        counts = np.bincount(before * size + after, minlength=size * size).reshape(size, size).astype(np.float64)
        anywhere = (counts.sum(0) + 0.5) / (counts.sum() + 0.5 * size)
        self._pairs = np.log((counts + 5 * anywhere) / (counts.sum(1, keepdims=True) + 5))

    def _count_scripts(self, rows: Ints) -> dict[str, float]:
        counts = Counter(script for row in rows.tolist() for script in self._corpus.scripts[row])
        return {script: count / max(1, len(rows)) for script, count in counts.items()}

    def features(self, chosen: Mask) -> Floats:
        """The features of the chosen replies, ``(chosen.sum(), len(FEATURES))``."""
        c = self._corpus
        index = np.flatnonzero(chosen)
        columns: dict[str, Floats] = {}
        columns |= self._fit_features(index)
        columns |= self._word_features(chosen, index)
        columns |= self._character_features(chosen, index)
        columns |= self._order_features(chosen, index)
        forms = c.forms[index]
        columns |= {name: forms[:, position] for position, name in enumerate(_FORM)}
        columns["num_words"] = np.log1p(columns["num_words"])
        columns["non_ascii"] = columns["non_ascii"] - c.prompt_non_ascii[c.rows[index]]
        columns["refusal_likeness"] = self._refusal_likeness[index]
        columns["foreign_script"] = np.asarray([self._foreign_script(reply) for reply in index.tolist()])
        return np.column_stack([columns[name] for name in FEATURES])

    def _fit_features(self, index: Ints) -> dict[str, Floats]:
        rows = self._corpus.rows[index]
        prompts, replies = self._prompt_vectors[rows], self._reply_vectors[index]
        train = np.flatnonzero(self._train)
        forward = self._forward.predict(prompts)
        expected, length = _unit(forward[:, :-1]), forward[:, -1]
        backward = _unit(self._backward.predict(replies))
        cosine = _row_dot(prompts, replies)
        neighbours, better = np.empty(len(index)), np.empty(len(index))
        k = min(10, len(train))
        for start in range(0, len(index), 1024):
            block = slice(start, start + 1024)
            nearness = prompts[block] @ self._prompt_vectors[train].T
            nearest = np.argpartition(-nearness, k - 1, axis=1)[:, :k]
            weights = np.clip(np.take_along_axis(nearness, nearest, axis=1), 1e-6, None)
            mean = _unit(np.einsum("bk,bkd->bd", weights, self._reply_vectors[train][nearest]))
            neighbours[block] = _row_dot(mean, replies[block])
            others = replies[block] @ self._prompt_vectors[train].T
            better[block] = np.partition(others, -min(3, len(train)), axis=1)[:, -min(3, len(train)) :].mean(1)
        num_words = self._corpus.forms[index, _FORM.index("num_words")]
        return {
            "cosine": cosine,
            "expected": _row_dot(expected, replies),
            "neighbours": neighbours,
            "backward": _row_dot(backward, prompts),
            "better_prompt": better - cosine,
            "length": np.log1p(num_words) - length,
        }

    def _word_features(self, chosen: Mask, index: Ints) -> dict[str, Floats]:
        c, size = self._corpus, len(self._corpus.lower)
        mask = chosen[c.token_text] & c.is_word[c.tokens]
        words, text = c.lower[c.tokens[mask]], c.token_text[mask]
        known, function = self.document_frequency[words] >= _KNOWN, self.is_function_word[words]
        known_mean, function_mean = self._word_means
        # Distinct words of a reply, and whether its instruction has them too.
        pairs = np.unique(text * size + words)
        pair_text, pair_word = pairs // size, pairs % size
        of_prompt = np.unique(c.prompt_token_text * size + c.lower[c.prompt_tokens])
        shared = np.isin(c.rows[pair_text] * size + pair_word, of_prompt)
        rarity = self.rarity[pair_word]
        num = len(c.replies)
        total = np.bincount(pair_text, weights=rarity, minlength=num)
        common = np.bincount(pair_text, weights=rarity * shared, minlength=num)
        new = np.bincount(pair_text, weights=(self.document_frequency[pair_word] < _KNOWN) & ~shared, minlength=num)
        distinct = np.bincount(pair_text, minlength=num)
        last = np.full(num, -1)
        last[text] = words  # the last assignment wins: tokens stand in order
        return {
            "known_words": _shrunk_mean(known, text, num, known_mean)[index],
            "function_words": _shrunk_mean(function, text, num, function_mean)[index],
            "shared_words": (common / (3 + total))[index],
            "new_words": (new / np.maximum(1, distinct))[index],
            "ends_in_function_word": (self.is_function_word[last] & (last >= 0) & (c.forms[:, _ENDS_IN_LETTER] > 0))[index]
            .astype(np.float64),
        }  # fmt: skip

    @property
    def _word_means(self) -> tuple[float, float]:
        c = self._corpus
        own = c.token_text < c.num_rows
        mask = np.zeros(len(c.tokens), dtype=bool)
        mask[own] = self._train[c.token_text[own]]
        words = c.lower[c.tokens[mask & c.is_word[c.tokens]]]
        if not len(words):
            return 0.0, 0.0
        return float((self.document_frequency[words] >= _KNOWN).mean()), float(self.is_function_word[words].mean())

    def _character_features(self, chosen: Mask, index: Ints) -> dict[str, Floats]:
        c = self._corpus
        mask = chosen[c.gram_text]
        surprise = self._character_surprise(c.trigrams[mask], c.bigrams[mask])
        own = _shrunk_mean(surprise, c.gram_text[mask], len(c.replies), self._characters_mean, 10.0)
        prompt_surprise = self._character_surprise(c.prompt_trigrams, c.prompt_bigrams)
        prompt = _shrunk_mean(prompt_surprise, c.prompt_gram_text, c.num_rows, self._characters_mean, 10.0)
        return {"characters": own[index], "characters_to_prompt": own[index] - prompt[c.rows[index]]}

    def _order_features(self, chosen: Mask, index: Ints) -> dict[str, Floats]:
        c, num = self._corpus, len(self._corpus.replies)
        begin, end = c.num_classes, c.num_classes + 1
        mask = chosen[c.token_text] & (c.token_word < _ORDER_WORDS)
        classes, text, word = c.classes[c.tokens[mask]], c.token_text[mask], c.token_word[mask]

        def likelihood(order: Ints) -> Floats:
            before, after = _neighbour_classes(classes[order], text[order], begin, end)
            ends = np.flatnonzero(after == end)
            scores = self._pairs[before, after]
            scores[ends] = 0.0  # the end is a feature of its own
            owner = np.empty(len(before), dtype=np.int64)
            owner[np.setdiff1d(np.arange(len(before)), ends, assume_unique=True)] = text[order]
            owner[ends] = owner[ends - 1]
            return np.bincount(owner, weights=scores, minlength=num).astype(np.float64)

        observed = likelihood(np.arange(len(classes)))
        shuffled = np.zeros(num)
        for attempt in range(_NUM_SHUFFLES):
            key = _mixed(word.astype(np.uint64) + np.uint64(1 + attempt * 1009))
            shuffled += likelihood(np.lexsort((key, text))) / _NUM_SHUFFLES
        num_tokens = np.maximum(1, np.bincount(text, minlength=num))
        num_words = np.maximum(1, np.bincount(text, weights=_is_first(text, word), minlength=num))
        gain = observed - shuffled
        first = np.full(num, end)
        backwards = np.flatnonzero(mask)[::-1]
        first[c.token_text[backwards]] = c.classes[c.tokens[backwards]]
        everything = np.flatnonzero(chosen[c.token_text])
        last = np.full(num, begin)
        last[c.token_text[everything]] = c.classes[c.tokens[everything]]
        return {
            "order": (gain / np.sqrt(num_words))[index],
            "order_per_word": (gain / num_words)[index],
            "word_pairs": (observed / num_tokens)[index],
            "start": self._pairs[begin, first][index],
            "end": self._pairs[last, end][index],
        }

    def _foreign_script(self, reply: int) -> float:
        """The share of letters in a script that neither the corpus nor the instruction uses, shrunk towards 0."""
        scripts, row = self._corpus.scripts[reply], int(self._corpus.rows[reply])
        foreign = sum(
            count
            for script, count in scripts.items()
            if self._script_share.get(script, 0.0) < 0.02 and script not in self._corpus.prompt_scripts[row]
        )
        return foreign / (sum(scripts.values()) + _SHRINKAGE)


_FORM = (
    "num_words", "num_lines", "refusal", "lower_start", "lower_after_stop", "capitals_inside", "full_stop",
    "ends_in_letter", "ends_in_comma", "ends_in_quote", "inner_stops", "unbalanced", "non_ascii",
)  # fmt: skip
_ENDS_IN_LETTER = _FORM.index("ends_in_letter")


def _form(text: str) -> list[float]:
    """The features that need nothing but the text, in the order of ``_FORM``."""
    text = text.strip()
    words = text.split()
    last = text[-1:]
    unbalanced = sum(abs(text.count(left) - text.count(right)) for left, right in ("()", "[]", "{}", "“”", "„“"))
    return [
        len(words),
        min(text.count("\n"), 50),
        is_refusal(text),
        text[:1].islower(),
        10 * len(_LOWER_AFTER_STOP.findall(text)) / max(1, len(words)),
        len(_CAPITAL_INSIDE.findall(text)) / max(1, len(words)),
        last in tuple(".!?…。！？।"),
        last.isalpha(),
        last in tuple(",;:-–—"),
        last in tuple(")\"'”’»]}`*"),
        min(len(_INNER_STOP.findall(text)), 20),
        min(unbalanced, 3) + text.count('"') % 2 + text.count("```") % 2,
        _non_ascii_share(text),
    ]


def _tokenize(texts: Sequence[str], vocabulary: dict[str, int]) -> tuple[Ints, Ints, Ints]:
    """Token ids of all texts in one array, with the text and the word (by spaces) of each; grows the vocabulary."""
    tokens: list[int] = []
    owners: list[int] = []
    words: list[int] = []
    for index, text in enumerate(texts):
        is_long = len(text) > _HEAD_CHARS + _TAIL_CHARS
        shown = text[:_HEAD_CHARS] + " " + text[-_TAIL_CHARS:] if is_long else text
        for position, word in enumerate(shown.split()):
            for token in _TOKEN.findall(word):
                tokens.append(vocabulary.setdefault(token, len(vocabulary)))
                owners.append(index)
                words.append(position)
    for token in list(vocabulary):
        vocabulary.setdefault(token.lower(), len(vocabulary))
    return np.asarray(tokens, dtype=np.int64), np.asarray(owners, dtype=np.int64), np.asarray(words, dtype=np.int64)


def _character_grams(texts: Sequence[str]) -> tuple[Ints, Ints, Ints]:
    """Hashes of every three characters, of their first two, and the text they stand in."""
    codes, owners = [], []
    for index, text in enumerate(texts):
        head = " " + " ".join(text[:400].lower().split()) + " "
        line = np.frombuffer(head.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
        if len(line) >= 3:
            codes.append(line)
            owners.append(np.full(len(line) - 2, index))
    if not codes:
        nothing = np.zeros(0, dtype=np.int64)
        return nothing, nothing, nothing
    bigrams = np.concatenate([_mixed(line[:-2] * np.uint64(1_000_003) + line[1:-1]) for line in codes])
    thirds = np.concatenate([line[2:] for line in codes])
    trigrams = _mixed(bigrams * np.uint64(1_000_033) + thirds)
    shift = np.uint64(64 - _HASH_BITS)
    return (trigrams >> shift).astype(np.int64), (bigrams >> shift).astype(np.int64), np.concatenate(owners)


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A fixed scrambling of integers (the finaliser of splitmix64): pseudo-random keys that need no state."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _neighbour_classes(classes: Ints, text: Ints, begin: int, end: int) -> tuple[Ints, Ints]:
    """Classes before and after each gap of every text: one gap before the first token, one after the last."""
    starts = _is_start(text)
    positions = np.arange(len(classes)) + np.cumsum(starts)  # one place is kept free before each text
    sequence = np.full(len(classes) + int(starts.sum()) + 1, -1, dtype=np.int64)
    sequence[positions] = classes
    free = sequence < 0
    before, after = sequence[:-1].copy(), sequence[1:].copy()
    before[free[:-1]] = begin
    after[free[1:]] = end
    return before, after


def _is_start(text: Ints) -> Mask:
    starts = np.ones(len(text), dtype=bool)
    starts[1:] = text[1:] != text[:-1]
    return starts


def _is_first(text: Ints, word: Ints) -> Mask:
    first = _is_start(text)
    first[1:] |= word[1:] != word[:-1]
    return first


def _shrunk_mean(values: NDArray[Any], owner: Ints, num: int, mean: float, strength: float = _SHRINKAGE) -> Floats:
    total = np.bincount(owner, weights=values, minlength=num)
    return (total + strength * mean) / (np.bincount(owner, minlength=num) + strength)


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12))


def _row_dot(left: NDArray[Any], right: NDArray[Any]) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", left, right, dtype=np.float64))


def _shape(word: str) -> str:
    """The class of a rare token: number, punctuation mark, or capitalisation and ending."""
    if word.isdigit():
        return "<number>"
    if not word[0].isalnum():
        return f"<{word}>" if word.isascii() else "<symbol>"
    return f"<{'A' if word[0].isupper() else 'a'}{word[-2:].lower()}>" if word.isascii() else "<letters>"


def _non_ascii_share(text: str) -> float:
    letters = [character for character in text[:_HEAD_CHARS] if character.isalpha()]
    return sum(not character.isascii() for character in letters) / max(1, len(letters))


def _scripts(text: str) -> dict[str, int]:
    """Letters per script, named as Unicode does (LATIN, CYRILLIC, CJK)."""
    return dict(Counter(_script(character) for character in text[:_TAIL_CHARS] if character.isalpha()))


@lru_cache(maxsize=65536)
def _script(character: str) -> str:
    return unicodedata.name(character, "UNKNOWN").split(maxsplit=1)[0]
