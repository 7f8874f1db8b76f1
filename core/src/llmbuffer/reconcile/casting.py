"""Who is in a conversation of a host, what the members' prompts have in common, and whether they share one prefix."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..context import StableContext
from ..errors import LLMBufferError
from ..messages import Message
from ..team.choosing import TURN_TOKENS, Choice, choose
from ..team.members import Cast, Member, split_common
from ..team.merging import merged
from ..tools import Tool
from .hosts import Host

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Common", "Company", "Decision", "Part", "common_of", "merged_tools"]

_DEARER = 1.01  # times what a prompt each would cost: above, members keep one each
_LEAST = 0.5  # of the shorter prompts has to be common; a member without so much is left out first
_MEMBERS = 1024  # that are known beside those that were declared
_CHOICES = 64  # that are remembered


class Part(NamedTuple):
    """What one member brings: its system texts without what is dynamic, what is marked as its own, and its tools."""

    texts: tuple[str, ...] = ()
    persona: str = ""
    tools: tuple[tuple[Any, Tool], ...] = ()

    @property
    def prompt(self) -> str:
        """All of its text."""
        return "\n\n".join(text for text in (*self.texts, self.persona) if text.strip())


class Common(NamedTuple):
    """What members' prompts begin and end with, for each of their system texts."""

    columns: tuple[tuple[str, str], ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The common texts."""
        return tuple(prefix + suffix for prefix, suffix in self.columns)

    @property
    def length(self) -> int:
        """In characters."""
        return sum(map(len, self.texts))

    def own(self, part: Part) -> tuple[str, ...] | None:
        """What is left of each text of a member; ``None`` if its prompt is not built around the common text.

        >>> Common((("", "Be kind."),)).own(Part(("You are Ann. Be kind.",)))
        ('You are Ann. ',)
        """
        if len(part.texts) != len(self.columns):
            return None
        out = []
        for text, (prefix, suffix) in zip(part.texts, self.columns, strict=True):
            end = len(text) - len(suffix)
            if end < len(prefix) or not text.startswith(prefix) or not text.endswith(suffix):
                return None
            out.append(text[len(prefix) : end])
        return tuple(out)


class Decision(NamedTuple):
    """What was chosen, whose prompts are built around the common text, and who reads behind it all the same.

    ``common`` is a part of the prompt of each who is inside; members that are only guessed at are in neither list.
    """

    choice: Choice
    inside: tuple[str, ...]
    guests: tuple[str, ...]
    common: Common | None


def common_of(parts: Sequence[Part]) -> Common | None:
    """What all prompts have in common; ``None`` where they are made of different numbers of texts."""
    if len({len(part.texts) for part in parts}) != 1:
        return None
    columns = zip(*(part.texts for part in parts), strict=True)
    return Common(tuple(split_common(column)[:2] for column in columns))


def merged_tools(parts: Iterable[Part], host: Host) -> tuple[dict[str, tuple[Any, Tool]], str]:
    """The tools of all, each as an object of the host's, and why they cannot stand in one list (``""`` if they can)."""
    parts = list(parts)
    tools, reason = merged([tool for _, tool in part.tools] for part in parts)
    items: dict[bytes, Any] = {}
    for item, tool in (each for part in parts for each in part.tools):
        items.setdefault(tool.identity, item)
    out: dict[str, tuple[Any, Tool]] = {}
    for tool in tools:
        item = items.get(tool.identity)
        if item is None:
            makes = getattr(host, "from_tool", None)
            if makes is None:
                return {}, f"the tool {tool.name!r} has schemas that the host cannot merge"
            item = makes(tool)
        out[tool.name] = (item, tool)
    return out, reason


class Company:
    """The members that one wrapped model has served, those that were declared, and what was decided for them.

    Its conversations may be those of different users. So what a member brought to one of them, in ``parts``, is no more than a
    guess in another one: it may show where prompts part, and what sharing costs. Text and tools that go out are of those who
    speak there, or were declared. Used under the router's lock.
    """

    def __init__(self, session: Session, host: Host) -> None:
        self.session, self.host = session, host
        self.parts: dict[str, Part] = {}
        self.retold: bool | None = getattr(host, "by_reader", None)
        self._declared: dict[str, Part] = {}
        self._met: dict[str, dict[str, None]] = {}
        self._choices: dict[Any, Decision] = {}

    @property
    def named(self) -> bool:
        """Whether the dialect takes breakpoints, but none behind what an assistant said."""
        dialect = self.session.dialect
        return dialect.rules.has_marks and dialect.render_message(Message("assistant", "-"), None).mark_at < 0

    def enter(self, name: str, part: Part, *, declared: bool = False) -> None:
        """Take in what a member brings now; of those that nobody declared, the latest 1,024 are known."""
        self.parts.pop(name, None)
        self.parts[name] = part
        if declared:
            self._declared[name] = part
        if len(self.parts) > _MEMBERS + len(self._declared):
            oldest = next(each for each in self.parts if each not in self._declared)
            del self.parts[oldest]
            self._met.pop(oldest, None)

    def part(self, name: str, there: Mapping[str, Part]) -> Part | None:
        """What a member brings to a conversation, by those who spoke in it and what was declared."""
        return there.get(name, self._declared.get(name))

    def meets(self, names: Iterable[str]) -> None:
        """Remember who speaks in one conversation."""
        names = tuple(names)
        for name in names:
            self._met.setdefault(name, {}).update(dict.fromkeys(names))

    def expected(self, name: str, there: Iterable[str]) -> tuple[str, ...]:
        """Those who are expected in a conversation: who was declared, and whom the member met before."""
        declared = self._declared if name in self._declared or self._declared.keys() & {*there} else {}
        found = dict.fromkeys((*declared, *self._met.get(name, ()), *there, name))
        return tuple(each for each in found if each in self.parts)

    def decided(self, names: Sequence[str], there: Mapping[str, Part], wanted: str) -> Decision | None:
        """The layout for these members, and those of them who share it; ``wanted`` is ``shared`` or ``auto``.

        ``there`` is what those brought who spoke in this conversation. ``None`` while fewer than two are known of whom nobody
        has to be guessed, and guesses do not fit.
        """
        sure = {name: part for name in names if (part := self.part(name, there)) is not None}
        if len(sure) < len(names):
            found = self._remembered({name: sure.get(name, self.parts[name]) for name in names}, sure, wanted)
            if found.inside and (found.choice.layout == "shared" or found.choice.costs):
                return found
        return self._remembered(sure, sure, wanted) if len(sure) > 1 else None

    def _remembered(self, parts: Mapping[str, Part], sure: Collection[str], wanted: str) -> Decision:
        """What is decided for members, by what they bring."""
        key = (
            wanted,
            *((name, name in sure, *part[:2], _identities(part)) for name, part in parts.items()),
        )
        found = self._choices.get(key)
        if found is None:
            inside = _insiders(parts)
            common = common_of([parts[name] for name in inside])
            guests = [
                name
                for name, part in parts.items()
                if name not in inside and common is not None and self.may_be_guest(part, common, wanted)
            ]
            choice = self._choice(
                {name: parts[name] for name in inside}, {name: parts[name] for name in guests}, wanted
            )
            mine, others = ([name for name in group if name in sure] for group in (inside, guests))
            found = self._choices[key] = Decision(choice, tuple(mine), tuple(others), common)
            while len(self._choices) > _CHOICES:
                del self._choices[next(iter(self._choices))]
        return found

    def may_be_guest(self, part: Part, common: Common, wanted: str) -> bool:
        """Whether a member whose prompt is not built around the common text gains by reading behind it.

        It saves writing what was said since its last turn, and pays for its own prompt anew and for reading the common one.
        """
        count, rules = self.session.counter.count, self.session.dialect.rules
        own, read = count(part.prompt), rules.read_multiplier * sum(map(count, common.texts))
        return wanted == "shared" or rules.write_multiplier * TURN_TOKENS > own + read

    def _choice(self, inside: Mapping[str, Part], guests: Mapping[str, Part], wanted: str) -> Choice:
        parts = {**inside, **guests}
        tools, conflict = merged_tools(parts.values(), self.host)
        common = common_of([*inside.values()])
        if common is None:
            conflict = "the members' prompts are made of different numbers of texts"
        if conflict:
            return Choice("separate", f"separate: {conflict}")
        speaker = getattr(self.host, "speaker", None)
        if wanted == "auto" and self.named and speaker is None:
            conflict = "no breakpoint can stand behind an assistant's message, and the host names no speakers"
            return Choice("separate", f"separate: {conflict}")
        if wanted == "shared":
            return Choice("shared", "shared: as declared")
        assert common is not None, "else it is a conflict"
        try:
            context = self.session.context.replace(system="", tools=[tool for _, tool in tools.values()])
            found = choose(self.session, _cast(context, parts, common), roles="turn")
        except LLMBufferError as error:  # a name that cannot stand in a text
            return Choice("separate", f"separate: {error}")
        apart, costs = found.costs.get("separate"), found.costs
        if (
            found.layout == "shared"
            and apart is not None
            and min(cost for shown, cost in costs.items() if shown != "separate") > apart * _DEARER
        ):
            return Choice("separate", found.reason, costs=costs)
        return found


def _insiders(parts: Mapping[str, Part]) -> tuple[str, ...]:
    """Those whose prompts have enough in common; all where nobody's have."""
    inside = dict(parts)
    while len(inside) > 2 and not _enough(inside):
        without = {name: _common({each: parts[each] for each in inside if each != name}) for name in inside}
        del inside[max(without, key=lambda name: without[name])]
    return tuple(inside if len(inside) == len(parts) or _enough(inside) else parts)


def _enough(parts: Mapping[str, Part]) -> bool:
    return _common(parts) >= _LEAST * min(sum(map(len, part.texts)) for part in parts.values())


def _common(parts: Mapping[str, Part]) -> int:
    common = common_of([*parts.values()])
    return -1 if common is None else common.length


def _cast(context: StableContext, parts: Mapping[str, Part], common: Common) -> Cast:
    """The members' prompts under both layouts. Raises ``MessageError`` for a name that cannot stand in a text."""
    own = {name: tuple(tool for _, tool in part.tools) for name, part in parts.items()}
    left = {name: common.own(part) or part.texts for name, part in parts.items()}
    return Cast(
        members=tuple(Member(name, system=part.prompt, tools=own[name]) for name, part in parts.items()),
        alone={name: context.replace(system=part.prompt, tools=own[name]) for name, part in parts.items()},
        shared=context.replace(system="\n\n".join(common.texts)),
        personas={name: "\n".join((*left[name], part.persona)) for name, part in parts.items()},
        allowed={name: tuple(tool.name for tool in tools) for name, tools in own.items()},
        common_characters=common.length,
    )


def _identities(part: Part) -> tuple[bytes, ...]:
    return tuple(tool.identity for _, tool in part.tools)
