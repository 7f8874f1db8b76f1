"""What a provider caches, as a value, and what a dialect does, as a protocol.

``CacheRules`` is data: layout, forecast, replay and the simulator all read the same figures, and ``sources`` names
where each of them comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec

from .frozen import FrozenDict, FrozenList
from .messages import Message
from .usage import Usage

__all__ = [
    "MARK_FIELDS",
    "CacheRules",
    "Diagnosis",
    "Dialect",
    "Draft",
    "Event",
    "Mark",
    "Place",
    "Rendered",
    "Section",
]

Section = Literal["tools", "system", "messages"]
# The fields of breakpoints, whoever put them there: Anthropic's, and OpenAI's.
MARK_FIELDS = frozenset({"cache_control", "prompt_cache_breakpoint"})
SECTIONS: tuple[Section, ...] = ("tools", "system", "messages")


class CacheRules(msgspec.Struct, frozen=True, kw_only=True):
    """How one model's cache matches, writes, expires and bills.

    ``match`` is one of

    * ``prefix``: the longest common prefix with anything sent before, in steps of ``step`` tokens;
    * ``entries``: the longest stored entry that is a prefix of the request, at any distance;
    * ``lookback``: as ``entries``, but only entries less than ``lookback`` positions before a mark;
    * ``units``: the longest stored unit that is a prefix of the request. A unit ends where a user's input or a reply
      ended, or where a prompt parted from an earlier one;
    * ``lanes``: the longest common prefix with what one of ``lanes`` engine slots holds, or what they spilled to memory.

    Entries are written at marks (``slots`` explicit ones, and one at the end of the prompt if ``implicit``). A block of
    one of the ``collapsed`` kinds directly behind another of that kind takes no position of a look-back of its own.
    ``min_tokens``, ``step``, ``capacity`` (what the whole cache holds, of ``lanes`` what they spilled, least recently used
    goes first; ``None``: no bound) in tokens, ``recomputed`` those at the end of a prompt that are always computed; ``ttl``, ``ttl_long`` in
    seconds; multipliers relative to the input price. ``stores_output``: a reply can be read from the cache as well.
    ``visible_after`` says when an entry can be read: at the ``first-token`` of the response, at once (``request``: also by
    requests that run side by side), or at the ``end`` of the response. ``reasoning_bound``: reasoning of a reply is refused
    once anything before it has changed.

    >>> rules = CacheRules(name="engine", match="prefix", min_tokens=1024, step=128)
    >>> rules.read_multiplier, rules.has_marks
    (0.1, False)
    """

    name: str
    match: Literal["prefix", "entries", "lookback", "units", "lanes"]
    section_order: tuple[Section, ...] = SECTIONS
    min_tokens: int = 0
    step: int = 1
    slots: int = 0
    implicit: bool = False
    lookback: int = 0
    collapsed: frozenset[str] = frozenset()
    recomputed: int = 0
    stores_output: bool = False
    capacity: int | None = None
    lanes: int = 1
    ttl: float = 300.0
    ttl_long: float | None = None
    read_multiplier: float = 0.1
    write_multiplier: float = 1.0
    write_long_multiplier: float = 1.0
    visible_after: Literal["request", "first-token", "end"] = "first-token"
    per_key_rate: float | None = None
    markable: frozenset[str] = frozenset()
    tail_after_tool: bool = False
    reasoning_bound: bool = False
    frozen_params: frozenset[str] = frozenset()
    message_params: frozenset[str] = frozenset()
    instruction_role: str = "system"
    midway_role: str | None = None
    content_parts: Literal["when-needed", "always"] = "when-needed"
    routing_field: str | None = None
    sources: Mapping[str, str] = FrozenDict()

    @property
    def has_marks(self) -> bool:
        """Whether requests carry explicit breakpoints."""
        return self.slots > 0


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where a message ends in a request body.

    ``item`` counts the wire messages (or tools, or system blocks) of its section; ``part`` is the content part that may
    carry a mark, or -1; ``end`` the number of parts up to the end of the message.
    """

    section: Section
    item: int
    part: int = -1
    end: int = 0


class Mark(msgspec.Struct, frozen=True):
    """A breakpoint: its place, why it is there, and how long its entry is kept (``long`` for 1 h or 12 h)."""

    place: Place
    kind: str
    long: bool = False


