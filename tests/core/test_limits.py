"""Budgets and retries: what fits, what is tried again, and how long is waited."""

from __future__ import annotations

import threading
from contextlib import suppress
from email.utils import formatdate
from functools import partial
from types import SimpleNamespace
from typing import Any

import anthropic
import anyio
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.virtual_clock import run_virtually

from llmbuffer import Usage
from llmbuffer.errors import BudgetError, LimitError
from llmbuffer.limits import Budget, Retry, RetryWait, passing, retry_after
from llmbuffer.simulate import ProviderServer


def error_with(**headers: str) -> Exception:
    error = ConnectionError("lost")
    error.response = SimpleNamespace(headers={key.replace("_", "-"): value for key, value in headers.items()})  # type: ignore[attr-defined]
    return error


# Budgets


@given(
    st.integers(0, 1000),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300), st.booleans()), max_size=20),
)
def test_a_budget_is_exceeded_by_no_more_than_what_was_not_foreseen(
    bound: int, asked: list[tuple[int, int, bool]]
) -> None:
    budget, unforeseen = Budget(tokens=bound), 0
    for forecast, more, paid in asked:
        try:
            hold = budget.take(forecast)
        except BudgetError:
            assert budget.spent_tokens >= bound or budget.spent_tokens + forecast > bound
            continue
        if paid:
            hold.pay(Usage(input_tokens=forecast, output_tokens=more))
            unforeseen += more
        hold.release()
    assert budget.spent_tokens <= bound + unforeseen
    assert budget.left_tokens == max(0, bound - budget.spent_tokens)


def test_what_is_held_is_not_given_twice() -> None:
    budget = Budget(usd=1.0)
    with budget.take(usd=0.7):
        with pytest.raises(
            BudgetError,
            match=r"about 0\.4000 USD does not fit: 0\.0000 of 1\.0000 are spent and 0\.7000 held",
        ):
            budget.take(usd=0.4)
        assert budget.left_usd == pytest.approx(0.3)
    budget.take(usd=0.4).pay(None, 1.2)
    assert budget.spent
    assert budget.spent_usd == pytest.approx(1.2)
    with pytest.raises(BudgetError):
        budget.take(usd=0.0)
    with pytest.raises(BudgetError, match="no known price"):
        Budget(usd=1.0).take(usd=None)
    assert Budget().take(10**9, None) is not None


@pytest.mark.parametrize("bound", [-1, float("nan"), "lots", True])
def test_a_bound_is_a_number(bound: Any) -> None:
    with pytest.raises(LimitError, match="give a number from 0"):
        Budget(tokens=bound)


def test_threads_share_a_budget() -> None:
    budget, taken = Budget(tokens=100), []

    def work() -> None:
        with suppress(BudgetError):
            for _ in range(50):
                budget.take(1).pay(Usage(input_tokens=1))
                taken.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 100
    assert budget.spent_tokens == 100


# Retries


def test_the_errors_of_real_sdks_are_told_apart() -> None:
    replies = [
        {"status": status, "message": "no", "retry_after": 7} for status in (429, 500, 400) for _ in range(2)
    ]
    with ProviderServer(replies=replies) as server:
        clients: list[Any] = [
            openai.OpenAI(base_url=server.openai_url, api_key="any", max_retries=0),
            anthropic.Anthropic(base_url=server.anthropic_url, api_key="any", max_retries=0),
        ]
        found = []
        for status in (429, 500, 400):
            for client in clients:
                with pytest.raises((openai.APIStatusError, anthropic.APIStatusError)) as raised:
                    _ask(client)
                assert getattr(raised.value, "status_code", None) == status
                found.append((passing(raised.value), retry_after(raised.value)))
        for client in clients:
            client.close()
    assert [each[0] for each in found] == [True, True, True, True, False, False]
    assert found[0][1] == found[1][1] == 7.0
    with openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="any", max_retries=0) as lost:
        with pytest.raises(openai.APIConnectionError) as nobody:
            _ask(lost)
        assert passing(nobody.value)


def _ask(client: Any) -> Any:
    messages: Any = [{"role": "user", "content": "hi"}]
    if isinstance(client, anthropic.Anthropic):
        return client.messages.create(model="claude-sonnet-5.5", max_tokens=5, messages=messages)
    return client.chat.completions.create(model="gpt-5.5", messages=messages)


