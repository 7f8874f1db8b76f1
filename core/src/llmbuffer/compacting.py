"""The part of ``Session`` that keeps its prompt small, and what it kept of what is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.to_thread
from msgspec.structs import replace

from .compacted import Compacted, Preview
from .compaction.running import PendingError, needs_await, running
from .documenting import Documenting
from .entering import Entering, no_user
from .errors import CompactionError, HookError, OriginalError, PairingError
from .ledger import LedgerEntry
from .messages import Message
from .placing import Dynamic, Placed, place
from .rebuilding import still_there
from .state import State, attach, link
from .tools import Tool

if TYPE_CHECKING:
    from .compactor import Compactor
    from .request import Request
    from .session import Session

__all__ = ["RECALL", "Compacting"]

RECALL = Tool.of(
    {
        "name": "recall_original",
        "description": "Get back a text that was shortened or left out of this conversation, by the id in its marker.",
        "parameters": {
            "type": "object",
            "properties": {"id": {"type": "string", "description": "the id that the marker names"}},
            "required": ["id"],
        },
    }
)
T = TypeVar("T")
_TRIES = 3  # to compact a session that others move on


class Compacting(Documenting):
    """What a session with ``Session(compaction=…)`` does besides; without one, it does nothing of its own accord."""

    __slots__ = ()
    _compaction: Compactor | None

    @property
    def _own(self) -> Session:
        return cast("Session", self)

    @property
    def _head_tokens(self) -> int:
        """Tokens of tools and stable system text."""
        return self._own._head.node.end

    # On the way of a request

    def _append(self, messages: Sequence[Message]) -> None:
        """Take messages in as the hooks of commit time leave them: all of them, or none."""
        if self._compaction is None or not self._compaction.entrance.hooks:
            self._attach([Entering(message) for message in messages])
            return
        bare = no_user(self._own._state)
        entering = []
        for message in messages:
            first = bare and message.role == "user" and not message.tool_results
            bare = bare and not first
            entering.append(Entering(message) if first else self._shortened(message))
        self._attach(entering)

    def _shortened(self, message: Message, **how: Any) -> Entering:
        """A message as the hooks of commit time leave it. No lock is held, so they may use the session; ``how`` as there."""
        if self._compaction is None:
            return Entering(message)
        return self._compaction.entrance.enters(self._own, message, **how)

    async def _ashortened(self, message: Message) -> Entering:
        """The same in a task: what may take long is done in a thread, and a summary is awaited."""
        compactor, lost = self._compaction, None
        blocks = compactor is not None and compactor.entrance.waits
        while True:
            build = partial(self._shortened, message, awaits=lost is None, lost=lost)
            try:
                return await anyio.to_thread.run_sync(build) if blocks else build()
            except PendingError as pending:
                lost = await self._finished(pending)

    def _attach(self, entering: Sequence[Entering]) -> None:
        """Put messages behind the history, whatever that has come to: all of them, or none."""
        session, compactor = self._own, self._compaction
        if compactor is not None:
            for each in entering:
                compactor.reported(session, each)
        with session._lock:
            state = session._state
            for message, kept, _ in entering:
                archive = state.archive.keeping(kept)
                state = state if archive is state.archive else replace(state, archive=archive)
                state = attach(state, link(state, message, session.dialect, session.counter), session.dialect)
            session._state = state

    def _placed(
        self,
        base: State,
        user: Message | None,
        dynamic: Dynamic | None,
        *,
        awaits: bool = False,
        lost: HookError | None = None,
    ) -> Placed:
        """Where everything stands in the next request, on a history that is small enough."""
        session, compactor = self._own, self._compaction
        if compactor is None:
            return place(session, base, user, dynamic)
        if user is not None:
            user, archive = compactor.enters(session, user, base, awaits=awaits, lost=lost)
            if archive is not base.archive:
                base = replace(base, archive=archive)
        placed = place(session, base, user, dynamic)

        def again(state: State) -> Placed:
            return place(session, state, user, dynamic)

        return compactor.placed(session, base, placed, again, None if awaits else lost or needs_await())

    def _entered(self, compacted: Compacted, at: float) -> None:
        """Begin the epoch of a compaction: a planned break, recorded and never an alarm."""
        session, told = self._own, compacted.preview
        session._epoch += 1
        session._fork_anchor = still_there(session._fork_anchor, session._state.tip)
        session.ledger.add(
            LedgerEntry(
                at=at,
                epoch=session._epoch,
                kind="compacted",
                reason=compacted.reason,
                before_tokens=told.before,
                after_tokens=told.after,
            )
        )

    def _note(self, kind: str, reason: str) -> None:
        """Enter what happened beside requests into the ledger."""
        session = self._own
        session.ledger.add(LedgerEntry(at=session.clock(), epoch=session.epoch, kind=kind, reason=reason))

    # What a user asks for

    def compaction_preview(self) -> Preview:
        """What a compaction before the next request would come to: before, after, actions, cost now, break-even.

        Nothing is changed, and no summary is made. Raises ``CompactionError`` for a session without ``compaction``.
        """
        return self._compactor().preview(self._own, self._own._state)

    def compact(self, reason: str = "asked for") -> Preview:
        """Compact now, whether it pays or not: a new epoch, recorded in the ledger, never an alarm. What it came to.

        Where no hook makes the history smaller, nothing changes. Raises ``PairingError`` while calls await their results,
        ``HookError`` for a hook that broke a rule, if they are strict, and ``CompactionError`` without ``compaction`` or if
        other threads move the session on meanwhile.
        """
        try:
            return self._compact(reason)
        except PendingError as pending:
            pending.drop()
            raise needs_await() from None

    async def acompact(self, reason: str = "asked for") -> Preview:
        """``compact`` with a client or a ``summarize`` that is asynchronous."""
        while True:
            try:
                return await self._apart(partial(self._compact, reason))
            except PendingError as pending:
                lost = await self._finished(pending)
            if lost is not None:
                self._note("hook-refused", f"{lost.hook}: {lost.reason}")
                raise lost

    async def arequest(
        self, user: Any = None, dynamic: Dynamic | None = None, *, params: Mapping[str, Any] | None = None
    ) -> Request:
        """``request`` that awaits a summary, where hooks of the session's ``compaction`` are asynchronous."""
        session, lost = self._own, None
        while True:
            build = partial(session._request, user, dynamic, params, awaits=lost is None, lost=lost)
            try:
                return await self._apart(build)
            except PendingError as pending:
                lost = await self._finished(pending)

    async def _apart(self, work: Callable[[], T]) -> T:
        """Do what may take long in a thread, so that other tasks go on meanwhile."""
        compactor = self._compaction
        blocks = compactor is not None and compactor.compaction.blocks
        return await anyio.to_thread.run_sync(work) if blocks else work()

    async def _finished(self, pending: PendingError) -> HookError | None:
        """Await a summary; why there is none, if there is none."""
        limit = self._compactor().compaction.time_limit
        reason = f"it took longer than {limit:g} seconds"
        try:
            with anyio.fail_after(limit), running(pending.hook):
                pending.take(await pending.awaitable)
        except HookError as error:
            return error
        except TimeoutError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever a client raises, the conversation goes on without a summary
            reason = f"it raised {type(error).__name__}"
        else:
            return None
        return HookError(f"hook 'Summarizer' cannot be used: {reason}", hook="Summarizer", reason=reason)

    def _compact(self, reason: str) -> Preview:
        session, compactor = self._own, self._compactor()
        for _ in range(_TRIES):
            base = session._state
            if base.open_calls:
                raise PairingError(f"the calls {list(base.open_calls)} await results: append them first")
            made = compactor.asked(session, base) if base.tip.depth else None
            if made is None:
                return replace(compactor.preview(session, base), compact=False)
            with session._lock:
                if session._state is base:
                    told = replace(made.preview, compact=True, why=reason)
                    session._state = made.state
                    self._entered(replace(made, preview=told, asked=True), session.clock())
                    return told
        raise CompactionError(
            "other threads moved the session on while it was compacted: compact a fork of it"
        )

    def _compactor(self) -> Compactor:
        if self._compaction is None:
            raise CompactionError("the session has no compaction: give Session(compaction=Compaction(…))")
        return self._compaction

    # What is gone

    def original(self, name: str) -> Message | tuple[Message, ...]:
        """What a marker stands for, by the id that it names: a message, or a tuple where one stands for several.

        Looks in memory, then in the store. Raises ``OriginalError`` for an id under which nothing was kept.
        """
        session = self._own
        found = session._state.archive.original(name)
        if found is None and session._store is not None:
            found = session._store.originals(session.id, name)
            if found is None and session.parent_id is not None:
                found = session._store.originals(session.parent_id, name)
        if not found:
            raise OriginalError(f"nothing was kept under the id {name!r}: give one that a marker names")
        return found[0] if len(found) == 1 else found

    def recall_original(self, id: str) -> str:  # noqa: A002 - the name of the tool's argument
        """What a model reads when it calls the tool ``recall_original``: the text of an original, or that there is none.

        Give ``RECALL`` among the tools of the context, and ``{"recall_original": session.recall_original}`` to ``respond``.
        """
        try:
            found = self.original(id)
        except OriginalError as error:
            return str(error)
        from .snapshot import texts

        messages = (found,) if isinstance(found, Message) else found
        return "\n".join(
            f"[{each.role}] {text}" if len(messages) > 1 else text
            for each in messages
            for text in texts(each)
        )
