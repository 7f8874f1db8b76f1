"""Fan-out on a real llama.cpp server: its slots share nothing by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.benchmarks.engine import PARAMS, client_of, computed, text_of
from tests.engine.conftest import PREFIX

from llmbuffer import Session, StableContext
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.engine import EngineServer
from llmbuffer.fanout import FanOutEvent, Results, fan_out
from llmbuffer.tokens import EstimateCounter

WORKERS = 4


def session_on(client: Any, system: str, lanes: int, **params: Any) -> Session:
    context = StableContext("local", system, params={**PARAMS, **params})
    return Session(context, LlamaCpp(lanes=lanes), client=client, tokens=EstimateCounter(1.0))


def work(client: Any, system: str, lanes: int, **options: Any) -> tuple[Results, list[FanOutEvent]]:
    events: list[FanOutEvent] = []
    given = [f"Count the parcels of depot {number}." for number in range(WORKERS)]
    session = session_on(client, system, lanes)
    results = fan_out(session, given, on_event=events.append, **options)
    assert results.ok, results.errors
    return results, events


def cost(results: Results) -> int:
    return computed([seen.usage for each in results for seen in each.observations if seen.usage is not None])


def most_at_once(events: list[FanOutEvent]) -> int:
    running = most = 0
    for event in events:
        running += (event.kind == "started") - (event.kind == "finished")
        most = max(most, running)
    return most


@pytest.fixture
def four_client(four: EngineServer) -> Iterator[Any]:
    with client_of(four.url) as client:
        yield client


def test_in_one_slot_the_workers_run_in_sequence_and_compute_the_prefix_once(
    client: Any, system: str
) -> None:
    results, events = work(client, system, 1)
    assert most_at_once(events) == 1
    assert PREFIX <= cost(results) < 1.4 * PREFIX


def test_of_four_slots_one_computes_the_prefix_and_the_others_get_it(four_client: Any, system: str) -> None:
    results, events = work(four_client, system, 4)
    assert most_at_once(events) == 4
    assert PREFIX <= cost(results) < 1.4 * PREFIX
    assert [len(each.observations) for each in results] == [2, 1, 1, 1]
    assert results[0].led
    assert not results[1].led
    assert all(each.usage.hit_ratio > 0.9 for each in results[1:])


def test_naively_more_than_one_slot_computes_the_prefix(four_client: Any, system: str) -> None:
    """How many is up to who comes first; a slot that has ended may serve the next one."""
    results, _ = work(four_client, system, 4, warm="never")
    assert cost(results) >= 2 * PREFIX


def test_a_server_that_saves_no_slots_gets_all_workers_into_one(model: Path) -> None:
    with EngineServer(model, slots=4, context=16_384) as server, client_of(server.url) as client:
        results, events = work(client, text_of(PREFIX, 7), 4)
    assert most_at_once(events) == 1
    assert PREFIX <= cost(results) < 1.4 * PREFIX


def test_the_slot_that_the_session_asks_for_is_the_one_that_is_copied(four_client: Any, system: str) -> None:
    session = session_on(four_client, system, 4, id_slot=2)
    session.respond("Find the depots.")
    results = fan_out(session, ["Count the parcels.", "Sum up.", "Write home."])
    assert results.ok, results.errors
    # The prefix lay in that slot: nothing of it is computed again.
    assert cost(results) < 0.4 * PREFIX