def test_how_long_the_provider_asks_to_wait() -> None:
    assert retry_after(error_with(retry_after="7")) == 7.0
    assert retry_after(error_with(retry_after_ms="250", retry_after="7")) == 0.25
    assert (
        retry_after(error_with(retry_after=formatdate(1_000_030, usegmt=True)), now=lambda: 1_000_000.0)
        == 30.0
    )
    assert retry_after(error_with(retry_after="soon")) is None
    assert retry_after(ConnectionError()) is None
    gemini = ConnectionError()
    gemini.details = {"error": {"details": [{"@type": "x"}, {"retryDelay": "12s"}]}}  # type: ignore[attr-defined]
    assert retry_after(gemini) == 12.0


def test_what_passes() -> None:
    assert passing(TimeoutError())
    assert not passing(KeyboardInterrupt())
    quota = error_with()
    assert passing(error_with(x_should_retry="true"))
    assert not passing(type("E", (Exception,), {"status_code": 429, "code": "insufficient_quota"})())
    assert not passing(type("E", (Exception,), {"status_code": 401})())
    assert passing(type("E", (Exception,), {"code": 503})())
    assert passing(quota)


def waits(retry: Retry, *errors: BaseException) -> tuple[list[float], list[RetryWait]]:
    """What is waited while these errors come one after the other, and then nothing goes wrong."""
    script, slept, told = iter(errors), list[float](), list[RetryWait]()

    def call() -> str:
        error = next(script, None)
        if error is not None:
            raise error
        return "fine"

    assert retry.call(call, sleep=slept.append, on_retry=told.append) == "fine"
    return slept, told


def test_waits_double_up_to_a_bound_unless_the_provider_says_how_long() -> None:
    lost = ConnectionError("lost")
    plain = Retry(6, wait=1.0, max_wait=5.0, jitter=0.0)
    slept, told = waits(plain, *[lost] * 5)
    assert slept == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert [wait.attempt for wait in told] == [1, 2, 3, 4, 5]
    assert told[0].error is lost
    assert waits(plain, lost, error_with(retry_after="3"), lost)[0] == [1.0, 3.0, 4.0]
    assert waits(Retry(2, wait=1.0, jitter=0.5, draw=lambda: 1.0), lost, lost)[0] == [0.5, 1.0]


def test_who_asks_for_too_long_a_wait_is_not_asked_again() -> None:
    with pytest.raises(ConnectionError):
        waits(Retry(5, max_wait=60.0), error_with(retry_after="61"))


def test_the_last_error_is_raised_as_it_is() -> None:
    errors = [ConnectionError(str(number)) for number in range(4)]
    with pytest.raises(ConnectionError) as raised:
        waits(Retry(2, wait=0.0), *errors)
    assert raised.value is errors[2]
    with pytest.raises(ValueError, match="never"):
        waits(Retry(2, wait=0.0), ValueError("never"))
    with pytest.raises(ConnectionError):
        waits(Retry(0), errors[0])


def test_a_coroutine_is_tried_again_and_can_be_cancelled_while_it_waits() -> None:
    attempts: list[float] = []

    async def call() -> str:
        attempts.append(anyio.current_time())
        if len(attempts) < 3:
            raise ConnectionError
        return "fine"

    async def twice() -> None:
        retry = Retry(2, wait=10.0, jitter=0.0)
        assert await retry.acall(call) == "fine"
        assert attempts == [0.0, 10.0, 30.0]
        attempts.clear()
        with anyio.move_on_after(15.0) as scope:
            await retry.acall(call)
        assert scope.cancelled_caught
        assert anyio.current_time() == pytest.approx(45.0)

    run_virtually(twice)


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    nan = float("nan")
    wrong: list[dict[str, Any]] = [{"times": -1}, {"times": 2.5}, {"times": True}, {"times": "2"}]
    wrong += [
        {"wait": -1.0},
        {"wait": nan},
        {"wait": None},
        {"max_wait": nan},
        {"jitter": 2.0},
        {"jitter": nan},
    ]
    for options in wrong:
        with pytest.raises(LimitError, match="makes no sense"):
            Retry(**options)


def test_without_tenacity_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tenacity", None)
    assert Retry(0).call(partial(int, "7")) == 7
    Retry(0).check()
    with pytest.raises(LimitError, match=r"pip install 'llmbuffer\[graph\]>=1'"):
        Retry(1).check()