class Rendered(msgspec.Struct, frozen=True):
    """One message in a provider's shape.

    ``blocks`` are content blocks if ``joins`` (consecutive messages of one role share a wire message), else whole wire
    messages; ``mark_at`` is the index of the last content part that may carry a mark, or -1; ``kinds`` names the blocks
    as a look-back counts them; ``lead`` is a wire message that has to come first.
    """

    role: str
    blocks: tuple[FrozenDict, ...]
    joins: bool
    mark_at: int
    kinds: tuple[str, ...] = ()
    lead: FrozenDict | None = None


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A request in its parts, marks and dynamic text in place; what a dialect puts together.

    Where the system text leads the messages, it stands in ``messages`` as well. ``implicit`` asks for the provider's own
    breakpoint at the end of the prompt; ``routing_key`` is for providers that route by one; ``compare_with`` is the id of
    the response that the provider's own cache diagnostics are to compare with, ``diagnostics`` asks for them.
    """

    model: str
    tools: FrozenList
    system: FrozenList
    messages: FrozenList
    params: Mapping[str, Any]
    implicit: bool = False
    routing_key: str | None = None
    diagnostics: bool = False
    compare_with: str | None = None


class Diagnosis(msgspec.Struct, frozen=True):
    """What a provider itself says about a cache miss: its own ``reason``, and the tokens that were missed, if it tells.

    ``cause`` is the cause of a ``CacheBreak`` that it stands for, ``None`` where it stands for none of them.

    >>> Diagnosis("tools_changed", "tool-schema-changed", 1200).reason
    'tools_changed'
    """

    reason: str
    cause: str | None = None
    tokens: int | None = None


class Event(msgspec.Struct, frozen=True):
    """A piece of a streamed reply: ``kind`` is ``text``, ``tool_call``, ``tool_result`` or ``done``.

    >>> Event("text", text="Hel").text
    'Hel'
    """

    kind: Literal["text", "tool_call", "tool_result", "done"]
    text: str = ""
    value: Any = None


@runtime_checkable
class Dialect(Protocol):
    """One provider's wire shape and cache rules. Every method is pure but ``send``, ``asend`` and the streams.

    >>> from llmbuffer import get_dialect
    >>> isinstance(get_dialect("openai"), Dialect)
    True
    """

    name: str
    default_model: str
    system_in_messages: bool  # the system text leads the messages
    content_key: str  # the field of a wire message that lists its parts

    @property
    def rules(self) -> CacheRules:
        """The cache rules of the model that the dialect is bound to."""

    def bind(self, model: str) -> Dialect:
        """This dialect with the rules of ``model``; rules that were given by hand stay."""

    def answering(self, calls: Mapping[str, str]) -> Dialect:
        """This dialect, to render results of ``calls``: names of tools by the ids of calls. For APIs that want the names."""

    def render_message(self, message: Message, previous_role: str | None) -> Rendered:
        """The blocks of one message; raises ``LossyError`` for content that has no place on this wire."""

    def wrap(self, role: str, blocks: tuple[FrozenDict, ...]) -> FrozenDict:
        """Blocks of one role as one wire message."""

    def render_tool(self, tool: Any) -> FrozenDict:
        """A tool as the wire carries it."""

    def render_system(self, texts: Sequence[str]) -> FrozenList:
        """The system texts as the wire carries them: content blocks, or leading messages."""

    def dynamic_part(self, text: str) -> FrozenDict:
        """A content part that holds dynamic text."""

    def mark_part(self, part: Mapping[str, Any], *, long: bool) -> FrozenDict:
        """The same part with a breakpoint."""

    def assemble(self, draft: Draft) -> FrozenDict:
        """The body of one request."""

    def kwargs(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body as arguments for the SDK; fields the SDK's signature lacks go to ``extra_body``."""

    def read_usage(self, response: Any) -> Usage | None:
        """Usage of a response (SDK object or its dict form), or ``None`` where none was reported."""

    def read_message(self, response: Any) -> Message:
        """The assistant's message of a response."""

    def prewarm(self, body: Mapping[str, Any]) -> FrozenDict | None:
        """The body made to fill the cache and say nothing; ``None`` where the API has no way to do so."""

    def read_id(self, response: Any) -> str | None:
        """The id that the provider's cache diagnostics know the response by; ``None`` where there are none."""

    def read_diagnosis(self, response: Any) -> Diagnosis | None:
        """What the provider says about a miss; ``None`` if it was not asked, does not know, or nothing was missed."""

    def send(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """Send with the user's own client object and return its response."""

    async def asend(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same with an asynchronous client."""

    def stream(self, client: Any, kwargs: Mapping[str, Any]) -> Iterator[Event]:
        """Send and yield events; the last one is ``done`` and holds the whole response in its dict form."""

    def astream(self, client: Any, kwargs: Mapping[str, Any]) -> Any:
        """The same as an asynchronous iterator."""
