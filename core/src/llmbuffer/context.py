"""What is stable in a prompt, and what is not: segments with a level, the stable context, the cache key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, get_args

import msgspec

from .errors import MessageError
from .frozen import FrozenDict, canonical_json, check_text, freeze
from .messages import MAX_MESSAGE_BYTES, content_hash
from .tools import Tool

__all__ = ["CacheKey", "Level", "Segment", "StableContext", "dynamic_segments"]

Level = Literal["global", "tenant", "user", "session", "turn"]
LEVELS: tuple[str, ...] = get_args(Level)  # from the one that changes least to the one that changes most


class CacheKey(NamedTuple):
    """Identity of a request: the stable part, and everything that comes after it; content hashes as text.

    >>> CacheKey("b2:1", "b2:2").stable
    'b2:1'
    """

    stable: str
    dynamic: str


class Segment(msgspec.Struct, frozen=True, gc=False):
    """A named piece of the system text, or of dynamic content.

    ``level`` says how often it changes: ``global`` < ``tenant`` < ``user`` < ``session`` are stable, ``turn`` is dynamic.
    ``ttl`` ("long" keeps its cache entry 1 h or 12 h where the provider can) and ``pinned`` (compaction never drops it)
    are for stable segments.

    >>> Segment("policy", "Be kind.", level="global")
    Segment(name='policy', content=<8>, level='global')
    """

    name: str
    content: str
    level: Level = "session"
    ttl: Literal["long"] | None = None
    pinned: bool = False

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise MessageError(
                f"segment {self.name!r}: unknown level {self.level!r}; use one of {', '.join(LEVELS)}"
            )
        if not isinstance(self.content, str) or not isinstance(self.name, str):
            raise MessageError(
                f"segment {self.name!r}: name and content are strings, not {type(self.content).__name__}"
            )
        if self.ttl not in (None, "long"):
            raise MessageError(
                f"segment {self.name!r}: unknown ttl {self.ttl!r}; use 'long' (1 h or 12 h) or None"
            )
        if len(self.content) > MAX_MESSAGE_BYTES:
            raise MessageError(
                f"segment {self.name!r} has {len(self.content):,} characters: no provider takes a request of that size"
            )
        check_text(self.content, f"segment {self.name!r}")
        check_text(self.name, "segment name")

    def __repr__(self) -> str:
        return f"Segment(name={self.name!r}, content=<{len(self.content)}>, level={self.level!r})"


class StableContext:
    """Model, tools, stable segments and params: what must not move while a session runs. Frozen.

    Arguments: ``model``; ``system``, a string or segments (they are put in the order of their levels, and within a
    level stay as declared; segments of level ``turn`` become ``dynamic``); ``tools``, mappings in OpenAI's or Anthropic's
    shape or ``Tool`` objects; ``params``, further fields of the request body (``temperature``, …).

    Raises ``MessageError`` for segments or tools that share a name and ``EncodingError`` for NaN and the like.

    >>> context = StableContext(model="gpt-5.5", system="You are kind.", params={"temperature": 0})
    >>> context.segments[0].name, context.fingerprint == StableContext("gpt-5.5", "You are kind.").fingerprint
    ('system', False)
    """

    __slots__ = ("_fingerprint", "dynamic", "model", "params", "segments", "tools")
    model: str
    segments: tuple[Segment, ...]
    tools: tuple[Tool, ...]
    params: FrozenDict
    dynamic: tuple[Segment, ...]
    _fingerprint: str | None

    def __init__(
        self,
        model: str,
        system: str | Sequence[Segment] | None = None,
        tools: Iterable[Tool | Mapping[str, Any]] = (),
        params: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, str) or not model:
            raise MessageError(f"model is {model!r}: give the name the provider knows")
        segments = _segments(system)
        put = object.__setattr__
        put(self, "model", check_text(model, "model"))
        stable = [segment for segment in segments if segment.level != "turn"]
        put(self, "segments", tuple(sorted(stable, key=lambda segment: LEVELS.index(segment.level))))
        put(self, "dynamic", tuple(segment for segment in segments if segment.level == "turn"))
        if not isinstance(tools, Iterable):
            raise MessageError(f"tools are a {type(tools).__name__}: give a list of tools")
        put(self, "tools", _unique(tuple(map(Tool.of, tools)), "tools"))
        put(self, "params", _params(params))
        put(self, "_fingerprint", None)

    @property
    def fingerprint(self) -> str:
        """Content hash over model, stable segments, tools and params: ``b2:`` and 48 hexadecimal digits."""
        if self._fingerprint is None:
            pieces = [self.model.encode(), canonical_json(self.params)]
            pieces += [canonical_json([s.name, s.level, s.content, s.ttl, s.pinned]) for s in self.segments]
            pieces += [b"tools", *(tool.identity for tool in self.tools)]
            object.__setattr__(self, "_fingerprint", content_hash(pieces))
        assert self._fingerprint is not None
        return self._fingerprint

    def replace(self, **changes: Any) -> StableContext:
        """A context with some of ``model``, ``system``, ``tools``, ``params`` changed.

        >>> StableContext("gpt-5.5", "a").replace(model="gpt-5.6").model
        'gpt-5.6'
        """
        kept = dict(zip(("model", "system", "tools", "params"), self._given(), strict=True))
        return StableContext(**{**kept, **changes})

    def _given(self) -> tuple[Any, ...]:
        """The arguments that make one like this."""
        return self.model, [*self.segments, *self.dynamic], self.tools, self.params

    def __copy__(self) -> StableContext:
        return self

    def __deepcopy__(self, memo: object) -> StableContext:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return StableContext, self._given()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(
            f"StableContext is frozen: use context.replace({name}=…), then session.fork or thaw"
        )

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, StableContext) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"StableContext(model={self.model!r}, segments={[segment.name for segment in self.segments]}, "
            f"tools={[tool.name for tool in self.tools]}, params={list(self.params)})"
        )


def _params(params: Mapping[str, Any] | None) -> FrozenDict:
    if params is not None and not isinstance(params, Mapping):
        raise MessageError(
            f"params are a {type(params).__name__}: give a mapping of further fields of the body"
        )
    taken = sorted(_OWN_FIELDS.intersection(params or ()))
    if taken:
        raise MessageError(
            f"params hold {taken}, which the session writes itself: give them to StableContext, or append"
        )
    return freeze(params or {}, "params")


_OWN_FIELDS = frozenset({"model", "messages", "system", "tools"})


def _segments(system: str | Sequence[Segment] | None) -> tuple[Segment, ...]:
    if system is None or system == "":
        return ()
    if isinstance(system, str):
        return (Segment("system", system),)
    if not isinstance(system, Iterable):
        raise MessageError(f"system is a {type(system).__name__}: give a string or a list of Segment")
    for segment in system:
        if not isinstance(segment, Segment):
            raise MessageError(f"system holds a {type(segment).__name__}: give a string or a list of Segment")
    return _unique(tuple(system), "segments")


def _unique(named: tuple[Any, ...], what: str) -> tuple[Any, ...]:
    names = [item.name for item in named]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MessageError(f"{what} share the names {twice}: names identify them, so make each different")
    return named


def dynamic_segments(dynamic: Mapping[str, str] | Iterable[Segment]) -> tuple[Segment, ...]:
    """Dynamic content as segments of level ``turn``, in the order given; empty texts are left out.

    >>> dynamic_segments({"clock": "12:00"})
    (Segment(name='clock', content=<5>, level='turn'),)
    """
    if isinstance(dynamic, Mapping):
        segments = tuple(Segment(name, content, level="turn") for name, content in dynamic.items())
    elif isinstance(dynamic, str):
        raise MessageError(
            "dynamic is a string: give a mapping from name to text, such as {'retrieved': text}"
        )
    elif isinstance(dynamic, Iterable):
        segments = _unique(tuple(_turn_level(segment) for segment in dynamic), "dynamic segments")
    else:
        raise MessageError(f"dynamic is a {type(dynamic).__name__}: give a mapping or a list of Segment")
    return tuple(segment for segment in segments if segment.content)


def _turn_level(segment: object) -> Segment:
    if not isinstance(segment, Segment):
        raise MessageError(f"dynamic holds a {type(segment).__name__}: give a mapping or a list of Segment")
    return segment if segment.level == "turn" else Segment(segment.name, segment.content, level="turn")
