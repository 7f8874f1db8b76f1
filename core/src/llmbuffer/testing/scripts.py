"""Scripts that all adapters are measured on: a system prompt, tools, turns, and what changes from turn to turn.

A percentage of reuse says nothing without the length of what could be reused, and providers cache nothing below 1,024
tokens. So the standard script has more than 4,000 tokens of system text and tools and says how many (``Script.tokens``).
It is made from word lists by rule: equal at every run, and nobody's text. Simulated replies come with it.

>>> standard_script().tokens() > 4_000, len(standard_script().turns)
(True, 6)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from ..frozen import wire_json
from ..tokens import TokenCounter, counter_for

if TYPE_CHECKING:
    from ..simulate import Reply

__all__ = [
    "Script",
    "Turn",
    "clock",
    "handbook",
    "passage",
    "personas",
    "schema_of",
    "standard_script",
    "tools",
]

_GOODS = (
    "books", "teapots", "bicycles", "paintings", "seedlings", "cheeses", "violins", "lamps", "carpets", "medicines",
    "batteries", "mirrors", "clocks", "candles", "fossils",
)  # fmt: skip
_PLACES = (
    "Lyon", "Ghent", "Turin", "Bergen", "Porto", "Graz", "Leeds", "Malmö", "Basel", "Cork", "Tartu", "Zadar", "Brno",
    "Delft", "Vaasa",
)  # fmt: skip
_STEPS = (
    "weigh the parcel twice and keep the larger figure",
    "ask the sender for a telephone number on which somebody answers",
    "write the number of the depot on the label and on the list",
    "compare the declared value with the invoice before anything is promised",
    "leave the parcel at the counter until the driver has signed for it",
    "take a photograph of each side and add it to the record",
    "tell the recipient the day and the half of the day, never the hour",
    "offer a later day before a refund is mentioned",
)
_REASONS = (
    "because the scales at that depot were found to be wrong by a tenth",
    "because a third of all complaints there begin with a missing name",
    "because the insurer pays only for what was seen by two people",
    "because the road over the pass closes without notice in winter",
    "because customs asks for it when the value exceeds 150 euros",
)
_LIMITS = ("two days", "four days", "one week", "ten days", "three weeks")


def handbook(sections: int = 42) -> str:
    """The standing instructions of a parcel service, some 80 tokens a section; a longer one begins with a shorter one.

    >>> handbook(2).startswith(handbook(1)), handbook(1)[:42]
    (True, 'You answer for a parcel service. You are b')
    """
    lead = (
        "You answer for a parcel service. You are brief, you name the section that you rely on, and you never guess "
        "where a parcel is: you look it up."
    )
    return "\n".join([lead, *(_section(number) for number in range(1, sections + 1))])


def _section(number: int) -> str:
    goods, place = _GOODS[number * 7 % len(_GOODS)], _PLACES[number * 4 % len(_PLACES)]
    step, other = _STEPS[number % len(_STEPS)], _STEPS[(number * 3 + 1) % len(_STEPS)]
    reason, limit = _REASONS[number % len(_REASONS)], _LIMITS[number * 2 % len(_LIMITS)]
    return (
        f"Section {number}. For {goods} that pass through {place}, {step}, {reason}. Where a parcel of {goods} is late "
        f"by more than {limit}, {other}; above a value of {number * 35} euros a second clerk has to agree. Answers about "
        f"{goods} mention section {number} and nothing from the sections on other goods."
    )


# --- tools


def look_up(number: str) -> str:
    """Look up where a parcel is. Gives the depot, the day of the last scan, and who signed for it, if anybody did."""
    return (
        f"Parcel {number}: scanned at depot {_PLACES[_digit(number) % len(_PLACES)]}, waiting for a driver."
    )


def price(weight_grams: int, place: str) -> str:
    """Tell what it costs to send a parcel of this weight to a place, in euros, insurance up to 150 euros included."""
    return f"{4 + weight_grams // 500}.90 euros to {place}."


def depots(place: str) -> str:
    """List the depots near a place with their opening hours and the days on which drivers leave from there."""
    return f"Depots near {place}: Harbour (8 to 18), Station (6 to 22), Old Mill (10 to 16, not on Mondays)."


def hold(number: str, days: int) -> str:
    """Hold a parcel back at its depot for so many days, at most fourteen; the recipient is told by letter."""
    return f"Parcel {number} is held for {days} days."


def _digit(text: str) -> int:
    return sum(ord(each) for each in text)


def tools() -> dict[str, Callable[..., str]]:
    """The tools by name: plain typed functions whose results depend on their arguments alone.

    >>> sorted(tools()), tools()["hold"]("7", 2)
    (['depots', 'hold', 'look_up', 'price'], 'Parcel 7 is held for 2 days.')
    """
    return {function.__name__: function for function in (look_up, price, depots, hold)}


def schema_of(function: Callable[..., Any]) -> dict[str, Any]:
    """A typed function as a tool in OpenAI's chat format.

    >>> schema_of(hold)["function"]["parameters"]["properties"]["days"]
    {'type': 'integer'}
    """
    hints = get_type_hints(function)
    names = list(inspect.signature(function).parameters)
    kinds = {str: "string", int: "integer", float: "number", bool: "boolean"}
    properties = {name: {"type": kinds.get(hints.get(name, str), "string")} for name in names}
    parameters = {"type": "object", "properties": properties, "required": names}
    told = {
        "name": function.__name__,
        "description": inspect.getdoc(function) or "",
        "parameters": parameters,
    }
    return {"type": "function", "function": told}


# --- what changes


def clock(turn: int) -> str:
    """The time as it is put into system prompts: another one at each turn (or call).

    >>> clock(0), clock(1)
    ('Monday, 3 August 2026, 09:00:07', 'Monday, 3 August 2026, 09:03:20')
    """
    minutes, seconds = divmod(540 * 60 + 7 + turn * 193, 60)
    return f"Monday, 3 August 2026, {minutes // 60 % 24:02}:{minutes % 60:02}:{seconds:02}"


def passage(turn: int) -> str:
    """What a retriever found for a turn, some 130 tokens; no two turns share a sentence."""
    place, goods = _PLACES[turn * 2 % len(_PLACES)], _GOODS[turn * 5 % len(_GOODS)]
    return " ".join(
        f"Note {turn}.{line}: the depot of {place} handled {turn * 17 + line * 5 + 3} parcels of {goods} in week "
        f"{turn + line + 1}, of which {line + turn % 3} came back."
        for line in range(1, 5)
    )


# --- the script


class Turn(msgspec.Struct, frozen=True):
    """One turn: what the user says, the calls that the model makes (in parallel), what it answers, and what is dynamic."""

    user: str
    answer: str
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    clock: str = ""
    passage: str = ""


class Script(msgspec.Struct, frozen=True):
    """A conversation to be run on the framework alone and with its adapter: ``system``, ``tools`` by name, ``turns``."""

    system: str
    tools: Mapping[str, Callable[..., str]]
    turns: tuple[Turn, ...]

    def tokens(self, counter: TokenCounter | None = None) -> int:
        """Tokens of system text and tools, as OpenAI's newer models count (default), or as ``counter`` does."""
        counter = counter_for("gpt-5.5") if counter is None else counter
        schemas = (wire_json(schema_of(each)).decode() for each in self.tools.values())
        return counter.count(self.system) + sum(map(counter.count, schemas))

    def replies(self) -> list[Reply]:
        """What the simulated model says, request by request: for each turn its calls, if any, then its answer."""
        from ..simulate import Call, Reply

        said: list[Reply] = []
        for number, turn in enumerate(self.turns):
            made = tuple(
                Call(name, wire_json(arguments).decode(), f"call_{number}_{place}")
                for place, (name, arguments) in enumerate(turn.calls)
            )
            said += [Reply(calls=made)] if made else []
            said.append(Reply(turn.answer))
        return said

    @property
    def requests(self) -> int:
        """How many requests the script takes where the framework makes no others of its own."""
        return sum(2 if turn.calls else 1 for turn in self.turns)


