"""The llamacpp dialect on the real engine: what it computes, and what it reads. Tokens are asserted, never times."""

from __future__ import annotations

import json
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import openai
import pytest
from msgspec.structs import replace
from tests.benchmarks.engine import (
    PARAMS,
    WORKERS,
    as_json,
    client_of,
    computed,
    fork_case,
    plainly,
    prewarmed,
    restart_case,
    session_of,
    side_by_side,
    suffix_case,
    text_of,
    usages_of,
)
from tests.engine.conftest import PREFIX

from llmbuffer import LLMBufferError, Message, Session, StableContext, ToolCall, ToolResult, Usage
from llmbuffer.dialects.llamacpp import LlamaCpp
from llmbuffer.dialects.llamacpp_slots import (
    abroadcast_slot,
    aerase_slot,
    arestore_slot,
    asave_slot,
    broadcast_slot,
    erase_slot,
    restore_slot,
    save_slot,
)
from llmbuffer.dialects.server_counter import ServerCounter
from llmbuffer.engine import EngineServer, write_tiny_model
from llmbuffer.errors import DialectError
from llmbuffer.tokens import EstimateCounter

SLACK = 16  # tokens: the end of a message and the beginning of the next
TOOL = {
    "name": "look_up",
    "description": "Look up a parcel.",
    "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
}


# What is read


def test_the_same_prefix_with_a_new_suffix_computes_the_suffix(client: Any, system: str) -> None:
    session = session_of(client, system)
    first = session.fork("one")
    first.respond("Where is it?")
    (cold,) = usages_of(first)
    assert cold.cache_read_tokens < SLACK, "nobody sent this text before"
    suffix = "When will it come, and who signs for it?"
    second = session.fork("two")
    second.respond(suffix)
    (warm,) = usages_of(second)
    assert computed([warm]) <= len(suffix) + len("<|end|>\n<|start|>assistant\n") + SLACK
    assert warm.cache_read_tokens >= PREFIX


def test_the_same_request_again_computes_one_token(client: Any, system: str) -> None:
    first, second = (plainly(client, system, "Where is it?", id_slot=0) for _ in range(2))
    rules = LlamaCpp().rules
    assert computed([first]) > PREFIX
    assert computed([second]) == rules.recomputed == 1


def test_usage_and_timings_tell_the_same(client: Any, system: str) -> None:
    session, reads = session_of(client, system), []
    for _ in range(2):
        response = client.chat.completions.create(**session.request("Where is it?").kwargs).model_dump()
        usage = LlamaCpp().read_usage(response)
        assert usage is not None
        timings = response["timings"]
        assert (usage.cache_read_tokens, computed([usage])) == (timings["cache_n"], timings["prompt_n"])
        assert LlamaCpp().read_usage({**response, "usage": None}) == usage
        reads.append(usage.cache_read_tokens)
    assert reads[0] < SLACK < PREFIX <= reads[1]


def test_a_changed_first_token_computes_all(client: Any, system: str) -> None:
    plainly(client, system, "Where is it?")
    changed = plainly(client, f"!{system}", "Where is it?")
    assert changed.cache_read_tokens < SLACK


def test_a_reply_is_read_like_the_prompt(client: Any, system: str) -> None:
    session = session_of(client, system)
    reply = session.respond("Tell me more.", params={"max_tokens": 60})
    session.respond("And then?")
    first, second = usages_of(session)
    assert first.output_tokens == 60
    assert len(reply.text) == 60
    assert second.cache_read_tokens >= first.input_tokens + 60 - LlamaCpp().rules.recomputed
    assert LlamaCpp().rules.stores_output


def test_what_prewarm_computed_the_request_reads(client: Any, system: str) -> None:
    session = session_of(client, system)
    first = prewarmed(session)
    assert computed([first]) >= PREFIX
    assert first.output_tokens <= 1
    session.respond("Begin.")
    _, usage = usages_of(session)
    assert usage.cache_read_tokens >= PREFIX
    assert computed([usage]) <= len("Begin.<|end|>.<|start|>assistant.") + SLACK


