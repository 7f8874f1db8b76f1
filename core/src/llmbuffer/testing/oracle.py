"""What the best layout of a script would read from the cache, computed afterwards with all its requests known.

Reuse says little without what was possible. ``oracle`` takes the request bodies that a framework sends by itself and gives
a bound; ``measured`` gives the same figures for bodies as they are, so that default, buffered and oracle stand side by
side.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from ..bodies import Piece, Wire, likely_dialect, pieces, read_prompt
from ..errors import MessageError
from ..explaining import wire_of
from ..plugins import get_dialect
from ..reconcile.declared import sentences
from ..routing import RoutedCaches
from ..rules import CacheRules
from ..tokens import counter_for

__all__ = ["OracleFigures", "measured", "oracle"]

Body = Mapping[str, Any]
Unit = Literal["tokens", "characters"]
_STRETCHED = frozenset({"text", "input_text", "output_text"})


class OracleFigures(msgspec.Struct, frozen=True):
    """What was read of what was sent, in ``unit``: ``input`` in all, ``uncached`` of it not read; ``requests`` one by one.

    ``resent`` is the share of ``uncached`` that is no news: text that a tail carries behind what is new. Each of
    ``requests`` is ``(input, uncached)``.

    >>> OracleFigures("tokens", 200, 50, ((100, 40), (100, 10))).hit_ratio
    0.75
    """

    unit: Unit
    input: int
    uncached: int
    requests: tuple[tuple[int, int], ...] = ()
    resent: int = 0

    @property
    def hit_ratio(self) -> float:
        """The share of the input that was read; 0.0 without input."""
        return 1 - self.uncached / self.input if self.input else 0.0

    def times(self, other: OracleFigures) -> float:
        """How many times the uncached input of ``other`` this is: ``measured(…).times(oracle(…))`` is at least about 1."""
        return self.uncached / other.uncached if other.uncached else float("inf" if self.uncached else 1)


def oracle(
    bodies: Iterable[Body],
    *,
    model: str | None = None,
    dialect: str | None = None,
    unit: Unit = "tokens",
    team: bool = False,
    rounded: bool = False,
) -> OracleFigures:
    """What no layout of these requests can do better than, if each request keeps what the model is told.

    A request is taken for a bag of units: each tool, each sentence or line of the system text, each block of a message (a
    text, a call, a result). A layout may put the units of a request in any order. A cache serves a prefix, and every prefix
    that it holds was sent by *one* earlier request; so a request reads at most what it has in common with one earlier
    request (the best one), and a part of one unit more. What is new in a request is uncached in it.

    This is a lower bound of the uncached input of every order, and some orders would be odd: text that stands elsewhere
    than before counts as reusable. One thing more is certain where each request continues the one before it, and counts
    as ``resent``: text that goes away later (a clock, a passage of one turn) and something that is appended while it is
    there cannot both be read; either the text moves behind what is appended and is sent again, or what stands behind it is
    sent again when the text is gone. The smaller of both is added for each request that appends. Summaries, and branches
    of a conversation, get no such addition.

    ``model`` replaces that of the bodies, and ``dialect`` the one that they are likely to be of: they say how tokens are
    counted. With ``unit="characters"`` no tokenizer is asked. With ``team`` blocks are told from each other by their text
    alone, so that members of a team may share what each of them hears in another role. With ``rounded`` the minimum and the
    step of the provider's rules are applied to what is read.

    Raises ``MessageError`` for what is no request body, and ``UnknownDialectError``.

    >>> hello = [{"role": "user", "content": "Hello"}]
    >>> more = [*hello, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "And now?"}]
    >>> found = oracle([{"messages": hello}, {"messages": more}], unit="characters")
    >>> found.input - found.uncached == found.requests[0][0]
    True
    """
    bags = [_bag(body, model, dialect, unit, team) for body in bodies]
    reads = [
        min(bag.input, max((_common(bag, earlier) for earlier in bags[:index]), default=0))
        for index, bag in enumerate(bags)
    ]
    resent = _resent(bags, reads)
    reads = [read - again for read, again in zip(reads, resent, strict=True)]
    if rounded:
        reads = [_rounded(read, bag.rules) for read, bag in zip(reads, bags, strict=True)]
    return _figures(unit, [bag.input for bag in bags], reads, sum(resent))


def measured(
    bodies: Iterable[Body],
    *,
    model: str | None = None,
    dialect: str | None = None,
    unit: Unit = "tokens",
    seconds: float = 1.0,
) -> OracleFigures:
    """What was read of bodies as they are, sent in this order, ``seconds`` apart; arguments as for ``oracle``.

    In tokens, by the cache model of the dialect, its minimum, step, marks and routing keys included (simulated). In
    characters, by the longest common prefix with an earlier request of the same model.

    >>> body = {"messages": [{"role": "user", "content": "Hello"}]}
    >>> measured([body, body], unit="characters").hit_ratio
    0.5
    """
    if unit == "characters":
        return _by_characters(bodies, model, dialect)
    caches: dict[tuple[str, str], RoutedCaches] = {}
    inputs, reads = [], []
    for number, body in enumerate(bodies):
        wire, rules, count = _served(body, model, dialect)
        key = (str(model or body.get("model")), wire)
        kept = caches.setdefault(key, RoutedCaches(rules, count=count))
        snapshot = read_prompt(body, wire, rules, count)
        inputs.append(snapshot.tokens)
        if rules.match == "entries" and rules.implicit and not snapshot.marks:
            reads.append(0)  # explicit mode without a breakpoint: nothing is cached
            continue
        at, routed = number * seconds, body.get(rules.routing_field or "")
        cache = kept.route(snapshot, at, routed if isinstance(routed, str) else None)
        found = cache.commit(snapshot, at)
        reads.append(min(found.read_tokens, snapshot.tokens))
    return _figures("tokens", inputs, reads)


def _by_characters(bodies: Iterable[Body], model: str | None, dialect: str | None) -> OracleFigures:
    prompts: list[tuple[str, str]] = []
    reads = []
    for body in bodies:
        shown = "".join(_shown(piece) for piece in _pieces(body, dialect))
        name = str(model or body.get("model"))
        reads.append(max((_prefix(shown, told) for who, told in prompts if who == name), default=0))
        prompts.append((name, shown))
    return _figures("characters", [len(shown) for _, shown in prompts], reads)


def _figures(unit: Unit, inputs: Sequence[int], reads: Sequence[int], resent: int = 0) -> OracleFigures:
    each = tuple((whole, whole - read) for whole, read in zip(inputs, reads, strict=True))
    return OracleFigures(unit, sum(inputs), sum(left for _, left in each), each, resent)


# --- bags of units


class _Bag(NamedTuple):
    """A request as units: how often each occurs, what it weighs, and by which rules it is served."""

    units: Counter[str]
    weights: dict[str, int]
    input: int
    model: str
    rules: CacheRules | None
    count: Callable[[str], int]


def _bag(body: Body, model: str | None, dialect: str | None, unit: Unit, team: bool) -> _Bag:
    named = str(model or body.get("model"))
    rules: CacheRules | None = None
    count: Callable[[str], int] = len
    if unit == "characters":
        found = _pieces(body, dialect)
    elif unit == "tokens":
        wire, rules, count = _served(body, model, dialect)
        found = pieces(body, wire)
    else:
        raise MessageError(f"unit is {unit!r}: use 'tokens' or 'characters'")
    weights: dict[str, int] = {}
    units: Counter[str] = Counter()
    for piece in found:
        for name, weight in _units(piece, unit, count, team):
            units[name] += 1
            weights[name] = weight
    characters = unit == "characters"
    total = sum(len(_shown(piece)) if characters else piece.tokens(count) for piece in found)
    return _Bag(units, weights, total, named, rules, count)


def _units(piece: Piece, unit: Unit, count: Callable[[str], int], team: bool) -> list[tuple[str, int]]:
    """The units of a piece with their weights: sentences of system text, and of any text for a team; else all of it."""
    shown = _shown(piece)
    if piece.kind not in _STRETCHED or not (team or piece.section == "system"):
        name = piece.text if team and piece.text else shown
        return [(name, len(shown) if unit == "characters" else piece.tokens(count))]
    frame = len(shown) - len(piece.text)
    lead = shown[:frame]
    framing = frame if unit == "characters" else piece.tokens(count) - count(piece.text)
    stretches = [(each, count(each)) for each in _stretches(piece.text)]
    return [("\0lead" if team else f"\0{lead}", framing), *stretches]


def _stretches(text: str) -> list[str]:
    r"""Sentences and lines, the spaces between two with the second, as tokenizers have them.

    >>> _stretches("One. Two.\nThree")
    ['One.', ' Two.\n', 'Three']
    """
    out, spaces = [], ""
    for each in sentences(text):
        bare = each.rstrip(" \t")
        out.append(spaces + bare)
        spaces = each[len(bare) :]
    return [*out, spaces] if spaces else out


def _common(bag: _Bag, earlier: _Bag) -> int:
    """What two requests have in common, and the most that one unit more can add."""
    if bag.model != earlier.model:
        return 0
    shared = bag.units & earlier.units
    weight = sum(bag.weights[name] * times for name, times in shared.items())
    return weight + _part(bag.units - shared, earlier.units - shared, bag)


def _part(left: Counter[str], other: Counter[str], bag: _Bag) -> int:
    """What the longest common beginning of two different units weighs, one of each side."""
    told = sorted(other)
    best = ""
    for name in left:
        place = bisect_left(told, name)
        for near in told[max(0, place - 1) : place + 2]:
            shared = "" if near == name else name[: _prefix(name, near)]
            best = shared if len(shared) > len(best) else best
    return min(bag.count(best), max((bag.weights[name] for name in left), default=0)) if best else 0


def _resent(bags: Sequence[_Bag], reads: Sequence[int]) -> list[int]:
    """For each request, what a layout has to send again though the bound lets it be read; see ``oracle``."""
    out = [0] * len(bags)
    if not all(_continues(bags, index) for index in range(1, len(bags))):
        return out
    # What is said twice may stand on both sides: only what occurs once is told apart by its place.
    once = Counter({name: 1 for bag in bags for name in bag.units})
    once -= Counter({name: 1 for bag in bags for name, times in bag.units.items() if times > 1})
    for index in range(1, len(bags) - 1):
        born = (bags[index].units - _seen(bags[:index])) & once
        held = bags[index].units & bags[index - 1].units & once
        worst, at = 0, index
        for end in range(index + 1, len(bags)):
            gone = held - bags[end].units
            held = held & bags[end].units
            stays = born & bags[end].units
            again, lost = _loss(gone, bags[index], bags[index - 1]), _loss(stays, bags[end], bags[end - 1])
            worst, at = max((worst, at), (again, index) if again < lost else (lost, end))
        out[at] += worst
    return [min(again, read) for again, read in zip(out, reads, strict=True)]


def _loss(units: Counter[str], bag: _Bag, earlier: _Bag) -> int:
    """What a request loses that cannot read these units, but for a part of one of them."""
    return max(0, _weight(units, bag) - _part(bag.units, earlier.units, bag))


def _continues(bags: Sequence[_Bag], index: int) -> bool:
    """Whether a request has all that it shares with any earlier one in common with the one right before it."""
    bag, before = bags[index], bags[index - 1].units
    return all((bag.units & earlier.units) <= before for earlier in bags[: index - 1])


def _seen(bags: Sequence[_Bag]) -> Counter[str]:
    seen: Counter[str] = Counter()
    for bag in bags:
        seen |= bag.units
    return seen


def _weight(units: Counter[str], bag: _Bag) -> int:
    return sum(bag.weights[name] * times for name, times in units.items())


def _rounded(read: int, rules: CacheRules | None) -> int:
    if rules is None:
        return read
    return 0 if read < rules.min_tokens else read // max(1, rules.step) * max(1, rules.step)


# --- bodies


def _served(
    body: Body, model: str | None, dialect: str | None
) -> tuple[Wire, CacheRules, Callable[[str], int]]:
    named = str(model or body.get("model") or "")
    wire = wire_of(body) if dialect is None else _WIRES.get(dialect, "openai")
    rules = get_dialect(dialect or likely_dialect(body, wire)).bind(named).rules
    return wire, rules, counter_for(named).count


def _pieces(body: Body, dialect: str | None) -> list[Piece]:
    return pieces(body, wire_of(body) if dialect is None else _WIRES.get(dialect, "openai"))


_WIRES: dict[str, Wire] = {
    "anthropic": "anthropic",
    "gemini": "gemini",
    "openai-responses": "openai-responses",
}


def _shown(piece: Piece) -> str:
    return piece.wire.decode(errors="replace")


def _prefix(one: str, other: str) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low
