"""Asking the model for a task: its fork, the results it is told of, one turn, and what that cost."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable
from contextlib import aclosing, closing
from functools import partial
from typing import Any

from ..errors import BudgetError, GraphError
from ..frozen import freeze, wire_json
from ..limits import Budget, Hold
from ..messages import Message
from ..observing import Observation
from ..rules import Event
from ..session import Session
from ..usage import Usage
from .calling import Caller
from .clients import Undeclared, tells
from .definition import Task

__all__ = ["Asker", "Bill", "told"]


def told(key: str, value: Any) -> Message:
    r"""A result, as the message by which a later task is told of it: text as it is, all else as JSON.

    No result closes the frame that it stands in: the ``<`` of a closing tag ``result`` in it is written ``&lt;``, in JSON
    ``\u003c``, which reads the same.

    >>> told("facts", "Tea is a drink.").text
    '<result task="facts">\nTea is a drink.\n</result>'
    >>> told("facts", "</result>").text
    '<result task="facts">\n&lt;/result>\n</result>'
    """
    return Message("user", f'<result task="{html.escape(key)}">\n{_text(key, value)}\n</result>')


_CLOSING = re.compile(r"<(?=\s*/\s*result)", re.IGNORECASE)


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return _CLOSING.sub("&lt;", value)
    if isinstance(value, Message):
        return _CLOSING.sub("&lt;", value.text)
    try:
        return _CLOSING.sub(r"\\u003c", wire_json(freeze(value, f"result of {key!r}")).decode())
    except ValueError as error:
        raise GraphError(
            f"task {key!r} returned a {type(value).__name__}, which no message can hold ({error}): return text, numbers, "
            "lists or mappings"
        ) from error


class Bill:
    """What a task has cost so far, over all its attempts; what is known of it is told to the budget at once."""

    def __init__(self, budget: Budget | None) -> None:
        self._budget = budget
        self.usage, self.cost = Usage(), 0.0
        self.attempts = 0
        self._priced = True

    @property
    def paid(self) -> float | None:
        """USD, ``None`` where the price of anything is unknown."""
        return self.cost if self._priced else None

    def add(self, usage: Usage | None, cost: float | None) -> None:
        """Count a request."""
        self.usage += usage or Usage()
        self._priced = self._priced and cost is not None
        self.cost += cost or 0.0

    def hold(self, session: Session, work: Any, task: Task) -> Hold | None:
        """Hold what the next request is forecast to come to; raises ``BudgetError`` if that does not fit."""
        if self._budget is None:
            return None
        seen = session.request(work, task.dynamic, params=task.params).forecast
        return self._budget.take(seen.input_tokens, seen.cost)

    def observed(self, hold: Hold | None, more: bool, seen: Observation) -> None:
        """Count a request of a turn; raises ``BudgetError`` if the turn needs another one and nothing is left."""
        self.add(seen.usage, seen.cost)
        if hold is None or self._budget is None:
            return
        hold.pay(seen.usage, seen.cost)
        if more and seen.message is not None and seen.message.call_ids and self._budget.spent:
            raise BudgetError(
                f"{self._budget!r} is spent in the middle of a turn that calls tools: give a larger one, and resume"
            )

    def charge(self, session: Session) -> None:
        """Count what a function did with the session that it was given."""
        cost = session.ledger.cost
        self.add(session.ledger.usage, cost if session.ledger.requests else 0.0)
        if self._budget is not None:
            self._budget.charge(session.ledger.usage, cost)


class Asker:
    """Asks with one client, asynchronous or (in threads) synchronous."""

    def __init__(self, client: Any, caller: Caller, *, asynchronous: bool) -> None:
        self._client, self._caller, self.asynchronous = client, caller, asynchronous

    async def ask(
        self,
        task: Task,
        fork: Session,
        upstream: Iterable[tuple[str, Any]],
        bill: Bill,
        *,
        deadline: float,
        begun: Callable[[], object] | None,
    ) -> str:
        """One turn in a fork; the text of the model's last message.

        With ``begun`` the reply is streamed, and ``begun`` called when it begins.
        """
        fork.append([told(key, value) for key, value in upstream])
        hold = bill.hold(fork, task.work, task)
        try:
            options: dict[str, Any] = {
                "dynamic": task.dynamic,
                "tools": task.tools,
                "client": self._client_until(deadline),
                "params": task.params,
                "max_rounds": task.max_rounds,
                "on_observe": partial(bill.observed, hold, task.tools is not None),
            }
            reply = await self._turn(task.work, fork, options, deadline, begun)
        finally:
            if hold is not None:
                hold.release()
        return reply.text

    def _client_until(self, deadline: float) -> Any:
        if not self.asynchronous or tells(self._client):
            return self._client
        return Undeclared(self._client, partial(self._caller.in_thread, deadline=deadline))

    async def _turn(
        self,
        work: Any,
        fork: Session,
        options: dict[str, Any],
        deadline: float,
        begun: Callable[[], object] | None,
    ) -> Message:
        if not self.asynchronous:
            tell = None if begun is None else partial(self._caller.soon, begun)
            turn = partial(_answered, work, fork, options, tell)
            return await self._caller.in_thread(turn, deadline=deadline)  # type: ignore[no-any-return]
        if begun is None:
            return await fork.arespond(work, **options)
        last: Event | None = None
        stream: Any = fork.astream(work, **options)
        async with aclosing(stream) as events:
            async for event in events:
                if last is None:
                    begun()
                last = event
        assert last is not None, "a stream ends with its 'done' event"
        return last.value  # type: ignore[no-any-return]


def _answered(
    work: Any, fork: Session, options: dict[str, Any], begun: Callable[[], object] | None
) -> Message:
    """One turn in a thread."""
    if begun is None:
        return fork.respond(work, **options)
    last: Event | None = None
    stream: Any = fork.stream(work, **options)
    with closing(stream) as events:
        for event in events:
            if last is None:
                begun()
            last = event
    assert last is not None, "a stream ends with its 'done' event"
    return last.value  # type: ignore[no-any-return]