def test_a_conversation_with_tools_computes_what_is_new(client: Any, system: str) -> None:
    context = StableContext("local", system, tools=[TOOL], params=PARAMS)
    scripted = replace(LlamaCpp().rules, stores_output=False)  # the engine never said what the script says
    session = Session(context, LlamaCpp(scripted), tokens=EstimateCounter())
    usages = []

    def ask(said: Message, user: str | None = None) -> None:
        request = session.request(user)
        response = client.chat.completions.create(**request.kwargs)
        usage = request.dialect.read_usage(response)
        request.observe(usage, said)
        assert usage is not None
        usages.append(usage)

    for turn in range(4):
        calls = [
            ToolCall(f"call_{turn}_{index}", "look_up", json.dumps({"number": index})) for index in range(2)
        ]
        ask(Message("assistant", calls), f"Where are parcels {turn} and {turn + 1}?")
        session.append(Message("tool", [ToolResult(call.id, text_of(50, turn))]) for call in calls)
        ask(Message("assistant", f"Both are on their way, {turn}."))
    assert computed(usages[:1]) > PREFIX
    for before, after in pairwise(usages):
        assert computed([after]) <= after.input_tokens - before.input_tokens + SLACK
    assert session.ledger.hit_ratio > 0.8
    assert not [entry.cache_break for entry in session.ledger if entry.cache_break is not None]


def test_dynamic_text_at_the_tail_leaves_the_prefix_alone(client: Any, system: str) -> None:
    session = session_of(client, system)
    for minute in range(4):
        session.respond("And now?", dynamic={"clock": f"12:0{minute}"})
    later = usages_of(session)[1:]
    assert all(usage.cache_read_tokens > PREFIX for usage in later)


# Slots


@pytest.mark.parametrize(("case", "share"), [(suffix_case, 0.3), (restart_case, 0.1)])
def test_the_cases_of_the_benchmark(case: Any, share: float, model: Path) -> None:
    found = case(model, PREFIX)
    assert 0 < found.buffered <= share * found.default
    row = as_json([found])["rows"][0]
    assert row["ratio"] == found.buffered / found.default


def test_workers_forked_from_one_prefix_compute_it_once(model: Path) -> None:
    found = fork_case(model, 10_000)
    assert found.prefix == 10_000
    assert found.default >= 0.9 * WORKERS * found.prefix
    assert found.buffered <= 1.1 * (found.prefix + found.tails)


def test_workers_in_sequence_on_one_slot_compute_the_prefix_once(client: Any, system: str) -> None:
    session = session_of(client, system)
    forks = [session.fork(task=text_of(40, worker)) for worker in range(WORKERS)]
    for fork in forks:
        fork.respond()
    usages = usages_of(*forks)
    tails = sum(usage.input_tokens - PREFIX for usage in usages)
    assert computed(usages) <= 1.1 * (PREFIX + tails)


def test_a_pinned_session_stays_in_its_slot_and_may_move(four: EngineServer, system: str) -> None:
    with client_of(four.url) as client:
        pinned = Session(
            StableContext("local", system, params=PARAMS),
            LlamaCpp(lanes=4, id_slot=3),
            client=client,
            tokens=EstimateCounter(),
        )
        erase_slot(client, 3)
        pinned.respond("One?")
        assert save_slot(client, 3, "pinned.bin").tokens == usages_of(pinned)[0].input_tokens
        erase_slot(client, 3)
        restore_slot(client, 1, "pinned.bin")
        pinned.respond("Two?", params={"id_slot": 1})
        first, second = usages_of(pinned)
        assert second.cache_read_tokens >= first.input_tokens - 1
        assert pinned.epoch == 0


def test_forks_side_by_side_keep_to_their_slots(four: EngineServer, system: str) -> None:
    with client_of(four.url) as client:
        session = session_of(client, system, lanes=4)
        prewarmed(session.fork(params={**PARAMS, "id_slot": 0}))
        saved, *restored = broadcast_slot(client, 0, range(4), "shared.bin")
        assert [state.slot for state in restored] == [1, 2, 3]
        assert {state.tokens for state in (saved, *restored)} == {saved.tokens}
        assert saved.bytes > 0
        assert {state.bytes for state in restored} == {saved.bytes}
        forks = [session.fork(params={**PARAMS, "id_slot": slot}) for slot in range(4)]
        for turn in ("One?", "And two?"):
            side_by_side([partial(fork.respond, turn) for fork in forks])
        usages = usages_of(*forks)
        assert len(usages) == 8
        assert all(usage.cache_read_tokens >= PREFIX for usage in usages)


def test_a_slot_outlives_the_server(model: Path, tmp_path: Path, system: str) -> None:
    server = EngineServer(model, slot_dir=tmp_path)
    with server, client_of(server.url) as client:
        session = session_of(client, system)
        session.respond("One?")
        saved = save_slot(client, 0, "session.bin")
        pid = server.pid
    assert server.pid is None
    with server, client_of(server.url) as client:
        assert server.pid != pid
        assert restore_slot(client, 0, "session.bin").tokens == saved.tokens
        session.respond("Two?", client=client)
        erase_slot(client, 0)
        emptied = plainly(client, system, "One?")
    first, second = usages_of(session)
    assert computed([first]) > PREFIX
    assert computed([second]) <= second.input_tokens - first.input_tokens + SLACK
    assert computed([emptied]) == emptied.input_tokens


