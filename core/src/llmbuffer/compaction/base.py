"""What a compaction is told, and what its hooks are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from numbers import Real
from typing import Any, Literal, Protocol, TypeAlias

from ..errors import CompactionError
from ..messages import Message, canonical
from .horizon import Horizon

__all__ = [
    "Ask",
    "Budget",
    "Compaction",
    "CompactionWarning",
    "Expects",
    "Hook",
    "Moment",
    "Native",
    "Summarize",
    "moment_of",
    "name_of",
    "original_id",
]

Moment = Literal["commit", "between", "overflow"]
_ARGUMENTS = (
    "max_tokens",
    "target",
    "hooks",
    "horizon",
    "reserve",
    "max_loss",
    "time_limit",
    "strict",
    "debug",
)
MOMENTS = ("commit", "between", "overflow")
Summarize: TypeAlias = Callable[[Sequence[Message]], Any]
Ask: TypeAlias = Callable[[Sequence[Message], str], Any]  # with the instruction


class Expects(Protocol):
    """What says how many requests are still expected: see ``horizon.Horizon``."""

    def remaining(self, seen: int, /) -> int:
        """Requests expected after ``seen`` of them."""


class CompactionWarning(UserWarning):
    """A hook broke a rule, and what it was given stays; or a request does not fit the window."""


class Hook(Protocol):
    """What makes messages smaller: any callable with this signature.

    ``messages`` is a list of its own, oldest first; ``budget`` the tokens that they should have afterwards. It returns the
    messages that stand in their place. An attribute ``moment`` says when it is called: ``commit`` (with one message,
    before that is sent for the first time), ``between`` turns (the default; with the whole history) or ``overflow``
    (between turns too, and only if the next request does not fit otherwise).

    >>> def newest(messages, budget):
    ...     return messages[:1] + messages[-4:]
    """

    def __call__(self, messages: list[Message], budget: Budget, /) -> Sequence[Message]:
        """The messages that stand in place of those given."""
        ...


class Budget(int):
    """Tokens that the messages of a hook should have after it, and what a hook may want to know.

    ``moment`` it is called at, ``least`` tokens that have to stay, ``count(message)`` the tokens of one,
    ``keep(messages)`` an id to put into a marker, under which ``session.original`` gives them back, and ``pinned(message)``
    whether it has to stay; ``summarize`` makes a text of messages with the session's own client, ``None`` without one.

    >>> budget = Budget(100)
    >>> budget + 1, budget.moment, budget.count(Message("user", "four"))
    (101, 'between', 5)
    """

    moment: Moment
    least: int
    count: Callable[[Message], int]
    keep: Callable[[Sequence[Message]], str]
    pinned: Callable[[Message], bool]
    summarize: Ask | None

    def __new__(  # noqa: D102, PYI034 - the class tells
        cls,
        tokens: int,
        *,
        moment: Moment = "between",
        least: int = 0,
        count: Callable[[Message], int] | None = None,
        keep: Callable[[Sequence[Message]], str] | None = None,
        pinned: Callable[[Message], bool] | None = None,
        summarize: Ask | None = None,
    ) -> Budget:
        budget = super().__new__(cls, tokens)
        budget.moment, budget.least = moment, least
        budget.count = count if count is not None else _quarter
        budget.keep = keep if keep is not None else original_id
        budget.pinned = pinned if pinned is not None else _nothing
        budget.summarize = summarize
        return budget


def _quarter(message: Message) -> int:
    return len(canonical(message)) // 4


def _nothing(_: Message) -> bool:
    return False


def original_id(messages: Message | Sequence[Message]) -> str:
    """The id under which what was replaced is kept: 16 hexadecimal digits, the same for equal messages.

    >>> original_id(Message("user", "hi")) == original_id([Message("user", "hi")])
    True
    """
    each = [messages] if isinstance(messages, Message) else messages
    digest = blake2b(digest_size=8)
    for message in each:
        content = canonical(message)
        digest.update(len(content).to_bytes(8, "big"))
        digest.update(content)
    return digest.hexdigest()


class Native:
    """A hook of this package: it gets the messages themselves, and runs in a thread only if it ``waits`` for others."""

    __slots__ = ()
    waits = False


class Compaction:
    """How a session keeps its prompt small: ``Session(…, compaction=Compaction(…))``. Frozen; sessions may share one.

    Arguments: ``max_tokens``, the window: the whole request (tools, system text, history, dynamic text) and ``reserve``
    tokens for the reply have to fit; ``target``, what a compaction goes down to, in tokens or, up to 1.0, as a share of
    ``max_tokens`` (default: half of it); ``hooks``, in the order in which they are tried, each on what those before it left,
    until the target is reached; ``horizon``, how many requests are expected, or ``auto``.

    ``max_loss`` is the largest share of the history's tokens that one hook may take away, ``time_limit`` how long it may
    take, in seconds. A hook that breaks a rule raises ``HookError`` if ``strict``; else what it was given stays, a
    ``CompactionWarning`` is given and the ledger tells. In ``debug`` (default: unless Python runs with ``-O``) each hook is
    called twice the first time, and has to give the same bytes.

    Raises ``CompactionError`` for limits that make no sense.

    >>> Compaction(100_000, hooks=[lambda messages, budget: messages])
    Compaction(max_tokens=100000, target=50000, hooks=['<lambda>'])
    """

    __slots__ = (
        "checked", "debug", "hooks", "horizon", "max_loss", "max_tokens", "reserve", "strict", "target", "time_limit",
    )  # fmt: skip

    def __init__(
        self,
        max_tokens: int,
        target: float | None = None,
        hooks: Iterable[Hook] = (),
        horizon: Literal["auto"] | int | Expects = "auto",
        *,
        reserve: int = 0,
        max_loss: float = 0.9,
        time_limit: float = 60.0,
        strict: bool = False,
        debug: bool = __debug__,
    ) -> None:
        tokens = _tokens(0.5 if target is None else target, max_tokens)
        _check_limits(max_tokens, tokens, reserve)
        if not 0 < max_loss <= 1:
            raise CompactionError(f"max_loss is {max_loss!r}: give a share above 0, 1 at most")
        if not time_limit > 0:
            raise CompactionError(f"time_limit is {time_limit!r}: give seconds")
        put = object.__setattr__
        put(self, "max_tokens", max_tokens)
        put(self, "target", tokens)
        put(self, "hooks", _hooks(hooks))
        put(self, "horizon", _horizon(horizon))
        put(self, "reserve", reserve)
        put(self, "max_loss", max_loss)
        put(self, "time_limit", time_limit)
        put(self, "strict", strict)
        put(self, "debug", debug)
        put(self, "checked", set())
        for hook in self.hooks:
            moment_of(hook)

    max_tokens: int
    target: int
    hooks: tuple[Hook, ...]
    horizon: Expects | int
    reserve: int
    max_loss: float
    time_limit: float
    strict: bool
    debug: bool
    checked: set[int]  # hooks that gave the same bytes when they were asked twice

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Compaction is frozen: make a new one instead of setting {name!r}")

    def __reduce__(self) -> tuple[object, ...]:
        return _made_anew, (type(self), {name: getattr(self, name) for name in _ARGUMENTS})

    @property
    def blocks(self) -> bool:
        """Whether a hook may take long: one of the user's, or one that waits for a model."""
        return not all(isinstance(hook, Native) and not hook.waits for hook in self.hooks)

    def at(self, *moments: Moment) -> tuple[Hook, ...]:
        """The hooks that are called at these moments, in order."""
        return tuple(hook for hook in self.hooks if moment_of(hook) in moments)

    def __repr__(self) -> str:
        names = [name_of(hook) for hook in self.hooks]
        return f"Compaction(max_tokens={self.max_tokens}, target={self.target}, hooks={names})"


