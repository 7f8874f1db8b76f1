"""Commit time: a message is made smaller before it is sent for the first time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

from .archive import Archive
from .chain import walk
from .compaction.base import Budget, Compaction, Hook, original_id
from .compaction.guard import check_commit
from .compaction.running import hook_error, run_hook
from .errors import HookError
from .messages import Message
from .rules import Dialect
from .snapshot import message_tokens
from .state import State

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Entering", "Entrance", "check_sendable"]

_REMEMBERED = 1024  # messages whose result is remembered


class Entering(NamedTuple):
    """A message as it enters the history, and the originals that it stands for."""

    message: Message
    archive: Archive


class Entrance:
    """The hooks of commit time; thread-safe. The same message always comes out the same, also in forks."""

    def __init__(self, compaction: Compaction) -> None:
        self._compaction, self._checked = compaction, compaction.checked
        self._hooks = compaction.at("commit")
        self._made: OrderedDict[tuple[int, str], Message] = OrderedDict()
        self._lock = Lock()

    def enters(self, session: Session, message: Message, state: State) -> tuple[Entering, list[HookError]]:
        """The message as the hooks leave it, and which of them broke a rule. Work is proportional to the message.

        Replies, and the first message of a user, enter as they are.
        """
        archive, errors = state.archive, list[HookError]()
        if not self._hooks or message.role == "assistant":
            return Entering(message, archive), errors
        if message.role == "user" and not message.tool_results and _no_user(state):
            return Entering(message, archive), errors
        for hook in self._hooks:
            kept: dict[str, tuple[Message, ...]] = {original_id(message): (message,)}
            try:
                now = self._known(hook, message) or self._run(session, hook, message, kept)
            except HookError as error:
                errors.append(error)
                continue
            if now is not message:
                archive, message = archive.keeping(kept), now
        return Entering(message, archive), errors

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


def _no_user(state: State) -> bool:
    """Whether no user has said anything yet; a session that is past its first turn is not walked through."""
    if state.turn is not None or state.turns:
        return False
    return not any(
        isinstance(node.message, Message) and node.message.role == "user" and not node.message.tool_results
        for node in walk(state.tip)
    )
