"""One turn of a conversation with a client and tools: what is sent next, what was answered, which calls are open."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from .calls import Executor, arun, check_executor, error_result, open_calls, run
from .entering import Entering
from .errors import LoopError, MessageError, PairingError
from .messages import Message
from .observing import Observation
from .parts import ToolCall, ToolResult
from .placing import Dynamic
from .replies import Reuse, replies_for
from .request import Request
from .rules import Event
from .underway import Claim

if TYPE_CHECKING:
    from .session import Session
    from .state import State

__all__ = ["Conversation"]

_log = logging.getLogger("llmbuffer.loop")


class Conversation:
    """A turn under way: the session that it goes on in, what is still to be sent, and the requests that it took."""

    def __init__(
        self,
        session: Session,
        user: Any,
        dynamic: Dynamic | None,
        tools: Executor | None,
        params: Mapping[str, Any] | None,
        max_rounds: int,
        on_observe: Callable[[Observation], object] | None,
        timeout: float | None = None,
        *,
        reuse: Reuse = None,
    ) -> None:
        self.session = session
        self.client: Any = None
        self._user, self._dynamic, self._params = user, dynamic, params
        self._tools, self._timeout = tools, timeout
        self._max_rounds, self._rounds = max_rounds, 0
        self._on_observe = on_observe
        self._reply: Message | None = None
        self._replies = replies_for(session, reuse)
        self._claim, self._holding = Claim(), False

    def prepare(self, client: Any, *, asynchronous: bool, streaming: bool) -> None:
        """Find the client, and refuse what cannot work before anything is sent."""
        check_executor(self._tools, asynchronous=asynchronous)
        if self._max_rounds < 1:
            raise LoopError(f"max_rounds is {self._max_rounds!r}: a turn takes one request at least")
        asked = self._params if isinstance(self._params, Mapping) else {}
        if not streaming and {**self.session.context.params, **asked}.get("stream"):
            raise LoopError(
                "the params ask for a stream: leave 'stream' out, and use session.stream or astream"
            )
        if self._replies is not None:
            self._replies.check({**self.session.context.params, **asked}, self.session.dialect)
        self.client = client if client is not None else self.session.client
        if self.client is None:
            raise LoopError("no client: give an SDK client to Session(client=…), or to this call as client=…")
        right, wrong = ("__aenter__", "__enter__") if asynchronous else ("__enter__", "__aenter__")
        if hasattr(self.client, wrong) and not hasattr(self.client, right):
            fitting = "respond or stream" if asynchronous else "arespond or astream"
            raise LoopError(
                f"a {type(self.client).__name__} works with {fitting} only: call one, or give the other client"
            )

    @contextmanager
    def holding(self) -> Iterator[None]:
        """While it lasts, calls are this turn's own from the reply on: no other turn comes between it and its tools."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
            self._claim.release()

    def request(self) -> Request:
        """The next request: the user's words at first, then what the history has come to."""
        return self.session.request(self._user, self._dynamic, params=self._params)

    async def arequest(self) -> Request:
        """The same in a task, which awaits the summary of a compaction."""
        return await self.session.arequest(self._user, self._dynamic, params=self._params)

    def answer(self, request: Request, send: Callable[[Request], Any]) -> Any:
        """The response of ``send``, or a reply that is re-used."""
        if self._replies is None:
            return send(request)
        return self._replies.answer(request, lambda: send(request))

    async def aanswer(self, request: Request, send: Callable[[Request], Awaitable[Any]]) -> Any:
        """The same in a task."""
        if self._replies is None:
            return await send(request)
        return await self._replies.aanswer(request, lambda: send(request))

    def observe(self, request: Request, response: Any) -> bool:
        """Commit a response; whether the turn has ended with it."""
        with self.session._lock:  # else another turn could take the calls first
            seen = request.observe(response)
            if self._holding and self._tools is not None:
                self._claim.take(seen.session)
        if seen.forked:
            _log.warning(
                "session %s had moved on: its turn goes on in the fork %s", self.session.id, seen.session.id
            )
        self.session, self._reply = seen.session, seen.message
        self._user = self._dynamic = None
        self._rounds += 1
        if self._on_observe is not None:
            self._on_observe(seen)
        if self._tools is None or not self.reply.call_ids:
            return True
        if self._rounds >= self._max_rounds:
            raise LoopError(
                f"the model still calls tools after {self._rounds} requests: the session holds them all; converse "
                "again to run the open calls, answer them with session.append, or raise max_rounds"
            )
        return False

    @property
    def reply(self) -> Message:
        """The last reply that was observed."""
        assert self._reply is not None, "a reply is read after it was observed"
        return self._reply

    def told(self) -> Iterator[Event]:
        """The calls of the reply, as events."""
        calls = open_calls(self.session.tip) if self.reply.call_ids else ()
        return (Event("tool_call", value=call) for call in calls)

    # Tools

    @property
    def _known(self) -> list[str]:
        return [tool.name for tool in self.session.context.tools]

    def settle(self) -> Iterator[ToolResult]:
        """Run the open calls one by one, and append each result as soon as it is there.

        Raises ``PairingError`` if another turn runs them. Where the turn is not ``holding``, its calls are nobody's while the
        caller reads a result: one that never comes back leaves the rest to whoever converses next.
        """
        left: State | None = None
        calls: deque[ToolCall] = deque()
        try:
            while self._tools is not None:
                state = self._claim.take(self.session)
                if state is not left:  # the first time, or somebody else has answered some meanwhile
                    calls = deque(open_calls(state.tip))
                if not calls:
                    return
                call = calls.popleft()
                result = self._append(call, run(call, self._tools, self._known))
                left = self.session._state
                if not self._holding:
                    self._claim.release()
                yield result
        finally:
            self._claim.release()

    async def asettle(self) -> list[ToolResult]:
        """Run the open calls at the same time, and append their results in the order of the calls.

        Raises ``PairingError`` if another turn runs them.
        """
        if self._tools is None:
            return []
        try:
            calls = open_calls(self._claim.take(self.session).tip)
            return await self._all(calls) if calls else []
        finally:
            self._claim.release()

    async def _all(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        results: dict[int, ToolResult] = {}
        shortened: dict[int, Entering] = {}
        fatal: list[BaseException] = []
        appended: list[ToolResult] = []
        try:
            async with anyio.create_task_group() as group:
                for index, call in enumerate(calls):
                    group.start_soon(self._into, results, fatal, group.cancel_scope.cancel, index, call)
            if not fatal:
                await self._shorten(results, shortened)
        finally:  # interrupted or not, what was done is kept
            for index in sorted(results):
                enter = partial(self._enter, shortened.get(index))
                appended.append(self._append(calls[index], results[index], enter))
        if fatal:
            raise fatal[0]
        return appended

    async def _into(
        self,
        results: dict[int, ToolResult],
        fatal: list[BaseException],
        stop: Callable[[], object],
        index: int,
        call: ToolCall,
    ) -> None:
        assert self._tools is not None
        try:
            results[index] = await arun(call, self._tools, self._known, limit=self._timeout)
        except anyio.get_cancelled_exc_class():
            if anyio.current_effective_deadline() == -math.inf:
                raise  # it is we who are cancelled, not something that the tool gave up
            results[index] = error_result(call, "CancelledError: the tool was cancelled")
        except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt: a task group would wrap it up in a group
            fatal.append(error)
            stop()

    async def _shorten(self, results: Mapping[int, ToolResult], shortened: dict[int, Entering]) -> None:
        """What the hooks of commit time make of the results: they may take long, and their summaries are awaited."""
        for index in sorted(results):
            with suppress(MessageError):  # it is told when the result is appended
                shortened[index] = await self.session._ashortened(Message("tool", [results[index]]))

    def _enter(self, shortened: Entering | None, message: Message) -> None:
        """Append without delay: if the hooks did not come to it, those that take long are left out."""
        session = self.session
        session._attach([session._shortened(message, hurried=True) if shortened is None else shortened])

    def _append(
        self, call: ToolCall, result: ToolResult, enter: Callable[[Message], object] | None = None
    ) -> ToolResult:
        """Append a result; if no message can hold it, one that says so."""
        try:
            (self.session.append if enter is None else enter)(Message("tool", [result]))
        except PairingError:  # somebody else answered the call in the meantime
            raise
        except MessageError as error:
            result = error_result(call, f"the tool returned what cannot be sent: {error}")
            self.session.append(Message("tool", [result]))
        return result
