"""Asking the session's own model for a summary: at the end of the prompt that the provider has cached."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from .chain import is_ancestor, walk
from .compaction.base import Ask
from .errors import HookError
from .messages import Message
from .rebuilding import continued, rebuilt
from .state import State

if TYPE_CHECKING:
    from .session import Session

__all__ = ["asker"]


def asker(session: Session, state: State) -> Ask | None:
    """What asks for a summary; ``None`` for a session without a client.

    The request is that of a fork of the session at ``state``, with the instruction at its tail and the same tools and
    params, so it reads the cached prompt. Results of tools that no request has carried yet are left out: they stay in the
    history, and with them the prompt may not fit. What it cost goes into the session's ledger as ``summary``.
    """
    client = session.client
    if client is None:
        return None
    asynchronous = hasattr(client, "__aenter__") and not hasattr(client, "__enter__")

    def ask(_: Sequence[Message], instruction: str) -> Any:
        fork = session.fork("summary")
        fork._compaction, fork._state = None, _as_sent(session, state)
        request = fork.request(instruction)
        if asynchronous:
            return _awaited(session, request, request.dialect.asend(client, request.kwargs))
        response = request.dialect.send(client, request.kwargs)
        return (
            _awaited(session, request, response)
            if inspect.isawaitable(response)
            else _told(session, request, response)
        )

    return ask


def _as_sent(session: Session, state: State) -> State:
    """The state without results of tools that no request has carried yet."""
    sent = state.sent
    message = state.tip.message
    if sent is None or not isinstance(message, Message) or not message.tool_results:
        return state
    node = sent.snapshot.tip
    if node.depth in (0, state.tip.depth) or not is_ancestor(node, state.tip):
        return state
    tokens = {id(each.message): each.tokens for each in walk(state.tip)}
    messages = [each.message for each in walk(node) if isinstance(each.message, Message)]
    messages.reverse()
    known = rebuilt(state, messages, len(messages), session.dialect, lambda message: tokens[id(message)])
    return state if known.open_calls else continued(known, state, state.archive)


async def _awaited(session: Session, request: Any, response: Any) -> str:
    return _told(session, request, await response)


def _told(session: Session, request: Any, response: Any) -> str:
    seen = request.observe(response)
    session.ledger.add(replace(seen.session.ledger[-1], kind="summary", epoch=session.epoch))
    if seen.message is None or seen.message.call_ids or not seen.message.text.strip():
        reason = "the model called a tool or said nothing where a summary was asked for"
        raise HookError(f"hook 'Summarizer' cannot be used: {reason}", hook="Summarizer", reason=reason)
    return str(seen.message.text)
