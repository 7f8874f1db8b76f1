"""A byte-pair vocabulary, trained on the texts that it is to split."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise

from ..engine.tiny import letters

__all__ = ["BytePairs"]

Pair = tuple[str, str]

# How GPT-2 splits a text before it merges anything: words and numbers with the blank before them, signs, white space.
_PIECES = re.compile(
    r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+",
)
_LETTERS = letters()


class BytePairs:
    """The merges of a byte-pair vocabulary, the first learned first; it counts the tokens of a text as the engine does.

    The engine's own count differs for a few characters that are neither letters nor decimal digits, such as "²".

    >>> pairs = BytePairs.trained(["low lower lowest low"], merges=3)
    >>> pairs.merges
    (('l', 'o'), ('lo', 'w'), ('Ġ', 'low'))
    >>> pairs.split("lower low")
    ('low', 'e', 'r', 'Ġlow')
    >>> pairs.count("lower low")
    4
    """

    name = "byte-pairs"
    estimated = False

    def __init__(self, merges: Iterable[Pair]) -> None:
        self.merges = tuple(merges)
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._split = lru_cache(maxsize=65_536)(self._merged)

    @classmethod
    def trained(cls, texts: Iterable[str], merges: int = 1_500) -> BytePairs:
        """Learn up to ``merges`` pairs from the texts; the same texts give the same pairs.

        Fewer, if no pair is left that stands twice. About 0.3 s for 100,000 characters.
        """
        return cls(_learn(Counter(piece for text in texts for piece in _pieces(text)), merges))

    def split(self, text: str) -> tuple[str, ...]:
        """The tokens of a text, each byte as its printable character; see ``llmbuffer.engine.tiny.letters``."""
        return tuple(token for piece in _pieces(text) for token in self._split(piece))

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return sum(len(self._split(piece)) for piece in _pieces(text))

    def _merged(self, piece: str) -> tuple[str, ...]:
        tokens = list(piece)
        never = len(self._ranks)
        while len(tokens) > 1:
            pair = min(pairwise(tokens), key=lambda pair: self._ranks.get(pair, never))
            if pair not in self._ranks:
                break
            tokens = _joined(tokens, pair)
        return tuple(tokens)

    def __repr__(self) -> str:
        return f"BytePairs(<{len(self.merges)} merges>)"


def _pieces(text: str) -> Iterable[str]:
    for found in _PIECES.finditer(text):
        yield "".join(map(_LETTERS.__getitem__, found.group().encode()))


def _joined(tokens: list[str], pair: Pair) -> list[str]:
    """The tokens with each occurrence of the pair made one token, from the left."""
    joined, at, last = [], 0, len(tokens) - 1
    while at <= last:
        if at < last and tokens[at] == pair[0] and tokens[at + 1] == pair[1]:
            joined.append(pair[0] + pair[1])
            at += 2
        else:
            joined.append(tokens[at])
            at += 1
    return joined


def _learn(pieces: Counter[str], wanted: int) -> Iterable[Pair]:
    """Merge the commonest pair, again and again; of equally common ones the first in the alphabet."""
    words = [(list(piece), times) for piece, times in sorted(pieces.items())]
    counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)
    for place, (tokens, times) in enumerate(words):
        for pair in pairwise(tokens):
            counts[pair] += times
            places[pair].add(place)
    # Entries of the heap are not taken back when a count changes: those that no longer hold are passed over.
    heap = [(-times, pair) for pair, times in counts.items()]
    heapify(heap)
    while wanted and heap:
        times, best = heappop(heap)
        if counts[best] != -times:
            continue
        if counts[best] < 2:
            return
        yield best
        wanted -= 1
        for pair in _merge(best, words, counts, places):
            heappush(heap, (-counts[pair], pair))


def _merge(
    best: Pair, words: list[tuple[list[str], int]], counts: Counter[Pair], places: dict[Pair, set[int]]
) -> set[Pair]:
    """Merge one pair in every word that holds it, and say which other pairs are counted anew."""
    changed: set[Pair] = set()
    for place in places.pop(best):
        tokens, times = words[place]
        joined = _joined(tokens, best)
        for pair in pairwise(tokens):
            counts[pair] -= times
        for pair in pairwise(joined):
            counts[pair] += times
            places[pair].add(place)
        changed.update(pairwise(tokens), pairwise(joined))
        words[place] = (joined, times)
    return changed - {best}
