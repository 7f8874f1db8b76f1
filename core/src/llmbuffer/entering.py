"""Commit time: a message is made smaller before it is sent for the first time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from .chain import walk
from .compaction.base import Budget, Compaction, Hook, original_id
from .compaction.guard import check_commit
from .compaction.running import PendingError, hook_error, may_wait, needs_await, run_hook, under_way
from .errors import HookError
from .messages import Message
from .rules import Dialect
from .snapshot import message_tokens
from .state import State

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Entering", "Entrance", "check_sendable", "no_user"]

_REMEMBERED = 1024  # messages whose result is remembered


class Entering(NamedTuple):
    """A message as it enters the history, the originals that it stands for by id, and which hooks broke a rule."""

    message: Message
    kept: Mapping[str, tuple[Message, ...]] = MappingProxyType({})
    errors: tuple[HookError, ...] = ()


class Entrance:
    """The hooks of commit time; thread-safe. The same message always comes out the same, also in forks."""

    def __init__(self, compaction: Compaction) -> None:
        self._compaction, self._checked = compaction, compaction.checked
        self.hooks = compaction.at("commit")
        self._made: OrderedDict[tuple[int, str], Message] = OrderedDict()
        self._lock = Lock()

    @property
    def waits(self) -> bool:
        """Whether a hook of commit time may take long."""
        return any(map(may_wait, self.hooks))

    def enters(
        self,
        session: Session,
        message: Message,
        *,
        awaits: bool = False,
        lost: HookError | None = None,
        hurried: bool = False,
    ) -> Entering:
        """The message as the hooks leave it; nothing of the session changes. Work is proportional to the message.

        Replies enter as they are; so does everything that one of the hooks appends itself. A summary that has to be awaited
        raises ``PendingError`` for whoever ``awaits``, else it counts as ``lost``. ``hurried`` leaves out what may take long.
        """
        if not self.hooks or message.role == "assistant" or under_way(self._compaction.hooks):
            return Entering(message)
        found: dict[str, tuple[Message, ...]] = {}
        errors = list[HookError]()
        for hook in self.hooks:
            if hurried and may_wait(hook):
                continue
            kept: dict[str, tuple[Message, ...]] = {original_id(message): (message,)}
            try:
                now = self._known(hook, message) or self._run(session, hook, message, kept)
            except HookError as error:
                errors.append(error)
                continue
            except PendingError as pending:
                if awaits:
                    raise
                pending.drop()
                errors.append(lost or needs_await())
                continue
            if now is not message:
                message = now
                found.update(kept)
        return Entering(message, found, tuple(errors))

    def _known(self, hook: Hook, message: Message) -> Message | None:
        with self._lock:
            return self._made.get((id(hook), original_id(message)))

    def _run(
        self, session: Session, hook: Hook, message: Message, kept: dict[str, tuple[Message, ...]]
    ) -> Message:
        def count(each: Message) -> int:
            return message_tokens(each, session.counter.count)

        def keep(messages: Sequence[Message]) -> str:
            name = original_id(messages)
            kept.setdefault(name, tuple(messages))
            return name

        budget = Budget(self._compaction.max_tokens, moment="commit", count=count, keep=keep)
        after = self._called(hook, message, budget)
        if len(after) == 1 and after[0] == message:
            return message
        wrong = check_commit(
            message,
            after,
            before_tokens=count(message),
            after_tokens=sum(map(count, after)),
            legal=lambda messages: check_sendable(session.dialect, messages),
        )
        if wrong is not None:
            raise hook_error(hook, wrong)
        return self._remembered(hook, message, after[0])

    def _called(self, hook: Hook, message: Message, budget: Budget) -> tuple[Message, ...]:
        limit = self._compaction.time_limit
        after = run_hook(hook, [message], budget, limit)
        if self._compaction.debug and id(hook) not in self._checked:
            if run_hook(hook, [message], budget, limit) != after:
                raise hook_error(hook, "it gave other messages for the same input when it was asked again")
            self._checked.add(id(hook))
        return after

    def _remembered(self, hook: Hook, message: Message, after: Message) -> Message:
        with self._lock:  # whoever came first is right
            found = self._made.setdefault((id(hook), original_id(message)), after)
            while len(self._made) > _REMEMBERED:
                self._made.popitem(last=False)
        return found


def check_sendable(dialect: Dialect, messages: Sequence[Message]) -> None:
    """Raise a ``MessageError`` for a message that the dialect cannot render."""
    calls = {result.call_id: "tool" for message in messages for result in message.tool_results}
    renders = dialect.answering(calls)
    for message in messages:
        renders.render_message(message, None)


def no_user(state: State) -> bool:
    """Whether no user has said anything yet; a session that is past its first turn is not walked through."""
    if state.turn is not None or state.turns:
        return False
    return not any(
        isinstance(node.message, Message) and node.message.role == "user" and not node.message.tool_results
        for node in walk(state.tip)
    )
