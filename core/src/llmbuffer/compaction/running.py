"""Running a hook so that it can do no harm: with a copy of its input, within a time, and read with suspicion."""

from __future__ import annotations

import contextvars
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX, Thread
from typing import Any

from ..errors import HookError, LLMBufferError
from ..messages import Message, canonical
from .base import Budget, Hook, Native, name_of
from .guard import read

__all__ = [
    "PendingError",
    "copied",
    "hook_error",
    "may_wait",
    "needs_await",
    "run_hook",
    "running",
    "under_way",
]

_under_way: contextvars.ContextVar[tuple[Hook, ...]] = contextvars.ContextVar("llmbuffer_hooks", default=())


class PendingError(Exception):
    """A summary has to be awaited: ``awaitable`` gives a text, which ``take`` remembers before ``hook`` is called again."""

    def __init__(self, awaitable: Any, take: Callable[[Any], object], hook: Hook) -> None:
        super().__init__("a summary has to be awaited")
        self.awaitable, self.take, self.hook = awaitable, take, hook

    def drop(self) -> None:
        """Let go of the awaitable, so that nobody is told it was never awaited."""
        getattr(self.awaitable, "close", getattr(self.awaitable, "cancel", _nothing))()


def _nothing() -> None:
    """Close nothing."""


@contextmanager
def running(hook: Hook) -> Iterator[None]:
    """In here the hook is at work: a session that it uses is not compacted by it, or it would call itself without end."""
    token = _under_way.set((*_under_way.get(), hook))
    try:
        yield
    finally:
        _under_way.reset(token)


def under_way(hooks: Iterable[Hook]) -> bool:
    """Whether one of these hooks is at work in this context.

    >>> with running(len):
    ...     under_way([len, max]), under_way([max])
    (True, False)
    """
    now = _under_way.get()
    return bool(now) and any(hook is one for hook in hooks for one in now)


def may_wait(hook: Hook) -> bool:
    """Whether a hook may take long: one of the user's, or one that waits for a model."""
    return not isinstance(hook, Native) or hook.waits


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
    dropped. Raises ``HookError`` for what is raised, comes too late or is no list of messages that can be sent,
    ``PendingError`` for a summary that has to be awaited, and ``KeyboardInterrupt`` as it comes.

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
    if back is not None:
        found = tuple(back.get(id(each), each) for each in found)
    _check_encoding(hook, messages, found)
    return found


def _check_encoding(hook: Hook, before: Sequence[Message], after: Sequence[Message]) -> None:
    """Raise a ``HookError`` for a new message that has no faithful bytes: nothing else can be asked of it."""
    known = {id(message) for message in before}
    try:
        for message in after:
            if id(message) not in known:
                canonical(message)
    except LLMBufferError as error:
        raise hook_error(hook, f"it returned a message that cannot be sent: {error}") from error


def copied(message: Message) -> Message:
    """Parts are frozen in C; a message could be forced open, so a foreign hook gets one of its own."""
    return Message(message.role, message._content, message.name, _shape=message._shape)


def _called(hook: Hook, messages: Sequence[Message], budget: Budget, limit: float) -> Any:
    own: Any = messages
    if may_wait(hook):
        return _called_apart(hook, own, budget, limit)
    try:
        return hook(own, budget)
    except (HookError, PendingError):
        raise
    except Exception as error:
        raise hook_error(hook, _told(error)) from error


def _called_apart(hook: Hook, messages: Any, budget: Budget, limit: float) -> Any:
    """The same in a thread of its own, which is left behind when the time is over."""
    done: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def work() -> None:
        try:
            with running(hook):
                done.put((hook(messages, budget), None))
        except BaseException as error:  # noqa: BLE001 - whatever a hook raises is told to whoever waits
            done.put((None, error))

    context = contextvars.copy_context()
    Thread(target=context.run, args=(work,), name=f"llmbuffer-{name_of(hook)}", daemon=True).start()
    try:
        output, error = done.get(timeout=min(limit, TIMEOUT_MAX))
    except Empty:
        raise hook_error(hook, f"it took longer than {limit:g} seconds") from None
    if isinstance(error, PendingError | HookError | KeyboardInterrupt):
        raise error
    if error is not None:
        raise hook_error(hook, _told(error)) from error
    return output


def _told(error: BaseException) -> str:
    """What a hook raised, in words; foreign errors may quote the prompt."""
    told = f": {error}" if isinstance(error, LLMBufferError) else ""
    return f"it raised {type(error).__name__}{told}"