_ASKED = (
    "Where is parcel {0}?",
    "And parcel {0}, does it go through {1}?",
    "What would {0} grams to {1} cost?",
)


def standard_script(turns: int = 6, *, sections: int = 42, with_tools: bool = True) -> Script:
    """The script of all adapters; ``sections`` sets the length of its system text, see ``handbook``.

    Every third turn is plain talk, every third calls one tool, every third two at once.
    """
    said = tuple(_turn(number, with_tools) for number in range(turns))
    return Script(handbook(sections), tools() if with_tools else {}, said)


def _turn(number: int, with_tools: bool) -> Turn:
    parcel, place = f"{4_100 + number * 37}", _PLACES[number % len(_PLACES)]
    calls: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    if with_tools and number % 3 == 0:
        calls = (("look_up", {"number": parcel}),)
    elif with_tools and number % 3 == 1:
        calls = (("look_up", {"number": parcel}), ("depots", {"place": place}))
    return Turn(
        _ASKED[number % 3].format(parcel, place) + f" The customer writes from {place} and is in no hurry.",
        f"As section {number + 3} says, parcel {parcel} is at the depot near {place}; it goes on as soon as a driver "
        f"has signed for it, and the recipient is told the half of the day.",
        calls,
        clock(number),
        passage(number),
    )


def personas() -> dict[str, str]:
    """Three members of a group, each with what is its own, some 30 tokens; what they share is the ``handbook``.

    >>> list(personas())
    ['clerk', 'driver', 'auditor']
    """
    return {
        "clerk": "You are the clerk. You answer the customer, name the section, and pass to the driver what is on the road.",
        "driver": "You are the driver. You say what the road allows today, in one sentence, and never speak of prices.",
        "auditor": "You are the auditor. You check what was said against the sections and correct what does not stand there.",
    }
