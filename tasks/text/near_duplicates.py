"""Near-duplicate texts: pairs and clusters, shared by deduplication, splitting and monitoring.

Texts are compared as placeholder views (:mod:`tasks.text.normalization`). Candidates come from MinHash signatures (rensa,
imported here alone) of character 5-grams, cut into bands; each candidate is then verified on the texts themselves, so that
a signature never decides. In texts of a few words two edits spoil most 5-grams; their candidates also come from equal
stretches of the texts. Nothing depends on the order of the texts.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import rensa
from rapidfuzz.distance import Levenshtein

SHINGLE_CHARS = 5
"""Lee et al. 2022 (Deduplicating Training Data Makes Language Models Better) compare word 5-grams; these are short texts."""
NUM_PERMUTATIONS, NUM_BANDS = 128, 32
"""32 bands of 4 make a pair with Jaccard .6 a candidate with probability .987, one with .7 with .9998 (1 - (1 - j^4)^32).
Short records need it, see :data:`MIN_EDITS`."""
MIN_EDITS, MAX_EDITS, CHARS_PER_EDIT = 2, 4, 20
"""One edit in 20 characters, at least two and at most four, are typing errors and not another text, though each edit spoils
up to five 5-grams: two of them bring a 47-character question down to a Jaccard of .6."""
SHORT_CHARS, SHORT_WORDS = 30, 6
"""Below both, one word is the message: such texts are near only by a single typing error, in a word of five or more letters
(``reset pasword``) or, from :data:`TERSE_CHARS` on, of two; ``lost card`` is not ``lost cord``. From :data:`TYPO_CHARS` on
they may also hold one typing error in each of two words of four letters; both in one word (``block``, ``unblock``) would be
another word."""
TERSE_CHARS, TYPO_CHARS, TYPO_WORD_CHARS = 15, 18, 4
_SEED = 20_260_101
_MAX_NEIGHBOURS = 16
_CHUNK_CHARS = 500_000
_ESTIMATE_MARGIN = 0.15
"""Three standard errors of an estimate from 128 permutations at Jaccard .7 are .12."""
_MIN_EDIT_ESTIMATE = 0.25
_MAX_REMEMBERED = 20_000
"""Texts whose shingles are held at a time, some 10 kB each."""
_MAX_STRETCH_CHARS = 48
"""Up to here two edits bring the Jaccard below .62, where the bands begin to lose pairs."""
_NUM_STRETCHES = 4
_ID_BITS = 24
"""A store of more than 16 million distinct short texts would need more; so many do not fit into one process anyway."""

_WORD = re.compile(r"\w+")


def is_near(one: str, other: str, threshold: float) -> bool:
    """Whether two views are near duplicates: Jaccard of their 5-grams at least ``threshold``, or a typing error or two.

    See :data:`SHORT_CHARS` for the stricter rule on texts of a few words.
    """
    return one == other or _is_near(one, other, _shingles(one), _shingles(other), threshold)


def near_clusters(views: Sequence[str], threshold: float) -> list[int]:
    """For each view, the smallest index in its cluster: views that are equal or near, directly or through others."""
    first: dict[str, int] = {}
    for index, view in enumerate(views):
        first.setdefault(view, index)
    distinct = list(first)
    clusters = _Clusters(len(distinct))
    # A pair that others already connect need not be verified: in a dense cluster that is nearly all of them.
    for one, other in near_pairs(distinct, threshold, wanted=lambda one, other: clusters.root(one) != clusters.root(other)):
        clusters.join(one, other)
    place = {view: first[distinct[clusters.root(number)]] for number, view in enumerate(distinct)}
    return [place[view] for view in views]


def near_across(views: Sequence[str], others: Sequence[str], threshold: float) -> list[list[int]]:
    """For each view, the indices of the others that it equals or is near to."""
    indices: dict[str, list[int]] = {}
    for index, twin in enumerate(others):
        indices.setdefault(twin, []).append(index)
    distinct = sorted({*views, *others})
    ours = set(views)
    in_ours, in_theirs = [view in ours for view in distinct], [view in indices for view in distinct]

    def straddles(one: int, other: int) -> bool:
        return (in_ours[one] and in_theirs[other]) or (in_ours[other] and in_theirs[one])

    near = {view: {view} for view in ours}
    for one, other in near_pairs(distinct, threshold, wanted=straddles, anchors=in_theirs):
        for view, twin in ((distinct[one], distinct[other]), (distinct[other], distinct[one])):
            if view in near:
                near[view].add(twin)
    return [sorted(index for twin in near[view] for index in indices.get(twin, ())) for view in views]


def near_pairs(
    views: Sequence[str],
    threshold: float,
    *,
    wanted: Callable[[int, int], bool] = lambda one, other: True,
    anchors: Sequence[bool] | None = None,
) -> Iterator[tuple[int, int]]:
    """Yields the index pairs of near views; the views must differ from each other.

    Args:
        views: Distinct placeholder views, in any order (the pairs do not depend on it).
        threshold: Jaccard similarity from which two views are near.
        wanted: Called before a pair is verified, after the caller has handled all pairs yielded before it.
        anchors: Look only for pairs with at least one of the views marked here.
    """
    order = sorted(range(len(views)), key=views.__getitem__)
    shingles: dict[int, frozenset[str]] = {}
    marked = None if anchors is None else np.array([anchors[index] for index in order])
    for low, high in _candidates([views[index] for index in order], threshold, marked):
        one, other = order[low], order[high]
        if not wanted(one, other):
            continue
        if len(shingles) > _MAX_REMEMBERED:
            shingles.clear()
        for index in (one, other):
            if index not in shingles:
                shingles[index] = _shingles(views[index])
        if _is_near(views[one], views[other], shingles[one], shingles[other], threshold):
            yield min(one, other), max(one, other)


def components(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of ``count`` nodes, the smallest node that the pairs connect it to."""
    clusters = _Clusters(count)
    for one, other in pairs:
        clusters.join(one, other)
    return [clusters.root(node) for node in range(count)]


