"""Limits of a run: budgets in tokens and money, and retries that wait as long as the provider asks.

``Budget`` counts what is paid, and what is under way. ``Retry`` says which errors are worth another attempt, how often,
and after how long; the attempts themselves are made by tenacity, which comes with the extra ``graph``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from .errors import BudgetError, LimitError
from .usage import Usage

if TYPE_CHECKING:
    from tenacity import RetryCallState
    from typing_extensions import Self

__all__ = ["Budget", "Hold", "Retry", "RetryWait", "passing", "retry_after"]

T = TypeVar("T")

_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# What SDKs and their HTTP clients raise without a response, and Python 3.10's asyncio when it is too late.
_LOST = frozenset(
    {"APIConnectionError", "APITimeoutError", "ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout"}
    | {"ClientConnectionError", "RemoteProtocolError", "TimeoutError", "WriteError"}
)
_SPENT = frozenset({"insufficient_quota", "billing_hard_limit_reached", "credit_balance_too_low"})


# Budgets


class Hold:
    """A share of a budget that a request under way may come to; end it with ``pay`` or ``release``, once.

    As a context manager it is released at the end of the block, unless it was paid.
    """

    __slots__ = ("_budget", "_tokens", "_usd")

    def __init__(self, budget: Budget, tokens: int, usd: float) -> None:
        self._budget, self._tokens, self._usd = budget, tokens, usd

    def pay(self, usage: Usage | None, cost: float | None = None) -> None:
        """Put what was really used in the place of what was held; see ``Budget.charge``."""
        self.release()
        self._budget.charge(usage, cost)

    def release(self) -> None:
        """Give back what is held. Doing so again changes nothing."""
        tokens, usd, self._tokens, self._usd = self._tokens, self._usd, 0, 0.0
        self._budget._give_back(tokens, usd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Budget:
    """How many tokens (input and output together) and how much money (USD) may be spent; ``None`` is no bound.

    Before a request ``take`` holds what it is forecast to come to, and raises ``BudgetError`` if that no longer fits; after
    it ``pay`` counts what was reported. Output cannot be foreseen, so the last requests may exceed the budget by theirs.
    One budget may bound several runs. Threads and tasks may share it.

    Raises ``LimitError`` for a bound that is negative or no number.

    >>> budget = Budget(tokens=1000)
    >>> with budget.take(tokens=900) as hold:
    ...     hold.pay(Usage(input_tokens=900, output_tokens=60))
    >>> budget.spent_tokens, budget.left_tokens
    (960, 40)
    >>> budget.take(tokens=41)
    Traceback (most recent call last):
    llmbuffer.errors.BudgetError: a request of about 41 tokens does not fit: 960 of 1,000 are spent and 0 held; ...
    """

    __slots__ = ("_held_tokens", "_held_usd", "_lock", "spent_tokens", "spent_usd", "tokens", "usd")

    def __init__(self, *, tokens: int | None = None, usd: float | None = None) -> None:
        for name, bound in (("tokens", tokens), ("usd", usd)):
            if bound is not None and (
                isinstance(bound, bool) or not isinstance(bound, int | float) or not bound >= 0
            ):
                raise LimitError(
                    f"the budget's {name} is {bound!r}: give a number from 0, or None for no bound"
                )
        self.tokens, self.usd = tokens, usd
        self.spent_tokens, self.spent_usd = 0, 0.0
        self._held_tokens, self._held_usd = 0, 0.0
        self._lock = Lock()

    @property
    def left_tokens(self) -> int | None:
        """Tokens that are neither spent nor held, at least 0; ``None`` without a bound."""
        return None if self.tokens is None else max(0, self.tokens - self.spent_tokens - self._held_tokens)

    @property
    def left_usd(self) -> float | None:
        """US dollars that are neither spent nor held, at least 0; ``None`` without a bound."""
        return None if self.usd is None else max(0.0, self.usd - self.spent_usd - self._held_usd)

    def take(self, tokens: int = 0, usd: float | None = 0.0) -> Hold:
        """Hold what a request is forecast to come to; ``usd=None`` says that its price is unknown.

        Raises ``BudgetError`` if it does not fit, or if the budget is in money and the price unknown. Nothing is held then.
        """
        with self._lock:
            self._check(tokens, usd)
            self._held_tokens += tokens
            self._held_usd += usd or 0.0
        return Hold(self, tokens, usd or 0.0)

    def _check(self, tokens: int, usd: float | None) -> None:
        if self.tokens is not None and (
            self.spent_tokens >= self.tokens or self.spent_tokens + self._held_tokens + tokens > self.tokens
        ):
            raise BudgetError(
                f"a request of about {tokens:,} tokens does not fit: {self.spent_tokens:,} of {self.tokens:,} are spent "
                f"and {self._held_tokens:,} held; give a larger Budget(tokens=…)"
            )
        if self.usd is None:
            return
        if usd is None:
            raise BudgetError(
                "the model has no known price, so money cannot be counted: give Session(prices=…)"
            )
        if self.spent_usd >= self.usd or self.spent_usd + self._held_usd + usd > self.usd:
            raise BudgetError(
                f"a request of about {usd:.4f} USD does not fit: {self.spent_usd:.4f} of {self.usd:.4f} are spent and "
                f"{self._held_usd:.4f} held; give a larger Budget(usd=…)"
            )

    def charge(self, usage: Usage | None, cost: float | None = None) -> None:
        """Count what was paid, whether it fits or not; ``None`` is what nobody reported, and counts nothing."""
        with self._lock:
            if usage is not None:
                self.spent_tokens += usage.input_tokens + usage.output_tokens
            self.spent_usd += cost or 0.0

    @property
    def spent(self) -> bool:
        """Whether nothing is left for another request, whatever it costs."""
        return self.left_tokens == 0 or self.left_usd == 0.0

    def _give_back(self, tokens: int, usd: float) -> None:
        with self._lock:
            self._held_tokens -= tokens
            self._held_usd = max(0.0, self._held_usd - usd)

    def __repr__(self) -> str:
        return (
            f"Budget(tokens={self.tokens}, usd={self.usd}, spent_tokens={self.spent_tokens}, "
            f"spent_usd={self.spent_usd:.4f})"
        )


# Retries


def passing(error: BaseException) -> bool:
    """Whether an error may pass if one waits: a lost connection, a time-out, a rate limit, an overloaded server.

    SDK errors are told by ``status_code`` (or ``code``) and by the header ``x-should-retry``; an account without credit is
    not waited for.

    >>> passing(ConnectionResetError()), passing(ValueError())
    (True, False)
    """
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    if not isinstance(error, Exception):
        return False
    said = _headers(error).get("x-should-retry")
    if said in ("true", "false"):
        return said == "true"
    if getattr(error, "code", None) in _SPENT or getattr(error, "type", None) in _SPENT:
        return False
    status = _status(error)
    if status is not None:
        return status in _PASSING
    return not _LOST.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def _status(error: BaseException) -> int | None:
    found = (getattr(error, name, None) for name in ("status_code", "code"))
    return next((status for status in found if isinstance(status, int)), None)


def _headers(error: BaseException) -> Mapping[str, str]:
    headers = getattr(getattr(error, "response", None), "headers", None)
    return headers if isinstance(headers, Mapping) else {}


def retry_after(error: BaseException, *, now: Callable[[], float] = time.time) -> float | None:
    """How many seconds the provider asks to wait: ``retry-after-ms``, ``retry-after`` (seconds or a date), or Gemini's
    ``retryDelay``; ``None`` if it does not say.

    >>> from types import SimpleNamespace as Fake
    >>> error = ConnectionError()
    >>> error.response = Fake(headers={"retry-after": "7"})
    >>> retry_after(error)
    7.0
    """
    headers = _headers(error)
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _number(headers.get(name))
        if seconds is not None:
            return seconds / divisor
    if "retry-after" in headers:
        try:
            return max(0.0, parsedate_to_datetime(headers["retry-after"]).timestamp() - now())
        except (TypeError, ValueError):
            return None
    return _retry_delay(getattr(error, "details", None))


def _number(text: object) -> float | None:
    try:
        seconds = float(str(text))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _retry_delay(details: object) -> float | None:
    """The ``RetryInfo`` in a Gemini error: ``{"error": {"details": [{"retryDelay": "7s"}]}}``."""
    inner = details.get("error", details) if isinstance(details, Mapping) else None
    listed = inner.get("details") if isinstance(inner, Mapping) else None
    for each in listed if isinstance(listed, list) else ():
        delay = each.get("retryDelay") if isinstance(each, Mapping) else None
        if isinstance(delay, str):
            return _number(delay.removesuffix("s"))
    return None


class RetryWait(msgspec.Struct, frozen=True):
    """A wait before another attempt: ``attempt`` is the one that failed, from 1; ``seconds`` how long is waited."""

    attempt: int
    seconds: float
    error: BaseException


class Retry(msgspec.Struct, frozen=True):
    """How often a call is tried again (``times``, beyond the first attempt), and when.

    What is waited doubles from ``wait`` to ``max_wait`` (seconds), less a random share of it up to ``jitter`` (a fraction of
    1), unless the error carries a ``retry-after``: then as long as that says; if it says more than ``max_wait``, the error is
    raised at once, because trying earlier would be refused again. ``when`` tells which errors are worth it (default:
    ``passing``). The last error is raised as it is. With ``times=0`` nothing is tried again and tenacity is not needed.
    Raises ``LimitError`` for numbers out of these ranges, and for what is no number.

    SDKs try again by themselves, too (``max_retries``, twice by default): turn that off in the client to count here only.

    >>> attempts = iter([ConnectionError("lost"), "fine"])
    >>> def call() -> str:
    ...     found = next(attempts)
    ...     if isinstance(found, Exception):
    ...         raise found
    ...     return found
    >>> Retry(2, wait=0.0).call(call)
    'fine'
    """

    times: int = 2
    wait: float = 0.5
    max_wait: float = 60.0
    jitter: float = 0.5
    when: Callable[[BaseException], bool] = passing
    draw: Callable[[], float] = random.random

    def __post_init__(self) -> None:
        whole = isinstance(self.times, int) and not isinstance(self.times, bool)
        numbers = all(isinstance(each, int | float) for each in (self.wait, self.max_wait, self.jitter))
        if not whole or not numbers or not self._in_range():
            raise LimitError(
                f"{self!r} makes no sense: give times (a whole number) and seconds from 0, and a jitter between 0 and 1"
            )

    def _in_range(self) -> bool:
        return self.times >= 0 and self.wait >= 0 and self.max_wait >= 0 and 0 <= self.jitter <= 1

    def check(self) -> None:
        """Raise ``LimitError`` if there is to be another attempt and tenacity is not installed."""
        if self.times:
            _tenacity()

    def call(
        self,
        function: Callable[[], T],
        *,
        sleep: Callable[[float], object] = time.sleep,
        on_retry: Callable[[RetryWait], object] | None = None,
    ) -> T:
        """Call until it succeeds or the attempts are used up; ``on_retry`` is told of each wait."""
        if not self.times:
            return function()
        return _tenacity().Retrying(sleep=sleep, **self._settings(on_retry))(function)  # type: ignore[no-any-return]

    async def acall(
        self,
        function: Callable[[], Awaitable[T]],
        *,
        sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
        on_retry: Callable[[RetryWait], object] | None = None,
    ) -> T:
        """The same for a coroutine function, on asyncio and trio. Cancelling ends it at once, also while it waits."""
        if not self.times:
            return await function()

        async def attempt() -> T:
            return await function()

        retrying = _tenacity().AsyncRetrying(sleep=sleep, **self._settings(on_retry))
        return await retrying(attempt)  # type: ignore[no-any-return]

    def _settings(self, on_retry: Callable[[RetryWait], object] | None) -> dict[str, Any]:
        tenacity = _tenacity()
        backoff = tenacity.wait_exponential(multiplier=self.wait, max=self.max_wait)

        def seconds(state: RetryCallState) -> float:
            asked = retry_after(_failure(state))
            return asked if asked is not None else float(backoff(state)) * (1 - self.jitter * self.draw())

        def told(state: RetryCallState) -> None:
            if on_retry is not None:
                on_retry(RetryWait(state.attempt_number, state.upcoming_sleep, _failure(state)))

        return {
            "stop": tenacity.stop_after_attempt(self.times + 1),
            "wait": seconds,
            "retry": lambda state: state.outcome.failed and self._again(_failure(state)),
            "before_sleep": told,
            "reraise": True,
        }

    def _again(self, error: BaseException) -> bool:
        return self.when(error) and (retry_after(error) or 0.0) <= self.max_wait


def _failure(state: RetryCallState) -> BaseException:
    assert state.outcome is not None, "it is asked after an attempt"
    error = state.outcome.exception()
    assert error is not None, "it is asked after a failed attempt"
    return error


def _tenacity() -> Any:
    try:
        import tenacity
    except ModuleNotFoundError:
        raise LimitError(
            "retries need tenacity: pip install 'llmbuffer[graph]>=1', or use Retry(0)"
        ) from None
    return tenacity
