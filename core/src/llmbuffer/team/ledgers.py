"""What a team's requests came to: a ledger for each member."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..ledger import Ledger
from ..usage import Usage

__all__ = ["TeamLedger"]


class TeamLedger(Mapping[str, Ledger]):
    """A ``Ledger`` for each member, by name, and the sums over all of them.

    >>> ledger = TeamLedger(["ann", "bob"])
    >>> ledger["ann"].requests, ledger.usage.input_tokens, list(ledger)
    (0, 0, ['ann', 'bob'])
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._ledgers = {name: Ledger() for name in names}

    def __getitem__(self, name: str) -> Ledger:
        return self._ledgers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ledgers)

    def __len__(self) -> int:
        return len(self._ledgers)

    @property
    def requests(self) -> int:
        """Requests that were observed."""
        return sum(ledger.requests for ledger in self.values())

    @property
    def usage(self) -> Usage:
        """Sum of all reported usage."""
        return sum((ledger.usage for ledger in self.values()), Usage())

    @property
    def cost(self) -> float | None:
        """Sum of all costs in USD; ``None`` where no price is known."""
        costs = [ledger.cost for ledger in self.values() if ledger.cost is not None]
        return sum(costs) if costs else None

    @property
    def hit_ratio(self) -> float:
        """``cache_read_tokens / input_tokens`` over all requests, a fraction of 1."""
        return self.usage.hit_ratio

    def report(self) -> str:
        """A line for each member, and one for all."""
        rows = [(name, ledger.requests, ledger.usage, ledger.cost) for name, ledger in self.items()]
        rows.append(("all", self.requests, self.usage, self.cost))
        width = max(len(name) for name, *_ in rows)
        return "\n".join(
            f"{name:<{width}} | {requests:>5} requests | {usage.input_tokens:>9,} tokens in | hit {usage.hit_ratio:.3f}"
            + ("" if cost is None else f" | {cost:.4f} USD")
            for name, requests, usage, cost in rows
        )

    def __repr__(self) -> str:
        return f"TeamLedger(members={list(self)}, requests={self.requests}, hit_ratio={self.hit_ratio:.3f})"
