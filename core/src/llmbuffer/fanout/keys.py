"""Which routing key each fork sends, where the provider routes by one and a key takes so many requests a minute.

One key keeps all forks where the prefix is warm, until it gets more requests than the rules allow: what is above goes to
machines that know nothing of the prefix, each of them cold, and many at once. A second key is one more cold write that
happens in order. So ``auto`` fills a key before it opens the next one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal

from ..errors import LimitError
from ..rules import CacheRules

__all__ = ["KEY_POLICIES", "KeyPolicy", "KeyRing"]

KeyPolicy = Literal["auto", "shared", "sharded", "each"]
KEY_POLICIES: tuple[KeyPolicy, ...] = ("auto", "shared", "sharded", "each")

_MINUTE = 60.0


class _Shard:
    """One key: when requests were sent with it in the last minute, and what its workers are expected to send.

    ``others`` are the times of requests that do not belong to this run.
    """

    def __init__(self, key: str, others: Iterable[float] = ()) -> None:
        self.key = key
        self._others = deque(sorted(others))
        self._sent: deque[float] = deque()
        self._begun: deque[float] = deque()

    def load(self, now: float, rounds: float) -> float:
        """Requests of the last minute, where a worker that began within it counts for all that it is expected to send."""
        for times in (self._others, self._sent, self._begun):
            while times and times[0] <= now - _MINUTE:
                times.popleft()
        return len(self._others) + max(len(self._sent), len(self._begun) * rounds)

    def begin(self, now: float) -> None:
        self._begun.append(now)

    def send(self, now: float) -> None:
        self._sent.append(now)


class KeyRing:
    """Gives each worker the key that all its requests carry.

    ``base`` is the parent's key, under which its prefix lies; ``rules`` tell the rate; ``tasks`` is how many workers there
    will be; ``recent`` gives the times of earlier requests with a key, and ``rounds`` is how many requests a worker is
    expected to take until others have ended. ``clock`` gives seconds.

    ``shared`` is one key for all; ``each`` one for each worker; ``sharded`` as many as the tasks need if all came within a
    minute, in turn; ``auto`` the first that has room for one more worker, or a new one. Where the provider routes by no key,
    or knows no rate, ``auto`` and ``sharded`` are ``shared``.

    >>> from llmbuffer import get_dialect
    >>> ring = KeyRing("key", "auto", get_dialect("openai").bind("gpt-5.6").rules, tasks=40, clock=lambda: 0.0)
    >>> [ring.assign(index) for index in (0, 14, 15)], [ring.assign(index) for index in range(13)][-1]
    (['key', 'key', 'key'], 'key-2')
    """

    def __init__(
        self,
        base: str,
        policy: KeyPolicy,
        rules: CacheRules,
        *,
        tasks: int,
        clock: Callable[[], float],
        recent: Callable[[str], Iterable[float]] = lambda _key: (),
        rounds: float = 1.0,
    ) -> None:
        if policy not in KEY_POLICIES:
            raise LimitError(f"unknown key policy {policy!r}: use one of {', '.join(KEY_POLICIES)}")
        routed = rules.routing_field is not None
        self._most = (
            None if not routed or rules.per_key_rate is None else max(1.0, rules.per_key_rate * _MINUTE)
        )
        self._policy: KeyPolicy = (
            policy if routed and (policy == "each" or self._most is not None) else "shared"
        )
        self._base, self._clock, self._rounds = base, clock, max(1.0, rounds)
        self._recent = recent
        self._shards = [_Shard(base, recent(base))]
        self._ended: list[int] = []
        if self._policy == "sharded" and self._most is not None:
            while len(self._shards) * self._most < tasks * self._rounds:
                self._open()

    def assign(self, index: int) -> str:
        """The key of the worker at ``index``; it counts as begun."""
        now = self._clock()
        shard = self._chosen(index, now)
        shard.begin(now)
        return shard.key

    def _chosen(self, index: int, now: float) -> _Shard:
        if self._policy == "each":
            return _Shard(self._named(index + 1))
        if self._policy == "sharded":
            return self._shards[index % len(self._shards)]
        if self._policy == "shared" or self._most is None:
            return self._shards[0]
        rounds = self.rounds
        for shard in self._shards:
            if self._has_room(shard, now, rounds):
                return shard
        while not self._has_room(shard := self._open(), now, rounds) and shard.load(now, rounds):
            pass  # an earlier run has filled it
        return shard

    def _has_room(self, shard: _Shard, now: float, rounds: float) -> bool:
        """Whether at least half of what one more worker sends is within the rate.

        A request or two beyond it are cold once; a new key is so for certain, and how many there will be is a guess.
        """
        return self._most is None or shard.load(now, rounds) + rounds / 2 <= self._most

    def _open(self) -> _Shard:
        key = self._named(len(self._shards) + 1)
        self._shards.append(_Shard(key, self._recent(key)))
        return self._shards[-1]

    def _named(self, number: int) -> str:
        return f"{self._base}-{number}"

    @property
    def rounds(self) -> float:
        """The requests that a worker takes: the mean of those that ended, else what was expected."""
        return sum(self._ended) / len(self._ended) if self._ended else self._rounds

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that were opened so far, without those of ``each``."""
        return tuple(shard.key for shard in self._shards)

    def sent(self, key: str) -> None:
        """A request was sent with ``key``."""
        for shard in self._shards:
            if shard.key == key:
                shard.send(self._clock())

    def ended(self, requests: int) -> None:
        """A worker ended after so many requests."""
        if requests:
            self._ended.append(requests)
