"""Filling a provider's cache before the first request that needs it.

A prewarm is a request that asks for no output, or the least that the API takes. It is billed like any other, so it is
in the ledger, as ``prewarm``; the history of the session does not change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .errors import LoopError
from .messages import Message
from .observing import Observation, record_prewarm
from .placing import place
from .request import Request

if TYPE_CHECKING:
    from .session import Session

__all__ = ["aprewarm", "prewarm"]

# What the user says where the prompt would not end with words of theirs; it lies behind all breakpoints.
PLACEHOLDER = "."


def prewarm(session: Session, *, client: Any = None) -> Observation | None:
    """Send the prompt as it stands, so that the next request reads it; ``None`` where the API has no way to do so.

    ``client`` (default: the session's) is an SDK client. Anthropic and llama.cpp take ``max_tokens`` 0, OpenAI's Responses
    ``prompt_cache_options.prewarm``; others have nothing like it. Raises ``PairingError`` while calls await results.

    >>> from types import SimpleNamespace as Fake
    >>> from llmbuffer import Session, StableContext
    >>> sent = []
    >>> answer = {"id": "1", "content": [], "usage": {"input_tokens": 3, "cache_creation_input_tokens": 900}}
    >>> client = Fake(messages=Fake(create=lambda **body: sent.append(body) or answer))
    >>> session = Session(StableContext("claude-sonnet-5.5", "Be kind."), "anthropic", client=client)
    >>> session.prewarm().usage.cache_write_tokens, sent[0]["max_tokens"], session.messages
    (900, 0, ())
    """
    request = warming(session)
    body = request.dialect.prewarm(request.body)
    if body is None:
        return None
    return _recorded(request, request.dialect.send(_client(session, client), request.dialect.kwargs(body)))


async def aprewarm(session: Session, *, client: Any = None) -> Observation | None:
    """``prewarm`` with an asynchronous client."""
    request = warming(session)
    body = request.dialect.prewarm(request.body)
    if body is None:
        return None
    kwargs = request.dialect.kwargs(body)
    return _recorded(request, await request.dialect.asend(_client(session, client), kwargs))


def warming(session: Session) -> Request:
    """The request that a prewarm is made from: all breakpoints stand before the words that nobody said."""
    request = session.request(None, {})
    base = request.base
    if base.tip.depth and base.rendered.role != "assistant":
        return request
    placed = place(session, base, Message("user", PLACEHOLDER), {})
    placed = replace(placed, state=replace(placed.state, anchor=base.anchor))
    return Request(session, base, placed, request.params)


def _client(session: Session, client: Any) -> Any:
    found = client if client is not None else session.client
    if found is None:
        raise LoopError("no client: give an SDK client to Session(client=…), or to this call as client=…")
    return found


def _recorded(request: Request, response: Any) -> Observation:
    return record_prewarm(request, request.dialect.read_usage(response))
