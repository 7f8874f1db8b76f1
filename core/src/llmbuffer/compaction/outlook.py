"""What a decision about compaction is made from: prices in input tokens, the cuts to choose among, and what is expected.

All of it is numbers. No text, no session and no clock comes in here, so that a decision can be taken, tried and checked
by anybody who knows the figures.
"""

from __future__ import annotations

import math

import msgspec

from ..errors import CompactionError
from ..prices import Rates
from ..rules import CacheRules

__all__ = ["Cut", "Outlook", "Terms"]


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What tokens cost, relative to an input token that is neither read from the cache nor written to it.

    ``read``, ``write`` and ``output`` are multipliers; ``write`` is 1.0 where writing is free (OpenAI up to gpt-5.5,
    DeepSeek, Gemini). Prompts of fewer than ``minimum`` tokens are not cached at all, and a read counts in steps of
    ``step`` tokens. ``dollars`` is the price of one input token in USD, or None where nobody knows it.

    >>> terms = Terms(read=0.1, write=1.25, minimum=1024)
    >>> terms.prompt(held=2000, tokens=3000), terms.prompt(held=500, tokens=600)
    (1450.0, 600.0)
    """

    read: float = 0.1
    write: float = 1.25
    output: float = 5.0
    minimum: int = 0
    step: int = 1
    dollars: float | None = None

    def __post_init__(self) -> None:
        for name in ("read", "write", "output", "minimum", "dollars"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise CompactionError(f"{name!r} is {value!r}: give a finite number, 0 or more")
        if self.step < 1:
            raise CompactionError(f"'step' is {self.step!r}: give 1 or more tokens")

    @classmethod
    def of(cls, rules: CacheRules, rates: Rates | None = None, *, long: bool = False) -> Terms:
        """The terms of a model by its cache rules and, where they are known, its rates.

        ``rates`` (``Price.rates(tokens)`` picks the tier) wins over the multipliers of ``rules``; without it ``dollars``
        is None and output counts 5.0. ``long`` takes the price of entries with the long lifetime.

        >>> from llmbuffer import get_dialect
        >>> from llmbuffer.prices import price_for
        >>> rules = get_dialect("anthropic").bind("claude-sonnet-5.5").rules
        >>> terms = Terms.of(rules, price_for("claude-sonnet-5.5"))
        >>> terms.read, terms.write, terms.output, terms.minimum
        (0.05, 1.25, 5.0, 512)
        """
        source = rules if rates is None else rates
        return cls(
            read=source.read_multiplier,
            write=source.write_long_multiplier if long else source.write_multiplier,
            output=rates.output / rates.input if rates is not None and rates.input else 5.0,
            minimum=rules.min_tokens,
            step=rules.step,
            dollars=None if rates is None else rates.input / 1e6,
        )

    def prompt(self, held: float, tokens: float) -> float:
        """The price, in input tokens, of a prompt whose first ``held`` tokens are in the cache."""
        if tokens < self.minimum:
            return float(tokens)
        found = held - held % self.step if held >= self.minimum else 0.0
        return self.read * found + self.write * (tokens - found)

    def requests(self, held: float, growth: float, count: int) -> float:
        """The price of ``count`` requests in a row, each of which adds ``growth`` tokens to the ``held`` ones.

        Closed form, so that long horizons cost no more than short ones; steps of reading are left out.
        """
        small = self._uncached(held, growth, count)
        total = small * held + growth * small * (small + 1) / 2
        last = held + small * growth
        if small and last >= self.minimum:  # the first prompt that is large enough pays for being written
            total += (self.write - 1) * last
        rest = count - small
        read = rest * last + growth * rest * (rest - 1) / 2
        return total + self.read * read + self.write * growth * rest

    def _uncached(self, held: float, growth: float, count: int) -> int:
        """How many of the requests read nothing, because what they could read is below the minimum."""
        if held >= self.minimum:
            return 0
        return count if growth <= 0 else min(count, math.ceil((self.minimum - held) / growth))


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that could be done before the next request: where the prompt first changes, and what follows.

    The next prompt would have ``kept`` tokens that stay as they are (everything before the first changed message: tools
    and system text too) and ``left`` tokens from there to its end, new messages included; in the words of the
    single-step test, S is the prompt minus ``kept`` and S' is ``left``. ``making`` is the number of output tokens of a
    model call that the cut needs (a summary), 0 for what is computed here. ``residue`` is the share of messages still to
    come that the same action would leave of them later on; None: what it leaves of those that are there, or 0 if it
    folds. A cut that ``folds`` puts one text in the place of all that it goes over, so that the next cut of its kind begins
    there again (summaries, whether they cost a call or not); others leave alone what an earlier one went over. ``last_resort`` cuts are taken only if the next request does not fit,
    and no other cut makes it fit or, so that the next ones fit as well, reach the target where a last resort does.

    >>> Cut(action="elide", kept=6000, left=3000).tokens
    9000
    """

    action: str
    kept: int
    left: int
    making: int = 0
    residue: float | None = None
    folds: bool = False
    last_resort: bool = False

    def __post_init__(self) -> None:
        if self.kept < 0 or self.left < 0 or self.making < 0:
            raise CompactionError(f"{self!r} has a negative number of tokens: give 0 or more of each")
        if self.residue is not None and not 0 <= self.residue <= 1:
            raise CompactionError(f"'residue' is {self.residue!r}: give a share between 0 and 1, or None")

    @property
    def tokens(self) -> int:
        """The whole prompt after the cut."""
        return self.kept + self.left


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """All that a decision depends on; counts are in tokens, times in seconds.

    ``prompt`` is the next request's whole prompt if nothing is done, ``new`` how much of it no request carried before
    (it is written anyway), ``protected`` the end of it that no cut touches (the newest turn) and ``tail`` how much that is in
    the mean at later requests (None: as much). ``growth`` is the mean number of tokens that a request adds,
    ``remaining`` the number of requests expected *after* the next one.

    The cache is warm if the last request was sent less than ``ttl`` seconds ago: ``idle`` says how long ago it was, None
    if there was none. Nothing is compacted while the prompt has at most ``target`` tokens, and a cut goes down to them
    if any cut can; else it takes out a fifth of the prompt at least (0: no target, and any cut will do). ``max_tokens`` is the window, of which ``reserve`` is left for the reply; None: no limit.

    >>> Outlook(prompt=9000, growth=500, remaining=20, idle=10, ttl=300).warm
    True
    """

    prompt: int
    cuts: tuple[Cut, ...] = ()
    terms: Terms = Terms()
    new: int = 0
    protected: int = 0
    tail: float | None = None
    growth: float = 0.0
    remaining: int = 0
    idle: float | None = 0.0
    ttl: float = math.inf
    target: int = 0
    max_tokens: int | None = None
    reserve: int = 0

    def __post_init__(self) -> None:
        for name in ("prompt", "new", "protected", "growth", "remaining", "target", "reserve"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise CompactionError(f"{name!r} is {value!r}: give a finite number, 0 or more")
        if self.new > self.prompt:
            raise CompactionError(
                f"'new' is {self.new!r}, more than the prompt of {self.prompt!r} tokens it is part of"
            )
        if self.max_tokens is not None and self.max_tokens <= self.reserve:
            raise CompactionError(
                f"'max_tokens' is {self.max_tokens!r} and 'reserve' {self.reserve!r}: no room is left for a prompt"
            )

    @property
    def warm(self) -> bool:
        """Whether the provider still holds what was sent last."""
        return self.idle is not None and self.idle < self.ttl

    @property
    def held(self) -> int:
        """The tokens of the next prompt that the provider still holds."""
        return self.prompt - self.new if self.warm else 0

    @property
    def limit(self) -> float:
        """The largest prompt that fits, in tokens; infinite without a window."""
        return math.inf if self.max_tokens is None else self.max_tokens - self.reserve

    @property
    def forced(self) -> bool:
        """Whether the next request does not fit as it is."""
        return self.prompt > self.limit
