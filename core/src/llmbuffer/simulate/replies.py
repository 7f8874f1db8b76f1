"""What the simulated model says: a default that depends on the prompt alone, or a script of the user's."""

from __future__ import annotations

import inspect
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeAlias

import msgspec

from ..bodies import Wire
from ..errors import MessageError
from ..usage import Usage

__all__ = ["Asked", "Call", "Replies", "Reply", "ReplyScript", "read_replies"]


class Call(msgspec.Struct, frozen=True):
    """A tool call that the model makes; without an ``id`` it gets one.

    >>> Call("search", '{"q": "cache"}').name
    'search'
    """

    name: str
    arguments: str = "{}"
    id: str | None = None


class Reply(msgspec.Struct, frozen=True):
    """What one request is answered with.

    ``output_tokens`` default to the count of what is said. ``delay`` seconds pass before the first token, ``token_delay``
    between two; both default to the server's. ``pause`` is awaited after the first piece of a stream. ``truncated``
    breaks a stream off half-way. A ``status`` other than 200 is an error: ``message`` says what, ``retry_after`` (seconds)
    goes into the header.

    >>> Reply("Hello!").status, Reply(status=429, retry_after=0.1).retry_after
    (200, 0.1)
    """

    text: str | None = None
    calls: tuple[Call, ...] = ()
    output_tokens: int | None = None
    delay: float | None = None
    token_delay: float | None = None
    pause: Callable[[], Awaitable[object]] | None = None
    truncated: bool = False
    status: int = 200
    message: str = "the reply script says so"
    retry_after: float | None = None


class Asked(msgspec.Struct, frozen=True):
    """What a reply script may look at: the request's number (from 0), format, model, body, and what its cache did."""

    number: int
    wire: Wire
    model: str
    body: Mapping[str, Any]
    usage: Usage
    outcome: str
    stream: bool = False

    def __repr__(self) -> str:
        return (
            f"Asked(number={self.number}, wire={self.wire!r}, model={self.model!r}, outcome={self.outcome!r})"
        )


Answer: TypeAlias = "Reply | str | Mapping[str, Any]"
Replies: TypeAlias = "Iterable[Answer] | Callable[[Asked], Answer | Awaitable[Answer]] | None"


class ReplyScript:
    """Replies in the order of the requests, or those of a callable (async ones are awaited); then the default.

    The default says how long the prompt was, so equal prompts get equal replies.
    """

    def __init__(self, replies: Replies = None) -> None:
        self._ask = replies if callable(replies) else None
        given = () if replies is None or callable(replies) else replies
        self._left = deque(as_reply(reply) for reply in given)
        self._lock = Lock()

    def listed(self) -> Reply | None:
        """The next reply, where it does not depend on what is asked; ``None`` where it does."""
        with self._lock:
            return self._left.popleft() if self._left else None

    async def asked(self, asked: Asked) -> Reply:
        """The reply to this request. Raises ``MessageError`` if the callable gives none."""
        if self._ask is None:
            return Reply(f"This is a simulated reply to a prompt of {asked.usage.input_tokens:,} tokens.")
        answer: Any = self._ask(asked)
        return as_reply(await answer if inspect.isawaitable(answer) else answer)


def as_reply(value: Any) -> Reply:
    """A reply given as such, as its text, or as a mapping. Raises ``MessageError``.

    >>> as_reply({"tool_calls": [{"name": "search", "arguments": {"q": "x"}}]}).calls[0].arguments
    '{"q": "x"}'
    """
    if isinstance(value, Reply):
        reply = value
    elif isinstance(value, str):
        reply = Reply(value)
    elif isinstance(value, Mapping):
        reply = _from_mapping(value)
    else:
        raise MessageError(f"a reply is a {type(value).__name__}: give a Reply, a text or a mapping")
    if not 200 <= reply.status <= 599:
        raise MessageError(f"a reply has status {reply.status!r}: give 200, or the status of an error")
    return reply


def _from_mapping(value: Mapping[str, Any]) -> Reply:
    fields = {key: field for key, field in value.items() if key not in ("tool_calls", "calls")}
    known = set(Reply.__struct_fields__) - {"calls", "pause"}
    if not fields.keys() <= known:
        unknown = sorted(fields.keys() - known)
        raise MessageError(
            f"a reply has the unknown fields {unknown}: known are {sorted({*known, 'tool_calls'})}"
        )
    calls = value.get("tool_calls", value.get("calls")) or []
    try:
        return msgspec.convert({**fields, "calls": [_call(call) for call in calls]}, Reply)
    except (msgspec.ValidationError, TypeError) as error:
        raise MessageError(f"a reply cannot be read: {error}") from None


def _call(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise MessageError(
            f"a tool call is a {type(value).__name__}: give an object with 'name' and 'arguments'"
        )
    arguments = value.get("arguments", "{}")
    return {**value, "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments)}


def read_replies(path: Path) -> list[Reply]:
    """The replies of a JSONL file: one object (or text) a line. Raises ``MessageError``, naming the line."""
    replies = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            replies.append(as_reply(msgspec.json.decode(line)))
        except (msgspec.DecodeError, MessageError, RecursionError) as error:
            raise MessageError(f"{path}:{number}: {error}") from None
    return replies


def split_text(text: str) -> list[str]:
    """A text in the pieces in which it is streamed: words with what is around them.

    >>> split_text("one two  three")
    ['one ', 'two  ', 'three']
    """
    return re.findall(r"\s*\S+\s*|\s+", text)