def test_slots_with_an_asynchronous_client(four: EngineServer, system: str) -> None:
    async def main() -> list[Usage]:
        async with openai.AsyncOpenAI(base_url=f"{four.url}/v1", api_key="none", max_retries=0) as client:
            session = session_of(client, system, lanes=4)
            await session.arespond("One?", params={"id_slot": 2})
            saved = await asave_slot(client, 2, "async.bin")
            assert (await aerase_slot(client, 2)).tokens == saved.tokens
            assert (await arestore_slot(client, 1, "async.bin")).tokens == saved.tokens
            states = await abroadcast_slot(client, 1, [0, 1, 2], "again.bin")
            assert [state.slot for state in states] == [1, 0, 2]
            await session.arespond("Two?", params={"id_slot": 0})
            with pytest.raises(DialectError, match=r"slot 0 cannot be restored \('none.bin'\)"):
                await arestore_slot(client, 0, "none.bin")
        return usages_of(session)

    first, second = anyio.run(main)
    assert computed([second]) <= second.input_tokens - first.input_tokens + SLACK


def test_refusals_say_what_to_do(model: Path, client: Any) -> None:
    with pytest.raises(
        DialectError, match=r"slot 0 cannot be restored \('none.bin'\).*save a slot of the same model"
    ):
        restore_slot(client, 0, "none.bin")
    with pytest.raises(
        DialectError, match=r"slot 0 cannot be saved \('../x.bin'\).*'Invalid filename'.*plain name"
    ):
        save_slot(client, 0, "../x.bin")
    with EngineServer(model, context=512) as server, client_of(server.url) as bare:
        for ask in (partial(save_slot, bare, 0, "x.bin"), partial(erase_slot, bare, 0)):
            with pytest.raises(DialectError, match=r"start the server with a directory .*--slot-save-path"):
                ask()
        server.stop()
        with pytest.raises(openai.APIConnectionError):
            save_slot(bare, 0, "x.bin")


# Counting, and the server itself


def test_the_server_counts_its_own_tokens(client: Any, model: Path, caplog: pytest.LogCaptureFixture) -> None:
    counter = ServerCounter(client)
    texts = ["", "parcel", "é", "<|end|>", "x" * 100_000]
    assert [counter.count(text) for text in texts] == [0, 6, 2, 1, 100_000]
    assert (counter.estimated, counter.name.startswith("tokenize/http://127.0.0.1:")) == (False, True)
    with EngineServer(model, context=512) as server, client_of(server.url) as short_lived:
        counter = ServerCounter(short_lived)
        assert counter.count("parcel") == 6
        server.stop()
        assert counter.count("parcel") == 6, "it is remembered"
        assert counter.count("another") == EstimateCounter().count("another")
    assert counter.count("parcel") == EstimateCounter().count("parcel"), "one measure for one prompt"
    assert (counter.estimated, counter.name) == (True, EstimateCounter().name)
    warnings = [record.getMessage() for record in caplog.records if record.name == "llmbuffer.tokens"]
    assert [message.count("from now on, counts are estimates by characters/4") for message in warnings] == [1]


def test_a_session_counts_with_the_server(client: Any, system: str) -> None:
    context = StableContext("local", system, params=PARAMS)
    session = Session(context, "llamacpp", client=client, tokens=ServerCounter(client))
    forecast = session.request("Where is it?").forecast
    session.respond("Where is it?")
    (usage,) = usages_of(session)
    assert abs(forecast.input_tokens - usage.input_tokens) <= 60, "the frame of three messages"
    assert not forecast.estimated


def test_a_server_that_does_not_start_says_why(model: Path, tmp_path: Path) -> None:
    with pytest.raises(LLMBufferError, match=r"no llama.cpp server for .*none.gguf.*Failed to init server"):
        EngineServer(tmp_path / "none.gguf").start()
    server = EngineServer(model, context=512)
    with pytest.raises(LLMBufferError, match=r"has no address: call start\(\) first"):
        _ = server.url
    with server:
        with pytest.raises(LLMBufferError, match="runs already"):
            server.start()
        assert server.url.startswith("http://127.0.0.1:")
    server.stop()
    assert repr(server) == "EngineServer('tiny.gguf', slots=1, stopped)"


def test_the_tiny_model_is_the_same_each_time(model: Path, tmp_path: Path) -> None:
    again, other = write_tiny_model(tmp_path / "a.gguf"), write_tiny_model(tmp_path / "b.gguf", seed=1)
    assert again.read_bytes() == model.read_bytes() != other.read_bytes()
    assert len(again.read_bytes()) < 500_000
