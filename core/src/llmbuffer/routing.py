"""Caches behind a load balancer: requests with one key and one opening meet, until there are too many a minute."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from hashlib import blake2b

from .cache import CacheModel
from .chain import Node, ancestor
from .rules import CacheRules
from .snapshot import Snapshot, texts

__all__ = ["RoutedCaches"]

OPENING = 256  # tokens whose hash, with the key, picks the machine: OpenAI, prompt caching guide
CHARACTERS = 4  # that are taken for a token there: where it ends must not depend on what follows
WINDOW = 60.0  # seconds over which the rate is taken


class _Machine:
    """One machine: its cache, and when it was sent requests within the last minute."""

    def __init__(self, cache: CacheModel) -> None:
        self.cache = cache
        self._recent: deque[float] = deque()

    def takes(self, at: float, most: float) -> bool:
        """Whether one more request may come at ``at``; then it counts."""
        while self._recent and self._recent[0] <= at - WINDOW:
            self._recent.popleft()
        if len(self._recent) >= most:
            return False
        self._recent.append(at)
        return True


class RoutedCaches:
    """The caches of one scope, on as many machines as the traffic needs.

    Requests with the same key and the same first 256 tokens go to the same machine, until it got more than the rules'
    ``per_key_rate`` within a minute; those above it go to the next machine, which knows nothing of them at first. Without
    a rate in the rules there is one cache for all. ``limit`` bounds the entries of each machine, ``groups`` the pairs of
    key and opening that are remembered; those that were used longest ago go first. Not thread-safe.

    >>> from llmbuffer.chain import root
    >>> from llmbuffer.messages import Message
    >>> caches = RoutedCaches(CacheRules(name="engine", match="prefix", per_key_rate=2 / 60))
    >>> tip = root().child(Message("user", "hi"), content=b"1", wire=b"1", tokens=500)
    >>> sent = Snapshot(root(), tip)
    >>> [caches.route(sent, at, "key").commit(sent, at).read_tokens for at in (0.0, 1.0, 2.0, 3.0)]
    [0, 500, 0, 500]
    """

    def __init__(
        self,
        rules: CacheRules,
        *,
        limit: int | None = None,
        groups: int = 1024,
        count: Callable[[str], int] | None = None,
    ) -> None:
        self.rules = rules
        self._limit, self._most, self._count = limit, groups, count
        self._groups: OrderedDict[tuple[str | None, bytes], list[_Machine]] = OrderedDict()

    def route(self, snapshot: Snapshot, at: float, key: str | None = None) -> CacheModel:
        """The cache of the machine that gets this request; what is read and written there is the caller's to ask."""
        rate = self.rules.per_key_rate
        group = (None, b"") if rate is None else (key, _opening(snapshot))
        machines = self._groups.setdefault(group, [])
        self._groups.move_to_end(group)
        while len(self._groups) > self._most:
            self._groups.popitem(last=False)
        most = float("inf") if rate is None else max(1.0, rate * WINDOW)
        for machine in machines:
            if rate is None or machine.takes(at, most):
                return machine.cache
        machines.append(_Machine(CacheModel(self.rules, limit=self._limit, count=self._count)))
        machines[-1].takes(at, most)
        return machines[-1].cache


def _opening(snapshot: Snapshot) -> bytes:
    """A digest of the first 256 tokens or so; model and params are among it."""
    if snapshot.head.end >= OPENING:
        return _cut(_reaching(snapshot.head, OPENING), OPENING)
    rest = _reaching(snapshot.tip, OPENING - snapshot.head.end)
    return snapshot.head.wire + _cut(rest, OPENING - snapshot.head.end)


def _cut(node: Node, tokens: int) -> bytes:
    """A digest of the chain up to ``tokens``: of the last block, what is taken for so many of its tokens."""
    if node.parent is None or node.end <= tokens:
        return node.wire
    said = "\0".join(texts(node.message))[: CHARACTERS * (tokens - node.parent.end)]
    return blake2b(node.parent.wire + said.encode(), digest_size=16).digest()


def _reaching(tip: Node, tokens: int) -> Node:
    """The first node of the chain that ends at ``tokens`` or later; the tip, if none does."""
    low, high = 0, tip.depth
    while low < high:
        middle = (low + high) // 2
        if ancestor(tip, middle).end >= tokens:
            high = middle
        else:
            low = middle + 1
    return ancestor(tip, low)
