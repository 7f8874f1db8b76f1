"""The plan: what a host should send, in terms of its own objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..breaks import CacheBreak
from ..context import Segment
from ..errors import LLMBufferError
from ..forecast import Forecast
from ..layout import render_dynamic
from ..observing import Observation
from ..request import Request
from ..rules import Section
from ..usage import Usage
from .declared import Change
from .recognition import Relation
from .tooling import Offer

if TYPE_CHECKING:
    from ..session import Session

__all__ = ["Change", "Plan", "PlanMark", "Tail"]


class PlanMark(msgspec.Struct, frozen=True):
    """Where a breakpoint goes: the ``index`` of a tool, a system text or a message of the plan, or behind the ``tail``.

    ``part`` counts the content parts of that object from its end: -1 is the last one. ``long`` asks for the longer time
    to live; ``kind`` says why the mark is there.
    """

    section: Section | Literal["tail"]
    index: int
    part: int = -1
    long: bool = False
    kind: str = ""


class Tail(msgspec.Struct, frozen=True):
    """Dynamic text, and where it goes: behind the message number ``index`` of the plan (-1: there is none).

    ``texts`` are the pieces as they are sent, each with its name. With ``apart`` they are a message of ``role`` of their
    own, else further parts of that message, behind its own text.

    >>> Tail(("12:00",), 0).text, bool(Tail((), 0))
    ('12:00', False)
    """

    texts: tuple[str, ...]
    index: int
    role: Literal["user", "system"] = "user"
    apart: bool = False

    @property
    def text(self) -> str:
        """The pieces as one text."""
        return "\n".join(self.texts)

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __repr__(self) -> str:
        return f"Tail(texts=<{len(self.texts)}>, index={self.index}, role={self.role!r}, apart={self.apart})"


class Plan:
    """What to send, made of the host's own objects, by reference and in their order; nothing is committed yet.

    ``relation`` is what was found: ``extension``, ``same``, ``edited``, ``truncated``, ``summarized``, ``forked`` (a known
    earlier message is the parent) or ``new``. ``tools`` and ``messages`` are the host's objects; ``system`` has the shape
    that was given, without what moved; ``tail`` is what moved, and where it goes; ``marks`` are the breakpoints;
    ``arguments`` are further arguments of the request (routing, choice of tools). ``hidden`` names the tools that stay in
    the list though the host left them out: a call to one of them is answered with ``refusal(name)``, never executed.
    ``unknown`` are the places of messages that could not be read; they are handed on untouched. ``kept`` counts messages
    that the host left out and ``history="ours"`` keeps. ``changes`` are slots that move with this plan, ``cache_break``
    what the host did to the prefix, ``notes`` what is only reported.

    ``shared`` says that members of a team share the prefix: then ``messages`` and ``tools`` may hold objects that the host's
    ``from_message`` and ``from_tool`` made, ``tools`` are those of all members, and the tail says who speaks.
    """

    def __init__(
        self,
        session: Session,
        request: Request,
        *,
        relation: Relation,
        messages: tuple[Any, ...],
        system: str | Sequence[str] | None,
        offer: Offer | None,
        arguments: Mapping[str, Any],
        leading: int,
        observed: Callable[[Plan, Any, Any, Usage | None], Observation],
        unknown: tuple[int, ...] = (),
        kept: int = 0,
        changes: tuple[Change, ...] = (),
        notes: tuple[str, ...] = (),
        as_given: bool = False,
        shared: bool = False,
    ) -> None:
        self.session, self.request, self.relation = session, request, relation
        self.messages, self.system, self._offer = messages, system, offer
        self.unknown, self.kept, self.changes, self.notes = unknown, kept, changes, notes
        self._arguments, self._observed, self._leading = arguments, observed, leading
        self._as_given, self.shared = as_given, shared

    @property
    def tools(self) -> tuple[Any, ...]:
        """The host's tools, in the order first seen; none where the host gave ``None``."""
        return () if self._offer is None else self._offer.items

    @property
    def hidden(self) -> tuple[str, ...]:
        """Names of tools that stay in the list and must not be used."""
        return () if self._offer is None else self._offer.hidden

    @property
    def dynamic(self) -> tuple[Segment, ...]:
        """The dynamic text of this request, as segments."""
        return self.request.dynamic

    @property
    def cache_break(self) -> CacheBreak | None:
        """What the host did to the prefix since the last request that was observed, or ``None``."""
        return self.request.moved

    @property
    def forecast(self) -> Forecast:
        """What the provider will read from its cache, write and compute."""
        return self.request.forecast

    @cached_property
    def tail(self) -> Tail:
        """The dynamic text and its place."""
        placed, texts = self.request.placed, tuple(render_dynamic(self.request.dynamic))
        if placed.turn is not None:
            return Tail(texts, placed.turn.user.node.depth - 1 + self._leading)
        last = placed.state.tip.message
        role = getattr(last, "role", None)
        if role == "user" and not getattr(last, "tool_results", ()):
            return Tail(texts, len(self.messages) - 1)
        native = role == "tool" and takes_instructions(self.request.dialect)
        return Tail(texts, len(self.messages) - 1, "system" if native else "user", apart=True)

    @cached_property
    def marks(self) -> tuple[PlanMark, ...]:
        """The breakpoints, in prompt order; none where the provider has none."""
        out = []
        for candidate in self.request.candidates:
            mark, at = candidate.mark, candidate.at
            part = mark.place.part - mark.place.end if mark.place.section == "messages" else -1
            if at.dynamic:
                out.append(PlanMark("tail", self.tail.index, -1, mark.long, mark.kind))
            elif at.in_head:
                section: Section = "tools" if mark.place.section == "tools" else "system"
                place = self._head_place(section)
                out += [] if place is None else [PlanMark(*place, -1, mark.long, mark.kind)]
            else:
                index = at.node.depth - 1 + self._leading
                out.append(PlanMark("messages", index, min(part, -1), mark.long, mark.kind))
        return tuple(out)

    def _head_place(self, section: Section) -> tuple[Section, int] | None:
        """The last tool, or what holds the last system text; ``None`` where the host sends none."""
        if section == "tools":
            return ("tools", len(self.tools) - 1) if self.tools else None
        if self.system is None:
            return ("messages", self._leading - 1) if self._leading else None
        texts = (self.system,) if isinstance(self.system, str) else self.system
        return "system", max((index for index, text in enumerate(texts) if text.strip()), default=0)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Routing, caching options and choice of tools, as fields of the request."""
        if self._as_given:
            return {}
        sent: dict[str, Any] = {}
        with suppress(LLMBufferError):  # a body that the core would not send is the host's to send
            sent = {name: value for name, value in self.request.body.items() if name in _ROUTING}
        return {**sent, **self._arguments}

    def refusal(self, name: str) -> str | None:
        """What to answer to a call of a hidden tool; ``None`` for a call that may be executed.

        The tool must not be executed: the host has taken it away, and it stands in the list for the cache's sake alone.
        """
        if name not in self.hidden:
            return None
        return f"Error: the tool {name!r} cannot be used now. Go on without it."

    def observe(
        self, response: Any = None, message: Any = None, *, usage: Usage | None = None
    ) -> Observation:
        """Take in the response, as ``Request.observe`` does: usage to the ledger, and the break if there is one.

        ``message`` may be the host's own object. A reply that cannot be taken in is left out, and the usage counts all the
        same; raises ``DialectError`` for a response of another shape.
        """
        return self._observed(self, response, message, usage)

    def __repr__(self) -> str:
        return (
            f"Plan(relation={self.relation!r}, messages={len(self.messages)}, tail={len(self.dynamic)}, "
            f"hidden={list(self.hidden)})"
        )


# Fields that say how a prompt is cached and routed; all others are the host's own business.
_ROUTING = frozenset(
    {
        "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "cache_salt", "id_slot", "cache_prompt",
        "diagnostics",
    }
)  # fmt: skip


def takes_instructions(dialect: Any) -> bool:
    """Whether the wire takes a system message anywhere: OpenAI's and those made after it, and where the rules say so."""
    return dialect.rules.midway_role is not None or dialect.name in ("openai", "openai-responses", "deepseek")
