"""Replies that are re-used: exact keys, one call for equal requests at once, samples that stay samples, nothing half-finished."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any

import anthropic
import anyio
import openai
import pytest

from llmbuffer import Message, Observation, Session, StableContext, Usage
from llmbuffer.errors import LoopError, StoreError
from llmbuffer.finishing import is_complete
from llmbuffer.replies import Replies, is_deterministic, reply_key
from llmbuffer.simulate import Asked, Call, ProviderServer, Reply
from llmbuffer.store import Store, open_store
from llmbuffer.store.memory import MemoryBackend
from llmbuffer.testing import FakeClock
from llmbuffer.turns import TurnTier

STEADY = {"temperature": 0}
TOOLS = [{"name": "add", "parameters": {"type": "object"}}]
CALL = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}]


class Provider:
    """A simulated provider that answers with numbers, and may be told to hold its answers back."""

    def __init__(self, *, held: bool = False, replies: Callable[[int], Reply | str] | None = None) -> None:
        self.free, self.came = threading.Event(), threading.Semaphore(0)
        self.asked = 0
        self._replies = replies or (lambda number: f"Answer {number}.")
        if not held:
            self.free.set()
        self.server = ProviderServer(replies=self._answer)

    async def _answer(self, asked: Asked) -> Reply | str:
        number, self.asked = self.asked, self.asked + 1
        self.came.release()
        await anyio.to_thread.run_sync(self.free.wait)
        return self._replies(number)

    def __enter__(self) -> Provider:  # noqa: PYI034 - typing.Self is newer than Python 3.10
        self.server.start()
        self.client = openai.OpenAI(base_url=self.server.openai_url, api_key="k", max_retries=0)
        return self

    def __exit__(self, *_: object) -> None:
        self.free.set()
        self.client.close()
        self.server.stop()


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as running:
        yield running


@pytest.fixture
def held() -> Iterator[Provider]:
    with Provider(held=True) as running:
        yield running


def session_of(client: Any = None, params: Any = STEADY, **options: Any) -> Session:
    return Session(StableContext("gpt-5.5", "You are kind.", TOOLS, params), client=client, **options)


def until(condition: Callable[[], bool]) -> None:
    """Look until it is so, for twenty seconds at most."""
    tick = threading.Event()
    for _ in range(20_000):
        if condition():
            return
        tick.wait(0.001)
    raise AssertionError("it never came to be so")


def fake(*replies: Any) -> Any:
    """A client whose responses are those given, in order; exceptions are raised."""
    script = iter(replies)

    def create(**_: Any) -> Any:
        reply = next(script)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def said(text: str | None, finish: str = "stop", **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **fields}
    return {"id": "r", "choices": [{"message": message, "finish_reason": finish}]}


# One answer


def test_never_is_the_default(provider: Provider) -> None:
    for _ in range(2):
        session_of(provider.client).respond("Hello")
        session_of(provider.client).respond("Hello", reuse="never")
    assert provider.asked == 4


def test_a_fork_that_asks_the_same_pays_nothing(provider: Provider) -> None:
    session, seen = session_of(provider.client), list[Observation]()
    forks = [session.fork() for _ in range(3)]
    replies = [fork.respond("Hello", reuse="deterministic", on_observe=seen.append) for fork in forks]
    assert provider.asked == 1
    assert [reply.text for reply in replies] == ["Answer 0."] * 3
    assert [each.reused for each in seen] == [False, True, True]
    assert (seen[1].usage, seen[1].cost, seen[1].cache_break) == (Usage(), 0.0, None)
    [entry] = forks[1].ledger
    assert (entry.kind, entry.usage, entry.cost) == ("reused", Usage(), 0.0)
    assert (forks[1].ledger.requests, forks[0].ledger.requests) == (0, 1)
    assert "reused" in forks[1].ledger.report()
    bodies = [msg_bytes(fork) for fork in forks]
    assert bodies[0] == bodies[1] == bodies[2]


def msg_bytes(session: Session) -> bytes:
    return json.dumps(session.request("And now?").body["messages"]).encode()


def test_a_re_used_reply_warms_nothing_and_calibrates_nothing() -> None:
    context = StableContext("gpt-5.5", "Be kind. " * 2_000, params=STEADY)
    usage = {"prompt_tokens": 9_000, "completion_tokens": 1, "total_tokens": 9_001}
    first = Session(context, client=fake({**said("Hi."), "usage": usage}))
    replies = Replies()
    first.respond("Hello", reuse=replies)
    second = Session(context, client=fake())
    assert second.respond("Hello", reuse=replies).text == "Hi."
    told = second.request("And now?").forecast
    assert (told.read_tokens, told.warnings) == (0, ("cold",))
    assert second.family.calibration("gpt-5.5").factor == 1.0


def test_what_differs_in_the_prompt_is_asked_anew_and_what_does_not_is_not(provider: Provider) -> None:
    replies = Replies()

    def ask(params: Any = STEADY, user: str = "Hello", dynamic: Any = None, **options: Any) -> str:
        session = session_of(provider.client, {**STEADY, **params}, **options)
        return session.respond(user, dynamic=dynamic, reuse=replies).text

    first = ask()
    assert ask(routing_key="another") == ask({"metadata": {"trace": "1"}}) == ask({"user": "ann"}) == first
    assert provider.asked == 1
    different = [
        ask(user="Hello!"),
        ask({"max_tokens": 5}),
        ask({"seed": 1}),
        ask(dynamic={"clock": "12:00"}),
        ask(dynamic={"clock": "12:01"}),
    ]
    assert len({first, *different}) == 6
    other = Session(StableContext("gpt-5.6", "You are kind.", TOOLS, STEADY), client=provider.client)
    assert other.respond("Hello", reuse=replies).text not in {first, *different}


def test_params_of_one_request_are_part_of_its_key() -> None:
    session = session_of()
    keys = {
        reply_key(session.request("Hello", params=params))
        for params in (None, {"max_tokens": 5}, {"max_tokens": 6}, {"metadata": {"a": 1}}, {"user": "x"})
    }
    assert len(keys) == 3


def test_the_place_of_dynamic_text_is_part_of_the_key() -> None:
    def key(placement: Any) -> Any:
        context = StableContext("a-model", "You are kind.", TOOLS, STEADY)
        session = Session(context, "llamacpp", placement=placement)
        first = session.request("Hello", {"clock": "12"})
        first.observe(
            Usage(10), Message.from_openai({"role": "assistant", "content": None, "tool_calls": CALL})
        )
        session.append({"role": "tool", "tool_call_id": "c1", "content": "3"})
        return reply_key(session.request(None))

    assert key("turn") == key("turn") != key("tail")
    request = session_of().request("x")
    assert reply_key(request, "one endpoint") != reply_key(request, "another")


@pytest.mark.parametrize(
    ("dialect", "params", "steady"),
    [
        ("openai", {"temperature": 0.0}, True),
        ("openai", {"temperature": 0.1}, False),
        ("openai", {"temperature": False}, False),
        ("openai", {"seed": 0}, True),
        ("openai", {}, False),
        ("anthropic", {"seed": 1}, False),
        ("anthropic", {"temperature": 0}, True),
        ("openai-responses", {"seed": 1}, False),
        ("deepseek", {"seed": 1}, False),
        ("llamacpp", {"seed": -1}, False),
        ("llamacpp", {"seed": 5}, True),
        ("gemini", {"generationConfig": {"seed": 5}}, True),
        ("gemini", {"generation_config": {"temperature": 0}}, True),
        ("gemini", {"generationConfig": {"temperature": 1}}, False),
        ("a-plugin", {"seed": 5}, True),
    ],
)
def test_what_is_deterministic(dialect: str, params: dict[str, Any], steady: bool) -> None:
    assert is_deterministic(params, dialect) is steady


def test_deterministic_without_a_promise_of_the_params_is_refused_before_anything_is_sent() -> None:
    session = session_of(fake(), {})
    with pytest.raises(LoopError, match="temperature of 0 and no seed: on 'openai' give temperature or seed"):
        session.respond("Hello", reuse="deterministic")
    assert (session.messages, len(session.ledger)) == ((), 0)
    session.client = fake(said("Hi."))
    assert session.respond("Hello", reuse="deterministic", params={"seed": 7}).text == "Hi."


@pytest.mark.parametrize("reuse", ["always", 1, True])
def test_an_unknown_mode_is_refused(reuse: Any) -> None:
    with pytest.raises(LoopError, match="choose 'never', 'deterministic', 'samples'"):
        session_of(fake()).respond("Hello", reuse=reuse)
    with pytest.raises(LoopError):
        Replies("samples", samples=0)


# What is never re-used


@pytest.mark.parametrize(
    "response",
    [
        said("To be", "length"),
        said("", "content_filter"),
        said("No.", "stop", refusal="I cannot."),
        said(None, "tool_calls", tool_calls=CALL),
        said("Strange", "something_new"),
    ],
    ids=["length", "filtered", "refused", "calls", "unknown"],
)
def test_what_is_no_whole_answer_is_never_re_used(response: dict[str, Any]) -> None:
    session = session_of(fake(response, said("Whole."), said("Never asked for.")))
    texts = [session.fork().respond("Hello", reuse="deterministic").text for _ in range(3)]
    assert texts[1:] == ["Whole.", "Whole."]


@pytest.mark.parametrize(
    ("response", "whole"),
    [
        ({"stop_reason": "max_tokens", "content": []}, False),
        ({"stop_reason": "refusal", "content": []}, False),
        ({"stop_reason": "pause_turn", "content": []}, False),
        ({"stop_reason": "stop_sequence", "content": []}, True),
        ({"status": "incomplete", "output": []}, False),
        ({"status": "completed", "output": [{"type": "message", "content": [{"type": "refusal"}]}]}, False),
        (
            {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text"}]}]},
            True,
        ),
        ({"candidates": [{"finishReason": "SAFETY"}]}, False),
        ({"candidates": [{"finishReason": "STOP"}]}, True),
        ({"choices": [{"message": {"content": "x"}}]}, True),
    ],
)
def test_what_is_whole(response: dict[str, Any], whole: bool) -> None:
    assert is_complete(response) is whole


def test_calls_are_re_used_if_asked_for_and_the_tools_run_again() -> None:
    script = [said(None, "tool_calls", tool_calls=CALL), said("Three.")]
    ran: list[int] = []

    def add() -> str:
        ran.append(1)
        return "3"

    replies = Replies(tool_calls=True)
    session = session_of(fake(*script))
    for fork in (session.fork(), session.fork()):
        reply = fork.respond("1 + 2?", tools={"add": add}, reuse=replies)
        assert reply.text == "Three."
    assert len(ran) == 2


def test_a_streamed_reply_is_neither_kept_nor_taken(provider: Provider) -> None:
    session = session_of(provider.client)
    list(session.fork().stream("Hello"))
    session.fork().respond("Hello", reuse="deterministic")
    list(session.fork().stream("Hello"))
    assert provider.asked == 3
    with pytest.raises(TypeError, match="reuse"):
        session.stream("Hello", reuse="deterministic")


# Samples


def test_samples_are_asked_for_until_they_are_there_and_drawn_then(provider: Provider) -> None:
    replies = Replies("samples", samples=3, random=Random(5))
    session = session_of(provider.client, {})
    texts = [session.fork().respond("Hello", reuse=replies).text for _ in range(63)]
    assert texts[:3] == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert provider.asked == 3
    drawn = Counter(texts[3:])
    assert set(drawn) == set(texts[:3])
    assert min(drawn.values()) >= 10
    again = Random(5)
    assert texts[3:] == [again.choice(texts[:3]) for _ in range(60)]


def test_samples_at_once_are_as_many_calls_as_samples(held: Provider) -> None:
    replies = Replies("samples", samples=3, random=Random(5))
    session = session_of(held.client, {})
    request = session.request("Hello")
    with ThreadPoolExecutor(12) as pool:
        forks = [session.fork() for _ in range(12)]
        futures = [pool.submit(fork.respond, "Hello", reuse=replies) for fork in forks]
        until(lambda: replies.waiting(request) == 9 and held.asked == 3)
        held.free.set()
        texts = Counter(future.result().text for future in futures)
    assert held.asked == 3
    assert set(texts) == {"Answer 0.", "Answer 1.", "Answer 2."}
    assert sum(fork.ledger.requests for fork in forks) == 3


# At once


def test_equal_requests_of_threads_are_one_call(held: Provider) -> None:
    session, count = session_of(held.client), 16
    replies = Replies()
    with ThreadPoolExecutor(count) as pool:
        forks = [session.fork() for _ in range(count)]
        futures = [pool.submit(fork.respond, "Hello", reuse=replies) for fork in forks]
        until(lambda: replies.waiting(session.request("Hello")) == count - 1)
        held.free.set()
        assert {future.result().text for future in futures} == {"Answer 0."}
    assert held.asked == 1
    assert sum(fork.ledger.requests for fork in forks) == 1
    assert len(replies._flights) == 0


def test_equal_requests_of_tasks_are_one_call(held: Provider) -> None:
    session, replies = session_of(), Replies()
    request, texts = session.request("Hello"), list[str]()

    async def ask(client: Any) -> None:
        reply = await session.fork().arespond("Hello", client=client, reuse=replies)
        texts.append(reply.text)

    async def main() -> None:
        client = openai.AsyncOpenAI(base_url=held.server.openai_url, api_key="k", max_retries=0)
        async with client, anyio.create_task_group() as group:
            for _ in range(60):  # more than anyio has worker threads
                group.start_soon(ask, client)
            while replies.waiting(request) < 59:
                await anyio.lowlevel.checkpoint()
            held.free.set()

    anyio.run(main)
    assert (texts, held.asked) == (["Answer 0."] * 60, 1)


def test_threads_and_tasks_wait_for_each_other(held: Provider) -> None:
    session, replies = session_of(held.client), Replies()
    request = session.request("Hello")

    async def ask() -> str:
        return (await session.fork().arespond("Hello", client=SimpleNamespace(), reuse=replies)).text

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(session.fork().respond, "Hello", reuse=replies)
        held.came.acquire()
        task = pool.submit(anyio.run, ask)
        until(lambda: replies.waiting(request) == 1)
        held.free.set()
        assert (leader.result().text, task.result()) == ("Answer 0.", "Answer 0.")


def test_a_leader_that_fails_passes_its_error_on_only_to_itself() -> None:
    def reply(number: int) -> Reply | str:
        return Reply(status=500, message="no") if number == 0 else f"Answer {number}."

    with Provider(held=True, replies=reply) as provider, ThreadPoolExecutor(4) as pool:
        session, replies = session_of(provider.client), Replies()
        leader = pool.submit(session.fork().respond, "Hello", reuse=replies)
        provider.came.acquire()
        others = [pool.submit(session.fork().respond, "Hello", reuse=replies) for _ in range(3)]
        until(lambda: replies.waiting(session.request("Hello")) == 3)
        provider.free.set()
        with pytest.raises(openai.InternalServerError):
            leader.result()
        assert {future.result().text for future in others} == {"Answer 1."}
        assert (provider.asked, len(replies._flights)) == (2, 0)


def test_an_answer_that_cannot_be_shared_lets_all_go_on_alone() -> None:
    def reply(number: int) -> Reply:
        return Reply(calls=(Call("add", "{}", id=f"c{number}"),))

    with Provider(held=True, replies=reply) as provider, ThreadPoolExecutor(4) as pool:
        session, replies = session_of(provider.client), Replies()
        futures = [pool.submit(session.fork().respond, "Hello", reuse=replies) for _ in range(4)]
        until(lambda: replies.waiting(session.request("Hello")) == 3)
        provider.free.set()
        assert len({future.result().call_ids for future in futures}) == 4
        assert (provider.asked, len(replies._flights)) == (4, 0)


def test_cancelled_waiters_leave_nothing_behind(held: Provider) -> None:
    session, replies = session_of(held.client), Replies()
    request, forks = session.request("Hello"), [session.fork() for _ in range(5)]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for fork in forks:
                ask = partial(fork.arespond, "Hello", client=SimpleNamespace(), reuse=replies)
                group.start_soon(ask)
            while replies.waiting(request) < len(forks):
                await anyio.lowlevel.checkpoint()
            group.cancel_scope.cancel()

    with ThreadPoolExecutor(1) as pool:
        leader = pool.submit(session.fork().respond, "Hello", reuse=replies)
        held.came.acquire()
        anyio.run(main)
        assert replies.waiting(request) == 0
        assert [fork.messages for fork in forks] == [()] * 5
        held.free.set()
        assert leader.result().text == "Answer 0."
    assert len(replies._flights) == 0


def test_a_cancelled_leader_hands_over(held: Provider) -> None:
    session, replies, texts = session_of(), Replies(), list[str]()
    request = session.request("Hello")

    async def main() -> None:
        client = openai.AsyncOpenAI(base_url=held.server.openai_url, api_key="k", max_retries=0)

        async def ask() -> None:
            texts.append((await session.fork().arespond("Hello", client=client, reuse=replies)).text)

        async with client, anyio.create_task_group() as group:
            with anyio.CancelScope() as first:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(ask)
                    await anyio.to_thread.run_sync(held.came.acquire)
                    group.start_soon(ask)
                    while replies.waiting(request) < 1:
                        await anyio.lowlevel.checkpoint()
                    first.cancel()
            await anyio.to_thread.run_sync(held.came.acquire)  # the one who waited asks now
            held.free.set()

    anyio.run(main)
    assert (texts, held.asked, len(replies._flights)) == (["Answer 1."], 2, 0)


def test_turns_keep_replies_for_as_long_as_the_tier_says(provider: Provider) -> None:
    session = session_of(provider.client)
    start = session.fork()
    session.respond("Hello", reuse="deterministic")
    assert start.fork().respond("Hello", reuse="deterministic").text == "Answer 0."
    assert session.family.turns.keep_turns == 2
    replies = Replies(turns=TurnTier(keep_turns=1))
    for text in ("Answer 1.", "Answer 2."):  # another tier, which forgets what was not used in this turn
        assert start.fork().respond("Hello", reuse=replies).text == text
        replies.turns.end_turn(next(iter(replies.turns._turns)))


# In a store


def test_a_store_keeps_replies_beyond_the_session(provider: Provider, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    for _ in range(3):
        with open_store(url) as store:
            session = session_of(provider.client, store=store)
            reply = session.respond("Hello", reuse="deterministic")
            assert (reply.text, reply) == ("Answer 0.", Message("assistant", "Answer 0."))
            assert store.verify() == ()
    assert provider.asked == 1


def test_stores_of_two_processes_make_one_call(held: Provider, tmp_path: Any) -> None:
    """Two stores of one file, as two processes have them: what one asks for, the other waits for."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with open_store(url) as one, open_store(url) as two, ThreadPoolExecutor(2) as pool:
        sessions = [session_of(held.client, store=store) for store in (one, two)]
        first = pool.submit(sessions[0].respond, "Hello", reuse="deterministic")
        held.came.acquire()
        second = pool.submit(sessions[1].respond, "Hello", reuse="deterministic")
        held.free.set()
        assert (first.result().text, second.result().text) == ("Answer 0.", "Answer 0.")
    assert held.asked == 1
    assert [session.ledger.requests for session in sessions] == [1, 0]


