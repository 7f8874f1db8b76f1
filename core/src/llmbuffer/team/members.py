"""Who is on a team: members, what their prompts have in common, and the union of their tools."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ..context import Segment, StableContext
from ..errors import MessageError
from ..frozen import check_text
from ..tools import Tool
from .merging import merged

__all__ = ["Cast", "Member", "cast_of", "split_common"]

_RULES = (
    "The members of a team speak here; what one of them said begins with its name. The end of the conversation says which "
    "member you are: speak as that one alone."
)
# Where a sentence or a line ends: the common text is cut there, so that neither half holds a broken sentence.
_ENDS = re.compile(r"(?<=[.!?:])[ \t]+|\n+|(?<=[\u3002\uff01\uff1f])")


class Member(msgspec.Struct, frozen=True):
    """One member of a team.

    ``name`` is how the others read it. ``persona`` is what sets it apart from the others; in its place ``system`` may be a
    whole system prompt, of which the team shares what all its members' prompts begin and end with. ``tools`` are its own,
    as for ``StableContext``. Frozen; the ``repr`` shows no text.

    Raises ``MessageError`` for a name that is empty, has a line break or a colon, and for both texts at once.

    >>> Member("writer", "You write.", tools=[{"name": "save"}])
    Member(name='writer', persona=<10>, tools=['save'])
    """

    name: str
    persona: str = ""
    tools: tuple[Tool, ...] = ()
    system: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip() or set(self.name) & set(":\n\r"):
            raise MessageError(
                f"a member's name is {self.name!r}: give a word or two without colon and line break"
            )
        for field in ("persona", "system"):
            text = getattr(self, field)
            if not isinstance(text, str | None):
                raise MessageError(
                    f"the {field} of member {self.name!r} is a {type(text).__name__}: give a string"
                )
            check_text(text or "", f"{field} of member {self.name!r}")
        if self.persona and self.system is not None:
            raise MessageError(
                f"member {self.name!r} has a persona and a whole system prompt: give one of them"
            )
        check_text(self.name, "name of a member")
        if not isinstance(self.tools, Iterable):
            raise MessageError(
                f"the tools of member {self.name!r} are a {type(self.tools).__name__}: give a list"
            )
        msgspec.structs.force_setattr(self, "tools", tuple(map(Tool.of, self.tools)))

    @property
    def prompt(self) -> str:
        """Its own text: the whole system prompt, or the persona."""
        return self.persona if self.system is None else self.system

    def __repr__(self) -> str:
        own = f"persona=<{len(self.persona)}>" if self.system is None else f"system=<{len(self.system)}>"
        return f"Member(name={self.name!r}, {own}, tools={[tool.name for tool in self.tools]})"


class Cast(msgspec.Struct, frozen=True):
    """A team's prompts under both layouts, by the name of the member.

    ``alone`` are the contexts of members with a prompt each, ``shared`` the one of all (``None`` where ``conflict`` says why
    their tools cannot stand in one list), ``personas`` what is left for each member then, ``allowed`` the tools that it
    may use, and ``common_characters`` how much of the members' prompts is common to all.
    """

    members: tuple[Member, ...]
    alone: Mapping[str, StableContext]
    shared: StableContext | None
    personas: Mapping[str, str]
    allowed: Mapping[str, tuple[str, ...]]
    conflict: str = ""
    common_characters: int = 0


def cast_of(context: StableContext, members: Iterable[Member]) -> Cast:
    """The prompts of ``members`` who share ``context``: its segments, tools and params are everybody's.

    Raises ``MessageError`` for no member, for two of one name, and for what is no ``Member``.

    >>> cast = cast_of(StableContext("gpt-5.5", "Be kind."), [Member("ann", "Sing."), Member("bob", "Dance.")])
    >>> [segment.name for segment in cast.alone["ann"].segments], cast.personas["bob"]
    (['system', 'member'], 'Dance.')
    """
    found = _checked(members)
    prefix, suffix, personas = "", "", {member.name: member.prompt for member in found}
    if len(found) > 1 and all(member.system is not None for member in found):
        prefix, suffix, own = split_common([member.prompt for member in found])
        personas = dict(zip(personas, own, strict=True))
    system = [*context.segments, *context.dynamic]
    tools, conflict = merged([context.tools, *(member.tools for member in found)])
    common = [*_segment("common", prefix + suffix), Segment("team", _RULES)]
    return Cast(
        members=found,
        alone={member.name: _alone(context, member) for member in found},
        shared=None if conflict else context.replace(system=[*system, *common], tools=tools),
        personas=personas,
        allowed={member.name: _names([*context.tools, *member.tools]) for member in found},
        conflict=conflict,
        common_characters=len(prefix) + len(suffix),
    )


def _alone(context: StableContext, member: Member) -> StableContext:
    """The member's own prompt, as it would have without the team."""
    system = [*context.segments, *context.dynamic, *_segment("member", member.prompt)]
    tools = merged([context.tools, member.tools])[0]
    return context.replace(system=system, tools=tools)


def _checked(members: Iterable[Member]) -> tuple[Member, ...]:
    found = tuple(members) if isinstance(members, Iterable) else ()
    if not found or not all(isinstance(member, Member) for member in found):
        raise MessageError(
            f"members are {[type(member).__name__ for member in found]}: give a list of Member"
        )
    names = [member.name for member in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MessageError(f"members share the names {twice}: names tell who speaks, so make each different")
    return found


def _segment(name: str, text: str) -> list[Segment]:
    return [Segment(name, text)] if text.strip() else []


def _names(tools: Iterable[Tool]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tool.name for tool in tools))


def split_common(texts: Sequence[str]) -> tuple[str, str, list[str]]:
    """What all texts begin with, what all end with, and what is left of each, cut where sentences or lines end.

    >>> split_common(["You are Ann. Be kind.", "You are Bob. Be kind."])
    ('', 'Be kind.', ['You are Ann. ', 'You are Bob. '])
    """
    prefix = _to_an_end(_beginning(texts), texts)
    rest = [text[len(prefix) :] for text in texts]
    ending = _beginning([text[::-1] for text in rest])[::-1]
    suffix = _from_a_start(ending, rest)
    return prefix, suffix, [text[: len(text) - len(suffix)] for text in rest]


def _beginning(texts: Sequence[str]) -> str:
    """The longest common beginning: that of the first and the last in their order is that of all."""
    first, last = min(texts), max(texts)
    length = next((place for place, letter in enumerate(first) if last[place] != letter), len(first))
    return first[:length]


def _to_an_end(prefix: str, texts: Sequence[str]) -> str:
    if all(text == prefix for text in texts):
        return prefix
    ends = [match.end() for match in _ENDS.finditer(prefix)]
    return prefix[: ends[-1]] if ends else ""


def _from_a_start(ending: str, texts: Sequence[str]) -> str:
    if any(text == ending for text in texts):  # it starts where the common beginning ended
        return ending
    start = _ENDS.search(ending)
    return ending[start.end() :] if start is not None else ""