def _tokens(target: float, max_tokens: int) -> int:
    """The target in tokens; a ``float`` up to 1.0 is a share of the window."""
    if isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1:
        raise CompactionError(f"max_tokens is {max_tokens!r}: give the window in tokens")
    if isinstance(target, bool) or not isinstance(target, Real) or not math.isfinite(target):
        raise CompactionError(f"target is {target!r}: give tokens, or a share between 0.0 and 1.0")
    return int(target * max_tokens) if isinstance(target, float) and target <= 1.0 else int(target)


def _hooks(hooks: Iterable[Hook]) -> tuple[Hook, ...]:
    if not isinstance(hooks, Iterable):
        raise CompactionError(f"hooks is {name_of(hooks)!r}: give a list, as in hooks=[ElideToolResults()]")
    return tuple(hooks)


def _made_anew(kind: type[Compaction], given: dict[str, Any]) -> Compaction:
    """A copy: frozen, it cannot be filled in attribute by attribute."""
    return kind(**given)


def _check_limits(max_tokens: int, target: int, reserve: int) -> None:
    if not 0 <= reserve < max_tokens:
        raise CompactionError(f"reserve is {reserve!r}: give tokens for the reply, fewer than {max_tokens:,}")
    if not 0 < target <= max_tokens - reserve:
        raise CompactionError(
            f"target is {target!r}: give tokens, at most the {max_tokens - reserve:,} that the reserve leaves, or a "
            "share between 0.0 and 1.0"
        )


def _horizon(horizon: Any) -> Expects | int:
    if isinstance(horizon, str) and horizon == "auto":
        return Horizon()
    if callable(getattr(horizon, "remaining", None)):
        return horizon  # type: ignore[no-any-return]  # it has the one method that is asked for
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 0:
        raise CompactionError(f"horizon is {horizon!r}: give 'auto', or a number of requests")
    return horizon


def moment_of(hook: Hook) -> Moment:
    """When a hook is called. Raises ``CompactionError`` for what cannot be one."""
    moment: Any = getattr(hook, "moment", "between")
    if not callable(hook):
        raise CompactionError(
            f"a hook is a {type(hook).__name__}: give a callable (messages, budget) -> messages"
        )
    if moment not in MOMENTS:
        raise CompactionError(
            f"hook {name_of(hook)!r} has moment {moment!r}: use one of {', '.join(MOMENTS)}"
        )
    return moment  # type: ignore[no-any-return]  # one of the three


def name_of(hook: object) -> str:
    """What a hook is called in the ledger and in errors.

    >>> name_of(len)
    'len'
    """
    return str(getattr(hook, "__name__", type(hook).__name__))
