"""Sessions shared by threads: forks never see each other's tails, and no reply is lost."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.properties.naive import laid_out

from llmbuffer import Message, Observation, Segment, Session, StableContext
from llmbuffer.testing import FakeClock, assert_prefix_stable, reply

CASES = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]
THREADS, ROUNDS = 8, 25


@pytest.fixture(params=CASES, ids=[model for _, model in CASES])
def session(request: pytest.FixtureRequest) -> Session:
    dialect, model = request.param
    policy = Segment("policy", "Answer kindly and briefly. " * 50, "global")
    session = Session(StableContext(model, [policy]), dialect, clock=FakeClock())
    for turn in range(3):
        reply(session.request(f"shared {turn}"))
    return session


@pytest.fixture(autouse=True)
def often() -> Iterator[None]:
    """Threads that take turns a thousand times as often find what goes wrong between two steps."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 1_000)
    yield
    sys.setswitchinterval(interval)


def at_once(work: Callable[[int], list[str]]) -> list[list[str]]:
    """What ``THREADS`` threads return that begin together."""
    barrier = threading.Barrier(THREADS, timeout=60)

    def begin(number: int) -> list[str]:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_forks_never_see_each_others_tails(session: Session) -> None:
    shared = json.dumps(laid_out(session.request("?").body, session.dialect.name).blocks[:-2])[:-1]

    lines = [session, *(session.fork(f"worker-{number}") for number in range(1, THREADS))]

    def work(number: int) -> list[str]:
        wrong, mine = [], lines[number]
        for turn in range(ROUNDS):
            mine.append([Message("user", f"said by <{number}> in {turn}"), Message("assistant", "well")])
            request = mine.request(f"asked by <{number}> in {turn}", dynamic={"clock": f"<{number}> {turn}"})
            text = json.dumps(laid_out(request.body, mine.dialect.name).blocks)
            others = [other for other in range(THREADS) if other != number and f"<{other}>" in text]
            said = [earlier for earlier in range(turn + 1) if f"said by <{number}> in {earlier}" not in text]
            if others or said or not text.startswith(shared):
                wrong.append(f"thread {number}, turn {turn}: sees {others}, misses {said}")
            reply(request, f"answered to <{number}>")
        return wrong

    assert [wrong for found in at_once(work) for wrong in found] == []
    assert {len(line.messages) for line in lines} == {6 + 4 * ROUNDS}


def test_forks_made_while_the_parent_goes_on_hold_what_it_had_said(session: Session) -> None:
    def work(number: int) -> list[str]:
        wrong = []
        for turn in range(ROUNDS):
            if number == 0:
                session.append([Message("user", f"in {turn}"), Message("assistant", "well")])
                continue
            fork = session.fork(task=f"fork {turn} of <{number}>")
            *said, task = [message.text for message in fork.messages[6::2]]
            if said != [f"in {earlier}" for earlier in range(len(said))] or f"<{number}>" not in task:
                wrong.append(f"fork {turn} of {number}: {said}, {task}")
        return wrong

    assert [wrong for found in at_once(work) for wrong in found] == []


def test_one_session_answers_all_and_loses_none(session: Session) -> None:
    requests = [session.request(f"asked by <{number}>") for number in range(THREADS)]
    seen: list[Observation | None] = [None] * THREADS

    def work(number: int) -> list[str]:
        seen[number] = reply(requests[number], f"answered to <{number}>")
        return []

    at_once(work)
    found = [observation for observation in seen if observation is not None]
    assert sum(not observation.forked for observation in found) == 1
    assert len({id(observation.session) for observation in found}) == THREADS
    for number, observation in enumerate(found):
        tail = [message.text for message in observation.session.messages[6:]]
        assert tail == [f"asked by <{number}>", f"answered to <{number}>"]
        assert_prefix_stable([requests[number], observation.session.request("and?")])


def test_a_session_shared_by_threads_takes_every_message(session: Session) -> None:
    def work(number: int) -> list[str]:
        for turn in range(ROUNDS):
            session.append([Message("user", f"{number}.{turn}"), Message("assistant", f"{number}.{turn}")])
        return []

    at_once(work)
    texts = [message.text for message in session.messages[6:]]
    assert texts[::2] == texts[1::2]
    assert sorted(texts[::2]) == sorted(
        f"{number}.{turn}" for number in range(THREADS) for turn in range(ROUNDS)
    )
    body = laid_out(session.request("?").body, session.dialect.name).blocks
    assert [text for text in texts if not any(text in block for block in body)] == []
