"""Running a hook so that it can do no harm: with a copy of its input, within a time, and read with suspicion."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from ..errors import HookError, LLMBufferError
from ..messages import Message
from .base import Budget, Hook, Native, name_of
from .guard import read

__all__ = ["PendingError", "copied", "hook_error", "needs_await", "run_hook"]


class PendingError(Exception):
    """A summary has to be awaited: ``awaitable`` gives a text, which ``take`` remembers before the hook is called again."""

    def __init__(self, awaitable: Any, take: Callable[[Any], object]) -> None:
        super().__init__("a summary has to be awaited")
        self.awaitable, self.take = awaitable, take

    def drop(self) -> None:
        """Let go of the awaitable, so that nobody is told it was never awaited."""
        getattr(self.awaitable, "close", getattr(self.awaitable, "cancel", _nothing))()


def _nothing() -> None:
    """Close nothing."""


def hook_error(hook: Hook, reason: str) -> HookError:
    """The error for a hook that broke a rule."""
    name = name_of(hook)
    return HookError(
        f"hook {name!r} cannot be used: {reason}. What it was given stays; mend the hook or leave it out",
        hook=name,
        reason=reason,
    )


def needs_await() -> HookError:
    """The error for a summary that has to be awaited where nobody can."""
    reason = "its summary has to be awaited: use arespond, astream, arequest or acompact"
    return HookError(f"hook 'Summarizer' cannot be used: {reason}", hook="Summarizer", reason=reason)


def run_hook(hook: Hook, messages: Sequence[Message], budget: Budget, limit: float) -> tuple[Message, ...]:
    """The messages that the hook gives, the same objects where it left them alone.

    A foreign hook gets copies in a list of its own and runs in a thread; ``limit`` is in seconds, and what comes later is
    dropped. Raises ``HookError`` for what is raised, comes too late or is no list of messages, and ``PendingError`` for a
    summary that has to be awaited.

    >>> run_hook(lambda messages, budget: messages[-1:], [Message("user", "a"), Message("user", "b")], Budget(1), 10.0)
    (Message(role='user', parts=<1: text, 1 characters>),)
    """
    if isinstance(hook, Native):
        given, back = messages, None
    else:
        given = [copied(message) for message in messages]
        back = {id(own): message for own, message in zip(given, messages, strict=True)}
    output = _called(hook, given, budget, limit)
    if inspect.isawaitable(output):
        getattr(output, "close", _nothing)()
        raise hook_error(hook, "it is asynchronous: only what Summarizer calls may be")
    found = read(output)
    if isinstance(found, str):
        raise hook_error(hook, found)
    return found if back is None else tuple(back.get(id(each), each) for each in found)


def copied(message: Message) -> Message:
    """Parts are frozen in C; a message could be forced open, so a foreign hook gets one of its own."""
    return Message(message.role, message._content, message.name, _shape=message._shape)


def _called(hook: Hook, messages: Sequence[Message], budget: Budget, limit: float) -> Any:
    done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    own: Any = messages

    def work() -> None:
        try:
            done.put((hook(own, budget), None))
        except BaseException as error:  # noqa: BLE001 - whatever a hook raises is told to whoever waits
            done.put((None, error))

    if isinstance(hook, Native) and not hook.waits:
        work()
    else:
        context = contextvars.copy_context()
        Thread(target=context.run, args=(work,), name=f"llmbuffer-{name_of(hook)}", daemon=True).start()
    try:
        output, error = done.get(timeout=limit)
    except Empty:
        raise hook_error(hook, f"it took longer than {limit:g} seconds") from None
    if isinstance(error, PendingError | HookError):
        raise error
    if error is not None:
        told = (
            f": {error}" if isinstance(error, LLMBufferError) else ""
        )  # foreign errors may quote the prompt
        raise hook_error(hook, f"it raised {type(error).__name__}{told}") from error
    return output