class _Clusters:
    """Union-find whose roots are the smallest members."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, node: int) -> int:
        parents = self._parents
        while parents[node] != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parents[high] = low


def _is_near(one: str, other: str, shingles: frozenset[str], others: frozenset[str], threshold: float) -> bool:
    longest = max(len(one), len(other))
    if longest < SHORT_CHARS and max(one.count(" "), other.count(" ")) + 1 < SHORT_WORDS:
        return _is_typing_error(one, other)
    shared = len(shingles & others)
    union = len(shingles) + len(others) - shared
    if union and shared >= threshold * union:
        return True
    if longest > MAX_EDITS * CHARS_PER_EDIT * 5:
        return False  # so few edits in so long a text would have left the Jaccard high
    # The q-gram lemma (Ukkonen 1992): each edit touches at most SHINGLE_CHARS shingles; a cheap test before the exact one.
    edits = min(max(longest // CHARS_PER_EDIT, MIN_EDITS), MAX_EDITS)
    most = max(len(shingles), len(others))
    return shared >= most - SHINGLE_CHARS * edits and within_edits(one, other, edits)


def _is_typing_error(one: str, other: str) -> bool:
    """Whether two texts of a few words differ by one typing error, or by one in each of two longer words."""
    if one.replace(" ", "") == other.replace(" ", ""):
        return True
    words, others = _WORD.findall(one), _WORD.findall(other)
    of_one, of_other = Counter(words), Counter(others)
    left = [word for word in words if of_one[word] > of_other[word]]
    right = [word for word in others if of_other[word] > of_one[word]]
    if not all(word.isalpha() for word in (*left, *right)):
        return False
    shortest, num_chars = min(map(len, (*left, *right)), default=0), min(len(one), len(other))
    if len(left) + len(right) <= 2 and within_edits(one, other, 1):
        return shortest >= (5 if num_chars < TERSE_CHARS else 2) or not (left or right)
    if num_chars < TYPO_CHARS or shortest < TYPO_WORD_CHARS or len(left) != 2 or len(right) != 2:
        return False
    return within_edits(one, other, 2) and all(within_edits(a, b, 1) for a, b in zip(left, right, strict=True))


def within_edits(one: str, other: str, edits: int) -> bool:
    """Whether so many insertions, deletions or substitutions lead from one text to the other."""
    return Levenshtein.distance(one, other, score_cutoff=edits) <= edits


def _shingles(view: str) -> frozenset[str]:
    return frozenset(view[start : start + SHINGLE_CHARS] for start in range(len(view) - SHINGLE_CHARS + 1))


# ------------------------------------------------------------------------------------------------------------ candidates


def _candidates(texts: list[str], threshold: float, anchors: npt.NDArray[np.bool_] | None) -> Iterator[tuple[int, int]]:
    """Index pairs of distinct, sorted texts that share a band of their signatures and may be near by its estimate."""
    long_enough = [index for index, text in enumerate(texts) if len(text) >= SHINGLE_CHARS]
    if len(long_enough) < 2:
        return
    signatures = _signatures([texts[index] for index in long_enough])
    count = len(signatures)
    lengths = np.fromiter((len(texts[index]) for index in long_enough), np.int64, count)
    width = NUM_PERMUTATIONS // NUM_BANDS
    marked = None if anchors is None else anchors[long_enough]
    likely = []
    for start in range(0, NUM_PERMUTATIONS, width):
        pairs = _pairs_in_band(signatures[:, start : start + width], marked)
        for chunk in np.array_split(pairs, len(pairs) // 100_000 + 1):
            low, high = chunk // count, chunk % count
            estimates = (signatures[low] == signatures[high]).mean(axis=1)
            as_long = np.abs(lengths[low] - lengths[high]) <= MAX_EDITS
            likely.append(chunk[(estimates >= threshold - _ESTIMATE_MARGIN) | (as_long & (estimates >= _MIN_EDIT_ESTIMATE))])
    short = np.flatnonzero(lengths <= _MAX_STRETCH_CHARS)
    low, high = _pairs_with_equal_stretches([texts[long_enough[index]] for index in short], marked, short)
    likely.append(low * count + high)
    for pair in np.unique(np.concatenate(likely)).tolist():
        yield long_enough[pair // count], long_enough[pair % count]


def _pairs_in_band(band: npt.NDArray[np.uint32], anchors: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """``low * count + high`` for rows with equal bands; with anchors, for pairs of any row and an anchor.

    In a bucket larger than the window each text is paired with its nearest neighbours in alphabetical order, which bounds
    the work on data where thousands of rows share a phrase.
    """
    count = len(band)
    keys = np.zeros(count, np.uint64)
    for column in band.T:
        keys = _mix(keys * np.uint64(0x9E3779B97F4A7C15) + column)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    everyone = np.arange(count)
    partners = everyone if anchors is None else np.flatnonzero(anchors[order])
    following = np.searchsorted(partners, everyone, side="right")
    found = [np.empty(0, np.int64)]
    for offset in range(0 if anchors is None else -_MAX_NEIGHBOURS - 1, _MAX_NEIGHBOURS):
        at = following + offset
        ours = everyone[(at >= 0) & (at < len(partners))]
        theirs = partners[at[ours]]
        same = (ordered[ours] == ordered[theirs]) & (ours != theirs)
        if anchors is None and not same.any():
            break
        one, other = order[ours[same]], order[theirs[same]]
        found.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.concatenate(found)


def _pairs_with_equal_stretches(
    texts: list[str], anchors: npt.NDArray[np.bool_] | None, ids: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids ``(lower, higher)`` of short texts that may be two edits apart; with anchors, of which one is an anchor.

    Two edits leave at least two of a text's four quarters whole (the pigeonhole principle, as in PassJoin, Li et al. 2011),
    each at most two places away from where it was. Pairs whose letters differ in more than two edits are left out.

    Args:
        texts: Sorted, of :data:`SHINGLE_CHARS` to :data:`_MAX_STRETCH_CHARS` characters.
        anchors: Mask over ids.
        ids: The texts' ids, ascending.
    """
    if len(texts) < 2:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    stretches = _Stretches(texts)
    everyone = np.arange(len(texts))
    if anchors is None:
        found = [stretches.pairs(everyone, everyone)]
    else:
        marked = np.flatnonzero(anchors[ids])
        found = [stretches.pairs(marked, everyone), stretches.pairs(everyone, marked)]
    pairs = np.unique(np.concatenate(found))
    return ids[pairs // len(texts)], ids[pairs % len(texts)]


class _Stretches:
    """Hashes of any stretch of many short texts."""

    def __init__(self, texts: list[str]) -> None:
        self._lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        padded = "".join(text.ljust(_MAX_STRETCH_CHARS, "\0") for text in texts)
        codes = np.frombuffer(padded.encode("utf-32-le", "surrogatepass"), np.uint32).reshape(len(texts), -1)
        # The sum of code * base^place is a rolling hash; dividing by base^start makes it independent of the place.
        base, inverse = np.uint64(0x9E3779B97F4A7C15), np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
        powers = np.multiply.accumulate(np.full(_MAX_STRETCH_CHARS, base))
        self._inverse = np.multiply.accumulate(np.full(_MAX_STRETCH_CHARS + 1, inverse))
        self._sums = np.zeros((len(texts), _MAX_STRETCH_CHARS + 1), np.uint64)
        np.cumsum((codes.astype(np.uint64) + np.uint64(1)) * powers, axis=1, out=self._sums[:, 1:])
        self._letters = np.zeros((len(texts), 32), np.int8)
        for column in codes.T:
            present = np.flatnonzero(column)
            self._letters[present, column[present] % 32] += 1

    def pairs(self, shorter: npt.NDArray[np.int64], longer: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """``low * count + high`` for a text of each list with two equal quarters; the first is no longer than the second."""
        found = [np.empty(0, np.int64)]
        for one, other in combinations(range(_NUM_STRETCHES), 2):
            keys = np.sort(self._keys(shorter, self._lengths[shorter], one, other, 0, 0)[1])
            for difference in range(MIN_EDITS + 1):
                lengths = self._lengths[longer] - difference
                for moved, then in product(range(-MIN_EDITS, MIN_EDITS + 1), repeat=2):
                    if abs(moved) + abs(then - moved) + abs(difference - then) <= MIN_EDITS:
                        texts, queries = self._keys(longer, lengths, one, other, moved, then)
                        found.append(self._near_letters(*_matches(keys, texts, queries)))
        return np.unique(np.concatenate(found))

    def _keys(
        self, texts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], one: int, other: int, moved: int, then: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Texts, and a key of two of the quarters that texts of these lengths have, with the text's number as last bits.

        Left out are texts in which the quarters, moved by so many places, would lie outside.
        """
        parts = []
        inside = lengths >= SHINGLE_CHARS
        for quarter, shift in ((one, moved), (other, then)):
            start = lengths * quarter // _NUM_STRETCHES + shift
            end = lengths * (quarter + 1) // _NUM_STRETCHES + shift
            inside &= (start >= 0) & (end <= self._lengths[texts])
            parts.append((start, end))
        texts, lengths = texts[inside], lengths[inside]
        keys = lengths.astype(np.uint64)
        for starts, ends in parts:
            start, end = starts[inside], ends[inside]
            stretch = (self._sums[texts, end] - self._sums[texts, start]) * self._inverse[start]
            keys = _mix(keys * np.uint64(0x100000001B3) + _mix(stretch))
        return texts, (keys >> np.uint64(_ID_BITS) << np.uint64(_ID_BITS)) | texts.astype(np.uint64)

    def _near_letters(self, one: npt.NDArray[np.int64], other: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pairs, without those whose letters alone show that they are more than two edits apart."""
        one, other = one[one != other], other[one != other]
        apart = np.abs(self._letters[one] - self._letters[other]).sum(axis=1)
        low, high = np.minimum(one, other), np.maximum(one, other)
        close: npt.NDArray[np.int64] = (low * len(self._lengths) + high)[apart <= 2 * MIN_EDITS]
        return close


def _matches(
    keys: npt.NDArray[np.uint64], texts: npt.NDArray[np.int64], queries: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Pairs of a query and a text under the same key; of many under one key, the nearest in alphabetical order."""
    shift, mask = np.uint64(_ID_BITS), np.uint64((1 << _ID_BITS) - 1)
    place = np.searchsorted(keys, queries)
    ours, theirs = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for step in (1, -1):
        going = np.arange(len(queries))
        for distance in range(_MAX_NEIGHBOURS):
            at = place[going] + (distance if step == 1 else -1 - distance)
            going, at = going[(at >= 0) & (at < len(keys))], at[(at >= 0) & (at < len(keys))]
            same = keys[at] >> shift == queries[going] >> shift
            going, at = going[same], at[same]
            if not len(going):
                break
            ours.append(texts[going])
            theirs.append((keys[at] & mask).astype(np.int64))
    return np.concatenate(ours), np.concatenate(theirs)


def _signatures(texts: list[str]) -> npt.NDArray[np.uint32]:
    """MinHash signatures ``(len(texts), NUM_PERMUTATIONS)`` of texts with at least one shingle each."""
    signatures = np.empty((len(texts), NUM_PERMUTATIONS), np.uint32)
    start = 0
    while start < len(texts):
        end, num_chars = start, 0
        while end < len(texts) and num_chars < _CHUNK_CHARS:
            num_chars += len(texts[end])
            end += 1
        hashes, offsets = _shingle_hashes(texts[start:end])
        matrix: Any = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets, num_perm=NUM_PERMUTATIONS, seed=_SEED
        )
        signatures[start:end] = matrix.to_rows()  # Python integers: one more reason to go chunk by chunk
        start = end
    return signatures


def _shingle_hashes(texts: list[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The 64-bit hashes of all shingles, text after text, and the offsets ``(len(texts) + 1,)`` at which texts begin."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    hashes = np.zeros(len(codes) - SHINGLE_CHARS + 1, np.uint64)
    for offset in range(SHINGLE_CHARS):
        hashes = hashes * np.uint64(0x100000001B3) + codes[offset : offset + len(hashes)]
    inside = np.ones(len(codes), dtype=bool)
    for back in range(1, SHINGLE_CHARS):
        inside[np.cumsum(lengths) - back] = False  # these would run over into the next text
    offsets = np.concatenate([[0], np.cumsum(lengths - SHINGLE_CHARS + 1)])
    return np.ascontiguousarray(_mix(hashes)[inside[: len(hashes)]]), offsets.astype(np.uint64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of MurmurHash3, which spreads nearby values over all bits."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    return values ^ (values >> np.uint64(33))