ASKER = """
import sys
import openai
from llmbuffer import Session, StableContext
from llmbuffer.store import open_store

with open_store(sys.argv[1]) as store, openai.OpenAI(base_url=sys.argv[2], api_key="k") as client:
    session = Session(StableContext("gpt-5.5", params={"temperature": 0}), client=client, store=store)
    print(session.respond("Hello", reuse="deterministic").text, session.ledger[0].kind)
"""


def test_processes_make_one_call(held: Provider, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    command = [sys.executable, "-c", ASKER, url, held.server.openai_url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    held.came.acquire()
    held.free.set()
    said = sorted(process.communicate(timeout=60)[0].split() for process in processes)
    assert said == [["Answer", "0.", "request"], ["Answer", "0.", "reused"], ["Answer", "0.", "reused"]]
    assert held.asked == 1


def test_tasks_share_through_a_store_too(provider: Provider) -> None:
    async def ask(session: Session) -> str:
        client = openai.AsyncOpenAI(base_url=provider.server.openai_url, api_key="k", max_retries=0)
        async with client:
            return (await session.arespond("Hello", client=client, reuse="deterministic")).text

    with open_store("memory:") as store:
        assert [anyio.run(ask, session_of(store=store)) for _ in range(2)] == ["Answer 0."] * 2
    assert provider.asked == 1


def test_samples_in_a_store_each_have_a_place(provider: Provider) -> None:
    with open_store("memory:") as store:
        for number in range(6):
            replies = Replies("samples", samples=3, store=store, random=Random(number))
            session_of(provider.client, {}).respond("Hello", reuse=replies)
        key = reply_key(session_of(params={}).request("Hello"))
        kept = store.replies(f"{key.stable}/{key.dynamic}", 3)
        assert [each.text for each in kept] == ["Answer 0.", "Answer 1.", "Answer 2."]
    assert provider.asked == 3


def test_a_holder_that_died_is_waited_for_until_its_lease_ends(provider: Provider) -> None:
    class Watched(Store):
        looks = 0

        def claim_reply(self, *arguments: Any) -> int | None:
            self.looks += 1
            return super().claim_reply(*arguments)

    clock = FakeClock(100.0)
    with Watched(MemoryBackend(), clock=clock) as store, ThreadPoolExecutor(1) as pool:
        session = session_of(provider.client)
        key = reply_key(session.request("Hello"))
        assert store.claim_reply(f"{key.stable}/{key.dynamic}", 1, "dead", 60.0) == 0
        future = pool.submit(session.respond, "Hello", reuse=Replies(store=store))
        until(lambda: store.looks >= 3)
        assert not future.done()
        clock.advance(60)
        assert future.result().text == "Answer 0."


def test_a_failure_leaves_no_lease(tmp_path: Any) -> None:
    with open_store("memory:") as store:
        session = session_of(fake(RuntimeError("down"), said("Hi.")), store=store)
        with pytest.raises(RuntimeError, match="down"):
            session.respond("Hello", reuse="deterministic")
        assert session.respond("Hello", reuse="deterministic").text == "Hi."


def test_a_store_that_fails_is_done_without(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def claim_reply(self, *_: Any) -> int:
            raise StoreError("the disk is gone")

    session = session_of(fake(said("Hi.")))
    assert session.respond("A secret", reuse=Replies(store=Broken())).text == "Hi."
    assert "the disk is gone" in caplog.text
    assert "secret" not in caplog.text


def test_anthropic_replies_are_re_used_through_the_real_sdk() -> None:
    with Provider() as provider:
        client = anthropic.Anthropic(base_url=provider.server.anthropic_url, api_key="k", max_retries=0)
        with client:
            context = StableContext(
                "claude-sonnet-5.5", "Be kind.", params={"temperature": 0, "max_tokens": 9}
            )
            session = Session(context, "anthropic", client=client)
            texts = {session.fork().respond("Hello", reuse="deterministic").text for _ in range(3)}
        assert (texts, provider.asked) == ({"Answer 0."}, 1)
