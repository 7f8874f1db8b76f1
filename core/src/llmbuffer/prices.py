"""What requests cost: a small dated table of list prices, the arithmetic, and the look-up by model name.

``prices.json`` beside this module holds the table; every row names its source and the day on which that was read. A
user's own prices win over it, and ``genai-prices``, where installed (extra ``prices``, Python 3.11 and later), answers
for models that it lacks. All rates are US dollars per million tokens; batch, flex and priority rates are not modelled.
"""

from __future__ import annotations

import datetime as dt
import importlib
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec

from .errors import PriceError
from .usage import Usage

__all__ = ["CostParts", "Price", "Rates", "Tier", "cost", "cost_parts", "known_models", "price_for"]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars per million tokens.

    ``cache_write`` is for entries of the short lifetime (5 or 30 minutes), ``cache_write_long`` for those of the long
    one (1 or 12 hours). None (the default) means without a rate of its own: reads and writes are then billed as
    ordinary input, long writes as short ones. Raises ``PriceError`` for a rate that is negative or not finite.

    >>> rates = Rates(input=4, output=20, cache_read=0.4, cache_write=5)
    >>> rates.read_multiplier, rates.write_multiplier, rates.write_long_multiplier
    (0.1, 1.25, 1.25)
    """

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_long: float | None = None

    def __post_init__(self) -> None:
        for name in Rates.__struct_fields__:
            rate = getattr(self, name)
            if rate is not None and not 0 <= rate < math.inf:
                raise PriceError(f"the rate {name!r} is {rate!r}: give dollars per million tokens, 0 or more")

    @property
    def read_multiplier(self) -> float:
        """The price of a token read from the cache, in ordinary input tokens."""
        return self._relative(self._read)

    @property
    def write_multiplier(self) -> float:
        """The price of a token written for the short lifetime, in ordinary input tokens; 1.0 without a fee."""
        return self._relative(self._write)

    @property
    def write_long_multiplier(self) -> float:
        """The price of a token written for the long lifetime, in ordinary input tokens; 1.0 without a fee."""
        return self._relative(self._write_long)

    @property
    def _read(self) -> float:
        return self.input if self.cache_read is None else self.cache_read

    @property
    def _write(self) -> float:
        return self.input if self.cache_write is None else self.cache_write

    @property
    def _write_long(self) -> float:
        return self._write if self.cache_write_long is None else self.cache_write_long

    def _relative(self, rate: float) -> float:
        # Where input is free (an engine of one's own), no token is cheaper than another.
        return rate / self.input if self.input else 1.0


class Tier(Rates, frozen=True, kw_only=True):
    """The rates of a request whose prompt has more than ``above`` tokens; they hold for all of its tokens.

    >>> Tier(above=200_000, input=4, output=18, cache_read=0.4).read_multiplier
    0.1
    """

    above: int


class Price(Rates, frozen=True, kw_only=True):
    """The price of one model: rates, tiers for long prompts, and where and when they were read.

    ``source`` defaults to "user" and ``date`` to None, for prices of one's own. ``cache_storage_hour`` is what explicit
    caches cost while they are kept, in US dollars per million tokens and hour; None where nobody bills it, or knows.

    >>> price = Price(input=2, output=12, tiers=(Tier(above=200_000, input=4, output=18),))
    >>> price.rates(200_000).input, price.rates(200_001).input
    (2, 4)
    """

    model: str = ""
    provider: str = ""
    tiers: tuple[Tier, ...] = ()
    note: str = ""
    source: str = "user"
    date: dt.date | None = None
    cache_storage_hour: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        stored = self.cache_storage_hour
        if stored is not None and not 0 <= stored < math.inf:
            raise PriceError(
                f"the rate 'cache_storage_hour' is {stored!r}: give dollars per million tokens and hour, 0 or more"
            )

    def rates(self, input_tokens: int) -> Rates:
        """The rates of a request with a prompt of ``input_tokens``: those of its highest tier, else the base ones."""
        reached = [tier for tier in self.tiers if input_tokens > tier.above]
        return max(reached, key=lambda tier: tier.above) if reached else self


class CostParts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The cost of one request in US dollars, by what was paid for, or the sum over several.

    >>> parts = CostParts(read=0.25, written=0.5, fresh=0.25, output=1.0)
    >>> parts.total, (parts + parts).written
    (2.0, 1.0)
    """

    read: float = 0.0
    written: float = 0.0
    fresh: float = 0.0
    output: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.read + self.written + self.fresh + self.output

    def __add__(self, other: CostParts) -> CostParts:
        if not isinstance(other, CostParts):
            return NotImplemented
        return CostParts(
            read=self.read + other.read,
            written=self.written + other.written,
            fresh=self.fresh + other.fresh,
            output=self.output + other.output,
        )


def cost(usage: Usage, price: Price) -> float:
    """US dollars for one request: the total of its ``cost_parts``.

    Add up costs, not usages: the tokens of several requests together may cross a tier that none of them reached.

    >>> usage = Usage(input_tokens=10_000, cache_read_tokens=8_000, cache_write_tokens=1_000, output_tokens=500)
    >>> round(cost(usage, Price(input=4, output=20, cache_read=0.4, cache_write=5)), 6)
    0.0222
    """
    return cost_parts(usage, price).total


def cost_parts(usage: Usage, price: Price) -> CostParts:
    """US dollars for one request, split into read, written, fresh and output.

    With the rates of the tier that ``usage.input_tokens`` reaches, per million tokens:

    - read: ``cache_read_tokens`` at ``cache_read``
    - written: ``cache_write_tokens - cache_write_long_tokens`` at ``cache_write``, ``cache_write_long_tokens`` at
      ``cache_write_long``
    - fresh: ``input_tokens - cache_read_tokens - cache_write_tokens`` at ``input``
    - output: ``output_tokens`` at ``output``

    >>> cost_parts(Usage(input_tokens=1_000_000, cache_read_tokens=500_000), Price(input=2, output=10, cache_read=0.2))
    CostParts(read=0.1, written=0.0, fresh=1.0, output=0.0)
    """
    rates = price.rates(usage.input_tokens)
    short = usage.cache_write_tokens - usage.cache_write_long_tokens
    return CostParts(
        read=usage.cache_read_tokens * rates._read / 1e6,
        written=(short * rates._write + usage.cache_write_long_tokens * rates._write_long) / 1e6,
        fresh=usage.fresh_tokens * rates.input / 1e6,
        output=usage.output_tokens * rates.output / 1e6,
    )


def price_for(
    model: str, *, overrides: Mapping[str, Price] | None = None, at: dt.datetime | None = None
) -> Price | None:
    """The price of ``model``, or None where nobody knows it: from ``overrides``, our table, then ``genai-prices``.

    Names are compared without regard to case and to ``.`` or ``-`` in version numbers. The prefix of a seller
    at list price (``openai/``, ``azure/``, ``anthropic:``, ``models/``, …) and a date at the end (``-2024-08-06``,
    ``@20251101``, ``-0806``) may be missing in the table; no other part may, so ``gpt-4o-mini`` never gets the price of
    ``gpt-4o``, and a seller with prices of its own never the maker's.

    ``at`` (default now) picks among the prices that ``genai-prices`` knows to change with date or time of day.

    >>> price_for("anthropic/claude-opus-4-5-20251101").input, price_for("no-such-model")
    (5.0, None)
    >>> price_for("gpt-4o", overrides={"gpt-4o": Price(input=1, output=2)}).source
    'user'
    """
    own = {_canonical(name): price for name, price in (overrides or {}).items()}
    for prices in (own, _table()):
        for name in _spellings(model):
            if name in prices:
                return prices[name]
    return _from_genai(model, at or dt.datetime.now(dt.timezone.utc))


def known_models() -> tuple[str, ...]:
    """The models of our own table, sorted.

    >>> "claude-opus-4.5" in known_models()
    True
    """
    return tuple(sorted({price.model for price in _table().values()}))


class _File(msgspec.Struct, forbid_unknown_fields=True):
    about: str
    aliases: dict[str, str]  # another name of the same model, to the name in its row
    rows: tuple[Price, ...]


@cache
def _table() -> dict[str, Price]:
    from importlib import resources  # a tenth of the time that importing llmbuffer may take

    content = resources.files(__package__).joinpath("prices.json").read_bytes()
    file = msgspec.json.decode(content, type=_File)
    rows = {_canonical(price.model): price for price in file.rows}
    return rows | {_canonical(alias): rows[_canonical(model)] for alias, model in file.aliases.items()}


# Sellers whose rows in litellm 1.109.1 equal the maker's list price, and names of the makers' own APIs.
_LIST_PRICE = re.compile(r"^(?:(?:openai|azure|anthropic|gemini|google|vertex_ai|deepseek|models)[/:])+")
_MONTH, _DAY = r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = re.compile(rf"[-@](?:20\d\d(-?){_MONTH}\1{_DAY}|{_MONTH}{_DAY})$")


def _canonical(name: str) -> str:
    return re.sub(r"(?<=\d)\.(?=\d)", "-", name.lower())


def _spellings(model: str) -> Iterator[str]:
    """The names to look up, the closest first: as given, without prefix, and each of them without its date."""
    full = _canonical(model)
    bare = _LIST_PRICE.sub("", full)
    yield from (full, bare, _DATE.sub("", full), _DATE.sub("", bare))


_GENAI_KEYS = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cache_read": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_long": "cache_write_1h_mtok",
}


def _from_genai(model: str, at: dt.datetime) -> Price | None:
    try:
        genai = importlib.import_module("genai_prices")
    except ModuleNotFoundError as error:
        if error.name != "genai_prices":
            raise  # it is there, but broken
        return None
    bare = _LIST_PRICE.sub("", model.lower())
    sold = re.match(r"([a-z][a-z_-]*)[/:](.+)", bare)
    provider, name = sold.groups() if sold else (None, bare)
    for spelling in dict.fromkeys((name, _canonical(name))):
        try:
            found = genai.calc_price(
                genai.Usage(), spelling, provider_id=provider, genai_request_timestamp=at
            )
        except LookupError:  # its way to say that it does not know the name
            continue
        return _converted(found, f"genai-prices {genai.__version__}", at.date())
    return None


def _converted(found: Any, source: str, day: dt.date) -> Price | None:
    values = {ours: getattr(found.model_price, theirs, None) for ours, theirs in _GENAI_KEYS.items()}
    if values["input"] is None or values["output"] is None:
        return None  # not billed by tokens of text
    starts = sorted({tier.start for value in values.values() for tier in getattr(value, "tiers", ())})
    tiers = [{"above": start, **_reached(values, start)} for start in starts]
    names = {"model": found.model.id, "provider": found.provider.id, "source": source, "date": day}
    return msgspec.convert({**_reached(values, -1), **names, "tiers": tiers}, Price)


def _reached(values: Mapping[str, Any], start: int) -> dict[str, float]:
    """The rates above ``start`` tokens; a value of genai-prices is a number, or a base with tiers."""
    rates = {}
    for name, value in values.items():
        if value is not None:
            higher = [tier.price for tier in getattr(value, "tiers", ()) if tier.start <= start]
            rates[name] = float([getattr(value, "base", value), *higher][-1])
    return rates
