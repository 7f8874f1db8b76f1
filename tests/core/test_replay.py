"""Replay: files into recordings, recordings through layouts and cache models, and the figures that come out."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from llmbuffer import CacheRules, LLMBufferError, Message, Price
from llmbuffer.dialects.openai_chat import OpenAIChat
from llmbuffer.errors import ReplayError, UnknownDialectError, UnknownModelError
from llmbuffer.replay import (
    Agent,
    Agreement,
    Call,
    Figures,
    Recording,
    ReplayResult,
    Reported,
    Skipped,
    read_recordings,
    replay,
    sample_recordings,
)
from llmbuffer.replay.agreement import agreement
from llmbuffer.replay.figures import sources
from llmbuffer.replay.noise import Noise
from llmbuffer.tokens import EstimateCounter

TRACES = Path(os.environ.get("LLMBUFFER_TRACES") or Path(__file__).resolve().parents[3] / "shared" / "traces")
COUNTER = EstimateCounter()
POLICY = "Look before you promise, and say plainly what you did. " * 400  # about 5,500 tokens
TOOL = {"type": "function", "function": {"name": "look", "description": "Look.", "parameters": {}}}
NOISE = ("clock", "retrieval")
MODELS = [("openai", "gpt-5.5"), ("openai", "gpt-5.6"), ("anthropic", "claude-sonnet-5.5")]


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def look(index: int, found: str) -> list[dict[str, Any]]:
    call = {"id": f"call_{index}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"call_{index}", "content": found},
    ]


def session(name: str = "some-session-1", turns: int = 4, **more: Any) -> dict[str, Any]:
    """Turns of three calls each: two that look something up, and the answer."""
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        messages.append(user(f"Question {turn}: where is it?"))
        for half in (0, 1):
            messages += look(2 * turn + half, f"Entry {turn}.{half}: " + f"shelf {turn}{half}, row 3. " * 40)
        messages.append(assistant(f"Answer {turn}: over there."))
    return {"id": name, "system": POLICY, "tools": [TOOL], "messages": messages, **more}


def team(calls: list[tuple[str, list[int], int]], pool: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    agents = {name: {"system": f"You are {name}. {POLICY}", "tools": []} for name, _, _ in calls}
    listed = [{"agent": name, "messages": places, "output": output} for name, places, output in calls]
    return {"id": "some-team-1", "agents": agents, "pool": pool, "calls": listed, **more}


def written(path: Path, *lines: object) -> Path:
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def taken(tmp_path: Path, *lines: object) -> list[Recording]:
    return list(read_recordings(written(tmp_path / "some.jsonl", *lines)))


def prompts(recording: Recording) -> list[tuple[str, list[Message], Message]]:
    """Every call's system text, messages and reply, spelled out."""
    last: dict[int, list[Message]] = {}
    found = []
    for call in recording.calls:
        last[call.agent] = [*last.get(call.agent, [])[: call.keep], *call.new]
        found.append((recording.agents[call.agent].system, last[call.agent], call.reply))
    return found


def of(messages: Sequence[dict[str, Any]]) -> list[Message]:
    return [Message.from_openai(message) for message in messages]


def replayed(recordings: Sequence[Recording], **options: Any) -> ReplayResult:
    return replay(recordings, counter=COUNTER, **options)


# Reading


def test_a_session_is_asked_once_for_each_assistant_message_but_the_first(tmp_path: Path) -> None:
    recorded = session(turns=2)
    recorded["messages"].insert(0, assistant("Welcome!"))
    [recording] = taken(tmp_path, recorded)
    asked = [
        index for index, each in enumerate(recorded["messages"]) if index and each["role"] == "assistant"
    ]
    expected = [
        (POLICY, of(recorded["messages"][:index]), of(recorded["messages"][index:])[0]) for index in asked
    ]
    assert prompts(recording) == expected


def test_a_call_holds_only_what_is_new(tmp_path: Path) -> None:
    [recording] = taken(tmp_path, session(turns=30))
    assert max(len(call.new) for call in recording.calls) == 2


def test_a_compaction_puts_the_summary_before_what_was_kept(tmp_path: Path) -> None:
    event = {
        "type": "compaction",
        "before_message": 6,
        "first_kept_message": 3,
        "tokens_before": 9,
        "summary": "{S}",
    }
    recorded = session(turns=2, events=[event])
    [recording] = taken(tmp_path, recorded)
    asked = prompts(recording)[3][1]
    summary = "was compacted into the following summary:\n\n<summary>\n{S}\n</summary>"
    assert asked[0].role == "user"
    assert asked[0].text.endswith(summary)
    assert asked[1:] == of(recorded["messages"][3:7])
    assert prompts(recording)[4][1] == [asked[0], *of(recorded["messages"][3:9])]


def test_a_team_is_asked_as_recorded(tmp_path: Path) -> None:
    pool = [user("task"), assistant("plan"), user("ledger"), assistant("done"), user("plan", name="planner")]
    calls = [("a", [0, 2], 1), ("b", [0, 4], 3), ("a", [0, 1, 2], 3), ("a", [], 1)]
    recorded = team(calls, pool)
    recorded["calls"][3]["system"] = "Another one."
    [recording] = taken(tmp_path, recorded)
    told = of(pool)
    assert [(messages, reply) for _, messages, reply in prompts(recording)] == [
        ([told[place] for place in places], told[output]) for _, places, output in calls
    ]
    assert [recording.agents[call.agent].name for call in recording.calls] == ["a", "b", "a", "a"]
    assert recording.agents[recording.calls[3].agent].system == "Another one."
    assert [call.keep for call in recording.calls] == [0, 0, 1, 0]


def test_usage_and_times_come_along(tmp_path: Path) -> None:
    usage = [
        {"i": 1, "in": 70, "out": 7, "cached": 64, "written": 6, "t": "1970-01-01T00:01:00.5Z"},
        {"i": 3, "in": 90},
    ]
    [recording] = taken(tmp_path, session(turns=1, usage=usage))
    first, second, third = recording.calls
    assert (first.reported, first.at) == (Reported(70, 7, 64), 60.5)
    assert (second.reported, second.at) == (Reported(90, 0, None), None)
    assert third.reported is None


BAD = {
    "no JSON": (
        "this is no JSON",
        "not JSON: JSON is malformed",
    ),
    "no object": ([1, 2], "not a recording: Expected `object`, got `array`"),
    "neither kind": ({"id": "x"}, "neither 'messages' (a session) nor"),
    "id is a number": ({"id": 1, "messages": []}, "Expected `str`, got `int` - at `$.id`"),
    "role": ({"id": "x", "messages": [{"role": "weird"}]}, "messages[0]: unknown role 'weird'"),
    "surrogate": ('{"id": "x", "messages": [{"role": "user", "content": "\\ud800"}]}', "not JSON: "),
    "nested": ('{"id": "x", "volatile": ' + "[" * 100_000, "not JSON: "),
    "time": (
        session(usage=[{"i": 1, "in": 1, "t": "at noon"}]),
        "Invalid RFC3339 encoded datetime - at `$.usage[0].t`",
    ),
    "negative": (session(usage=[{"i": 1, "in": -1}]), "Expected `int` >= 0"),
    "pool": (team([("a", [0, 9], 0)], [user("u")]), "calls[0]: message 9 of 1"),
    "agent": (
        {"id": "x", "agents": {}, "calls": [{"agent": "a", "messages": [], "output": 0}]},
        "calls[0]: unknown agent 'a'",
    ),
    "kept": (
        session(events=[{"type": "compaction", "before_message": 4, "first_kept_message": 99}]),
        "events: message 99 of",
    ),
}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_bad_line_is_reported_and_skipped(what: str, suffix: str, tmp_path: Path) -> None:
    line, reason = BAD[what]
    path = written(tmp_path / f"some{suffix}", session("a"), line, session("b"))
    skipped: list[Skipped] = []
    assert [recording.id for recording in read_recordings(path, skipped=skipped)] == ["a", "b"]
    [found] = skipped
    assert (found.file, found.line) == (str(path), 2)
    assert reason in found.reason
    with pytest.raises(ReplayError, match=rf"{re.escape(str(path))}:2: "):
        list(read_recordings(path))


def test_a_truncated_file_gives_what_came_before(tmp_path: Path) -> None:
    path = written(tmp_path / "some.jsonl.gz", *(session(f"s-{index}", turns=40) for index in range(40)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    skipped: list[Skipped] = []
    found = list(read_recordings(path, skipped=skipped))
    assert 0 < len(found) < 40
    assert skipped[0].line == len(found) + 1
    assert "the gzip file is damaged from here on" in skipped[0].reason


@pytest.mark.parametrize("content", [b"\x1f\x8bno gzip", b"\x1f\x8b\x08\x00" + b"\xff" * 50])
def test_a_file_that_only_begins_like_gzip_is_no_traceback(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(content)
    skipped: list[Skipped] = []
    assert list(read_recordings(path, skipped=skipped)) == []
    assert [line.line for line in skipped] == [1]


def test_gzip_is_known_by_its_content_and_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    line = json.dumps(session()).encode()
    (tmp_path / "packed.jsonl").write_bytes(gzip.compress(line))
    (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\n\n")
    for name in ("packed.jsonl", "marked.jsonl"):
        assert [recording.id for recording in read_recordings(tmp_path / name)] == ["some-session-1"]


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    path = written(tmp_path / "some.jsonl", session("a"), session("b"), "no JSON")
    read: list[int] = []
    recordings = read_recordings(path, watch=read.append)
    assert next(recordings).id == "a"
    assert next(recordings).id == "b"
    with pytest.raises(ReplayError):
        next(recordings)
    assert read == sorted(read)


def test_a_missing_file_and_a_folder_are_errors_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read_recordings(tmp_path / "none.jsonl"))
    with pytest.raises(OSError, match="directory"):
        list(read_recordings(tmp_path))


def test_reprs_tell_no_prompt_text() -> None:
    [recording] = sample_recordings()
    shown = f"{recording!r} {recording.agents[0]!r} {recording.calls[0]!r}"
    assert "Brambleway" not in shown
    assert "halfway" not in shown


# Layouts


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_without_noise_every_layout_reads_the_whole_history(dialect: str, model: str, tmp_path: Path) -> None:
    recordings = taken(tmp_path, session(turns=6))
    total = {
        layout: replayed(recordings, dialect=dialect, model=model, layout=layout).total
        for layout in ("recorded", "default", "buffered")
    }
    assert total["recorded"] == total["default"]
    assert total["buffered"].input_tokens == total["recorded"].input_tokens
    assert total["buffered"].ceiling == total["recorded"].ceiling
    share = total["buffered"].share_of_ceiling
    assert share is not None
    assert share > (0.98 if model == "gpt-5.5" else 0.9999)


def test_the_ceiling_is_what_was_sent_before(tmp_path: Path) -> None:
    """In an append-only session that is the whole prompt before, whatever a provider would have served."""
    [recording] = taken(tmp_path, session(turns=3))
    total = replayed([recording]).total
    sums = [
        replayed([Recording("x", None, recording.agents, recording.calls[:n])]).total.input_tokens
        for n in range(10)
    ]
    inputs = [after - before for before, after in pairwise(sums)]
    assert len(inputs) == total.requests == 9
    assert total.ceiling == sum(inputs[:-1])


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_noise_ruins_the_default_layout_and_not_the_buffered_one(
    dialect: str, model: str, tmp_path: Path
) -> None:
    recordings = taken(tmp_path, session(turns=8))
    options: dict[str, Any] = {"dialect": dialect, "model": model, "noise": NOISE, "seed": 7}
    default = replayed(recordings, layout="default", **options).total
    buffered = replayed(recordings, layout="buffered", **options).total
    assert default.oracle_tokens == buffered.oracle_tokens
    assert default.share_of_oracle is not None
    assert buffered.share_of_oracle is not None
    if model == "gpt-5.5":  # tools and the system text before the noise are read, the history never
        assert 0.4 < default.share_of_oracle < 0.9
    else:
        assert default.share_of_oracle == 0.0
    assert 0.9 < buffered.share_of_oracle <= 1.0
    assert default.cost_usd is not None
    assert buffered.cost_usd is not None
    assert buffered.cost_usd < 0.6 * default.cost_usd


@pytest.mark.parametrize("placement", ["turn", "tail", "sticky", "auto"])
def test_every_placement_reads_the_history(placement: str, tmp_path: Path) -> None:
    total = replayed(
        taken(tmp_path, session(turns=8)), dialect="anthropic", noise=NOISE, placement=placement
    ).total
    assert total.share_of_oracle is not None
    assert total.share_of_oracle > 0.9


def test_sticky_text_stays(tmp_path: Path) -> None:
    recordings = taken(tmp_path, session(turns=8))
    turn, sticky = (
        replayed(recordings, noise=NOISE, placement=placement).total for placement in ("turn", "sticky")
    )
    assert sticky.input_tokens > turn.input_tokens + 5_000


def test_an_agent_that_goes_back_goes_on_from_a_fork_at_the_common_beginning(tmp_path: Path) -> None:
    """An orchestrator that asks its own question at the end of the history each time, and drops it again."""
    pool = [user("task " * 300)]
    calls: list[tuple[str, list[int], int]] = []
    history = [0]
    for step in range(8):
        pool += [
            user(f"ledger {step}: " + "What next? " * 20),
            assistant(f"{step}"),
            user(f"news {step} " * 100),
        ]
        ledger, answer, news = len(pool) - 3, len(pool) - 2, len(pool) - 1
        calls.append(("orchestrator", [*history, ledger], answer))
        history.append(news)
    recordings = taken(tmp_path, team(calls, pool))
    for dialect, model in MODELS:
        total = replayed(recordings, dialect=dialect, model=model).total
        assert total.share_of_ceiling is not None
        assert total.share_of_ceiling > 0.9, model


def test_a_team_shares_one_cache_and_every_agent_has_a_session(tmp_path: Path) -> None:
    pool = [user("task"), assistant("one"), assistant("two")]
    calls = [("a", [0], 1), ("b", [0], 2), ("a", [0, 1], 2)]
    recorded = team(calls, pool)
    recorded["agents"]["b"] = recorded["agents"]["a"]
    total = replayed(taken(tmp_path, recorded), dialect="anthropic").total
    assert total.share_of_ceiling is not None
    assert total.share_of_ceiling > 0.99  # b reads what a wrote
    assert (total.sessions, total.requests) == (1, 3)


def test_a_name_goes_into_the_text_where_the_dialect_has_no_field_for_it(tmp_path: Path) -> None:
    recordings = taken(
        tmp_path,
        team([("a", [0], 1), ("a", [0, 1, 0], 1)], [user("task", name="planner"), assistant("one")]),
    )
    skipped: list[Skipped] = []
    for dialect in ("openai", "anthropic"):
        for layout in ("recorded", "buffered"):
            assert replayed(recordings, dialect=dialect, layout=layout, skipped=skipped).total.requests == 2
    assert skipped == []


def test_a_time_in_recorded_system_texts_is_rendered_as_the_program_did(tmp_path: Path) -> None:
    pool = [user("task")]
    pool += [assistant(f"step {index}") for index in range(6)]
    calls = [("a", list(range(index + 1)), index + 1) for index in range(6)]
    recorded = team(calls, pool, volatile=["a clock"])
    recorded["agents"]["a"]["system"] = "Now: {{ CURRENT_TIME }}\n" + POLICY
    recordings = taken(tmp_path, recorded)
    assert replayed(recordings, layout="recorded").total.cache_read_tokens == 0
    assert replayed(recordings, layout="buffered").total.hit_ratio > 0.8


def test_a_recording_that_the_dialect_cannot_carry_is_skipped_whole(tmp_path: Path) -> None:
    broken = session("broken")
    broken["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{oops"
    orphan = {
        "id": "orphan",
        "messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}, assistant("y")],
    }
    recordings = taken(tmp_path, broken, session("good"), orphan)
    skipped: list[Skipped] = []
    result = replayed(recordings, dialect="anthropic", skipped=skipped)
    assert (result.total.sessions, [line.line for line in skipped]) == (1, [1, 3])
    assert result.to_json()["skipped"][0]["file"] == recordings[0].file
    assert list(result.rows) == ["good"]
    with pytest.raises(ReplayError, match=r"some\.jsonl:1: call 'call_0' of tool 'look'"):
        replayed(recordings, dialect="anthropic")


# Time


def test_at_a_steady_pace_nothing_expires_and_at_the_recorded_one_it_does(tmp_path: Path) -> None:
    usage = [
        {"i": index, "in": 1, "t": f"2026-01-01T00:{7 * minute:02}:00"}
        for minute, index in enumerate((1, 3, 5))
    ]
    recordings = taken(tmp_path, session(turns=1, usage=usage))
    assert replayed(recordings, dialect="anthropic").total.share_of_ceiling == 1.0
    assert replayed(recordings, dialect="anthropic", pace="recorded").total.cache_read_tokens == 0
    assert replayed(recordings, model="gpt-5.6", pace="recorded").total.share_of_ceiling == 1.0  # 30 minutes


def test_calls_without_a_time_are_a_second_apart(tmp_path: Path) -> None:
    usage = [{"i": 5, "in": 1, "t": "2026-01-01T00:10:00Z"}]
    recordings = taken(tmp_path, session(turns=2, usage=usage))
    total = replayed(recordings, dialect="anthropic", pace="recorded").total
    assert total.share_of_ceiling == 1.0


# Noise


def noise_of(recording: Recording, seed: int = 7, kinds: Sequence[str] = NOISE) -> list[dict[str, str]]:
    drawn = Noise(recording, kinds, seed, COUNTER.count)
    return [drawn.at(index, float(index)) for index in range(len(recording.calls))]


def test_noise_is_drawn_by_seed_and_recording() -> None:
    [recording] = sample_recordings()
    assert noise_of(recording) == noise_of(recording)
    assert noise_of(recording)[0]["retrieved"] != noise_of(recording, seed=8)[0]["retrieved"]
    other = Recording("other", None, recording.agents, recording.calls)
    assert noise_of(recording)[0]["retrieved"] != noise_of(other)[0]["retrieved"]
    assert set(noise_of(recording, kinds=["clock"])[0]) == {"clock"}
    assert noise_of(recording, kinds=[]) == [{}] * len(recording.calls)


def test_a_passage_has_300_to_800_tokens_and_changes_when_a_user_turn_begins() -> None:
    [recording] = sample_recordings()
    said = noise_of(recording)
    assert all(300 <= COUNTER.count(texts["retrieved"]) <= 800 for texts in said)
    for index, call in enumerate(recording.calls[1:], 1):
        assert (said[index]["retrieved"] != said[index - 1]["retrieved"]) is call.begins_turn


def test_the_clock_goes_on_at_each_call() -> None:
    [recording] = sample_recordings()
    said = noise_of(recording)
    assert said[0]["clock"] == "Current time: 2026-03-01 09:00:00"
    assert said[18]["clock"] == "Current time: 2026-03-01 09:00:18"


def test_passages_come_from_what_tools_returned_else_from_what_users_said(tmp_path: Path) -> None:
    with_tools = session()
    without = {
        "id": "talk-1",
        "messages": [user("only the user says this. " * 60), assistant("and the agent that.")],
    }
    one, other = taken(tmp_path, with_tools, without)
    assert "shelf" in noise_of(one)[0]["retrieved"]
    assert "Question" not in noise_of(one)[0]["retrieved"]
    assert "the user says" in noise_of(other)[0]["retrieved"]
    silent = {"id": "silent-1", "messages": [user(""), assistant("Hm?")]}
    assert noise_of(taken(tmp_path, silent)[0], kinds=["retrieval"]) == [{}]


# What providers reported


def reported(inputs: Sequence[int], cached: Sequence[int], gaps: Sequence[int]) -> list[dict[str, Any]]:
    """Usage for the calls of ``session(turns=…)``: two calls and the answer in each turn of six messages."""
    places = [6 * turn + offset for turn in range(9) for offset in (1, 3, 5)]
    at, usage = 0, []
    for place, tokens, read, gap in zip(places, inputs, cached, gaps, strict=False):
        at += gap
        time = f"2026-01-01T{at // 3600:02}:{at // 60 % 60:02}:{at % 60:02}Z"
        usage.append({"i": place, "in": tokens, "cached": read, "t": time})
    return usage


def test_the_cache_model_agrees_with_a_provider_that_keeps_its_rules(tmp_path: Path) -> None:
    """Claude Opus 4.5 as documented: nothing below 4,096 tokens, a miss after five idle minutes."""
    inputs = [4_000, 6_000, 6_400, 7_000, 7_100, 9_000]
    cached = [0, 0, 6_000, 6_400, 0, 7_100]
    usage = reported(inputs, cached, [1, 1, 299, 5, 301, 5])
    [recording] = taken(tmp_path, session(model="claude-opus-4-5", usage=usage))
    found = replayed([recording]).total.recorded
    assert found.pairs == tuple(zip(inputs, cached, cached, strict=True))
    assert found.expired == ((7_100, 0, 0),)  # the idle gap
    assert (found.relative_error, found.median_error_tokens, found.within_2_percent) == (0.0, 0.0, 1.0)
    assert replayed([recording], recorded_usage=False).total.recorded == Agreement()


def test_deepseek_reads_in_steps_of_64(tmp_path: Path) -> None:
    inputs = [1_000, 2_000, 2_100]
    usage = reported(inputs, [0, 960, 1_984], [1, 1, 1])
    [recording] = taken(tmp_path, session(model="deepseek-chat", usage=usage))
    assert [predicted for _, _, predicted in replayed([recording]).total.recorded.pairs] == [0, 960, 1_984]


def test_reads_that_nobody_reported_are_not_compared(tmp_path: Path) -> None:
    usage = [{"i": 1, "in": 70}]
    recordings = taken(
        tmp_path,
        session("a", model="claude-opus-4-5", usage=usage),
        session("b", model="my-model", usage=[{"i": 1, "in": 70, "cached": 5}]),
        session("c", usage=[{"i": 1, "in": 70, "cached": 5}]),
    )
    assert all(agreement(recording, [0.0] * 99, COUNTER) == Agreement() for recording in recordings)
    assert "recorded" not in replayed(recordings[:1]).to_json()["total"]


def test_errors_are_summed_up_in_tokens_and_as_shares() -> None:
    found = Agreement(((1_000, 900, 910), (1_000, 0, 950), (2_000, 1_900, 1_880)))
    assert found.to_json() == {
        "requests": 3,
        "recorded_read_tokens": 2_800,
        "predicted_read_tokens": 3_740,
        "relative_error": pytest.approx(940 / 2_800),
        "median_error_tokens": 20,
        "median_error_share": pytest.approx(0.01),
        "within_2_percent": pytest.approx(2 / 3),
        "left_over": {"read_less": 1, "read_nothing": 1, "read_more": 0, "expired": 0, "expired_agreed": 0},
    }
    more = Agreement(((1_000, 500, 100), (1_000, 0, 0)), expired=((1_000, 0, 0), (1_000, 500, 100)))
    assert (found + more).left_over == {
        "read_less": 1,
        "read_nothing": 1,
        "read_more": 1,
        "expired": 2,
        "expired_agreed": 1,
    }
    assert Agreement().to_json() == {"requests": 0}
    assert Agreement(((10, 0, 0),)).relative_error is None


# Figures


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["tau2-retail-1", "tau2-retail-2", "tau2-dual-1"], ["tau2-retail", "tau2-retail", "tau2-dual"]),
        (["deer-a1", "deer-b2", "deer-c3"], ["deer", "deer", "deer"]),
        (["deer1-x-y", "deer1-z-w", "deer1-v"], ["deer1", "deer1", "deer1"]),
        (["pi-refactor-full", "pi-session-full"], ["pi-refactor", "pi-session"]),
        (["mast-chatdev-3"], ["mast-chatdev"]),
        (["plain", ""], ["plain", ""]),
    ],
)
def test_rows_are_sources_by_the_pieces_of_the_id(ids: list[str], expected: list[str]) -> None:
    assert [sources(ids)[name] for name in ids] == expected


def test_figures_add_up_and_keep_what_is_unknown() -> None:
    one = Figures(
        sessions=1, requests=2, input_tokens=100, cache_read_tokens=40, cache_write_tokens=10, ceiling=50
    )
    total = one + one + Figures(oracle_tokens=5, history_read_tokens=4)
    assert (total.fresh_tokens, total.hit_ratio, total.ceiling_ratio) == (100, 0.4, 0.5)
    assert (total.share_of_ceiling, total.share_of_oracle) == (0.8, 0.8)
    assert (one + Figures(cost_usd=None)).cost_usd is None
    nothing = Figures()
    assert (nothing.hit_ratio, nothing.share_of_ceiling, nothing.share_of_oracle) == (0.0, None, None)
    assert Figures(oracle_tokens=0, history_read_tokens=0).share_of_oracle is None


def test_the_document_has_the_keys_that_every_command_uses(tmp_path: Path) -> None:
    document = replayed(
        taken(tmp_path, session("a-b-1"), session("a-b-2")), noise=["clock"], seed=3
    ).to_json()
    json.dumps(document, allow_nan=False)
    keys = "requests input_tokens cache_read_tokens cache_write_tokens fresh_tokens output_tokens hit_ratio ceiling"
    [row] = document["rows"]
    for figures in (row, document["total"]):
        assert set(keys.split()) < set(figures)
        assert {"share_of_ceiling", "cost_usd", "ceiling_ratio", "share_of_oracle"} < set(figures)
        assert figures["measured"] is False
        parts = figures["cache_read_tokens"] + figures["cache_write_tokens"] + figures["fresh_tokens"]
        assert figures["input_tokens"] == parts
    assert (row["source"], row["sessions"]) == ("a-b", 2)
    assert [document[key] for key in ("dialect", "model", "layout", "noise", "seed", "skipped")] == [
        *("openai", "gpt-5.6", "buffered", ["clock"], 3, []),
    ]
    assert document["estimated"] is True


def test_prices_can_be_given_and_may_be_unknown(tmp_path: Path) -> None:
    recordings = taken(tmp_path, session(turns=1))
    free = {"gpt-5.5": Price(input=1, output=0, cache_read=1)}
    total = replayed(recordings, model="gpt-5.5", prices=free).total
    assert total.cost_usd == pytest.approx(total.input_tokens / 1e6)
    own = OpenAIChat(CacheRules(name="mine", match="prefix"))
    assert replayed(recordings, dialect=own, model="my-model").total.cost_usd is None


def test_output_is_as_reported_else_counted() -> None:
    def total(reported: Reported | None) -> Figures:
        call = Call(
            0, 0, (Message("user", "hi"),), Message("assistant", "a" * 400), reported
        )  # 100 tokens and framing
        return replayed([Recording("x", None, (Agent("", "", ()),), (call,))]).total

    assert total(None).output_tokens == 104
    assert total(Reported(5, 7, None)).output_tokens == 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dialect": "nope"}, UnknownDialectError, "unknown dialect 'nope'"),
        ({"model": "gpt-nope"}, UnknownModelError, "no cache rules for model 'gpt-nope' in dialect 'openai'"),
        ({"dialect": "anthropic", "model": "gpt-5.5"}, UnknownModelError, "claude-"),
        ({"layout": "best"}, ReplayError, "unknown layout 'best': use one of recorded, default, buffered"),
        ({"noise": ["wind"]}, ReplayError, "unknown noise 'wind'"),
        ({"noise": ["clock"], "layout": "recorded"}, ReplayError, "without noise"),
        ({"placement": "top"}, ReplayError, "unknown placement 'top'"),
        ({"pace": "fast"}, ReplayError, "unknown pace 'fast'"),
    ],
)
def test_wrong_options_are_clear_errors_before_anything_is_read(
    options: dict[str, Any], error: type[LLMBufferError], message: str
) -> None:
    def unread() -> Iterator[Recording]:
        pytest.fail("was read")
        yield

    with pytest.raises(error, match=re.escape(message)):
        replay(unread(), **options)


# The sample, and recorded sessions of others


def test_the_sample_is_a_support_session_with_tools() -> None:
    [recording] = sample_recordings()
    [agent] = recording.agents
    texts = [message.text for call in recording.calls for message in call.new if message.role == "user"]
    assert (len(texts), len(agent.tools)) == (12, 5)
    tokens = COUNTER.count(agent.system) + sum(COUNTER.count(json.dumps(tool)) for tool in agent.tools)
    assert 4_000 < tokens < 7_000
    assert replayed([recording]).total.share_of_ceiling == 1.0


def traces(name: str) -> Path:
    path = TRACES / f"{name}_public.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no recorded sessions at {TRACES}: set LLMBUFFER_TRACES")
    return path


def test_recorded_sessions_are_asked_as_their_notes_say() -> None:
    path, calls = traces("sessions"), 0
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line, recording in zip(lines, read_recordings(path), strict=True):
            recorded = json.loads(line)
            told = of(recorded["messages"])
            asked = [index for index, message in enumerate(told) if index and message.role == "assistant"]
            found = prompts(recording)
            calls += len(found)
            assert [(messages, reply) for _, messages, reply in found[-3:]] == [
                (told[:index], told[index]) for index in asked[-3:]
            ]
            assert len(found) == len(asked)
    assert calls == 3_101


def test_recorded_teams_are_asked_as_their_notes_say() -> None:
    path = traces("multiagent")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line, recording in zip(lines, read_recordings(path), strict=True):
            recorded = json.loads(line)
            told = of(recorded["pool"])
            expected = [
                (
                    recorded["agents"][call["agent"]]["system"],
                    [told[i] for i in call["messages"]],
                    told[call["output"]],
                )
                for call in recorded["calls"]
            ]
            assert prompts(recording) == expected


@pytest.mark.parametrize(
    ("dialect", "model", "share"), [(*MODELS[0], 0.99), (*MODELS[1], 0.998), (*MODELS[2], 0.998)]
)
def test_recorded_sessions_reach_the_ceiling(dialect: str, model: str, share: float) -> None:
    recordings = read_recordings(traces("sessions"))
    total = replay(recordings, dialect=dialect, model=model, counter=COUNTER, recorded_usage=False).total
    assert (total.sessions, total.requests) == (84, 3_101)
    assert total.share_of_ceiling is not None
    assert total.share_of_ceiling >= share


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_recorded_sessions_with_noise_keep_their_history(dialect: str, model: str) -> None:
    recordings = read_recordings(traces("sessions"))
    total = replay(
        recordings,
        dialect=dialect,
        model=model,
        noise=NOISE,
        seed=7,
        counter=COUNTER,
        recorded_usage=False,
    ).total
    assert total.share_of_oracle is not None
    assert 0.96 <= total.share_of_oracle <= 1.0


def test_predicted_reads_agree_with_those_that_providers_reported() -> None:
    rows = replay(read_recordings(traces("sessions")), layout="recorded", counter=COUNTER).rows
    found = {source: row.recorded for source, row in rows.items() if row.recorded.pairs}
    assert set(found) == {"miniswe-dschat", "pi-refactor", "pi-session"}
    for source, compared in found.items():
        assert compared.relative_error is not None
        assert abs(compared.relative_error) < 0.02, source
    assert found["miniswe-dschat"].median_error_tokens == 0
    for source in (
        "pi-refactor",
        "pi-session",
    ):  # what is left: prefixes that the provider lost within their time
        left = found[source].left_over
        assert left["expired"] == left["expired_agreed"] > 0  # every idle gap over the time to live
        assert left["read_less"] == left["read_nothing"]
        assert found[source].within_2_percent > 0.97
        assert found[source].median_error_tokens < 10


def group_chat(named: bool, turns: int = 12) -> dict[str, Any]:
    """Three agents in rotation, each with its own view of one chat: own words as the assistant's, others' as a user's."""
    names, pool, calls = (
        ("ann", "bob", "cyd"),
        [user("Build a shed.", **({"name": "guest"} if named else {}))],
        [],
    )
    views: dict[str, list[int]] = {name: [0] for name in names}
    for turn in range(turns):
        speaker, text = names[turn % 3], f"Step {turn}: " + f"board {turn}, nail 3. " * 60
        calls.append((speaker, list(views[speaker]), len(pool)))
        for name in names:
            views[name].append(len(pool))
            pool.append(
                assistant(text) if name == speaker else user(text, **({"name": speaker} if named else {}))
            )
            if name == speaker:
                calls[-1] = (speaker, calls[-1][1], len(pool) - 1)
    return team(calls, pool)


@pytest.mark.parametrize(("dialect", "model"), MODELS)
def test_agents_that_hear_each_other_share_a_transcript(dialect: str, model: str, tmp_path: Path) -> None:
    recordings = taken(tmp_path, group_chat(named=True))
    found = {
        layout: replayed(recordings, dialect=dialect, model=model, layout=layout).total
        for layout in ("buffered", "separate", "shared", "auto")
    }
    assert found["separate"].hit_ratio == found["buffered"].hit_ratio
    assert found["shared"].hit_ratio > found["separate"].hit_ratio + 0.15
    assert found["auto"] == found["shared"]
    assert [found[layout].shared_sessions for layout in ("separate", "shared", "auto")] == [None, 1, 1]
    assert found["auto"].requests == 12


@pytest.mark.moves_prefix(
    reason="agents that cannot be retold each bring another history into one transcript"
)
def test_without_names_nothing_is_retold(tmp_path: Path) -> None:
    [recording] = taken(tmp_path, group_chat(named=False))
    auto = replayed([recording], layout="auto").total
    assert auto.shared_sessions == 0
    assert auto.hit_ratio == replayed([recording], layout="separate").total.hit_ratio
    assert replayed([recording], layout="shared").total.shared_sessions == 1


def test_one_agent_is_no_team(tmp_path: Path) -> None:
    recordings = taken(tmp_path, session())
    auto = replayed(recordings, layout="auto").total
    assert (auto.shared_sessions, auto.hit_ratio) == (0, replayed(recordings).total.hit_ratio)
    together = replayed(recordings, layout="shared").total
    assert (together.requests, together.shared_sessions) == (12, 1)


def test_an_agents_own_instruction_and_noise_do_not_stay_in_the_transcript(tmp_path: Path) -> None:
    recorded = group_chat(named=True)
    recorded["pool"].append(user("Reply in one word."))
    for call in recorded["calls"]:
        call["messages"].append(len(recorded["pool"]) - 1)
    recordings = taken(tmp_path, recorded)
    assert replayed(recordings, layout="shared").total.hit_ratio > 0.8
    noisy = replayed(recordings, layout="shared", noise=NOISE, seed=7).total
    assert noisy.share_of_oracle is not None
    assert noisy.share_of_oracle > 0.8


@pytest.mark.moves_prefix(reason="the recorded program sent a shorter history")
def test_a_transcript_that_a_call_does_not_go_on_from_is_gone_back_on(tmp_path: Path) -> None:
    recorded = group_chat(named=True)
    recorded["calls"][6]["messages"] = recorded["calls"][6]["messages"][:3]
    [recording] = taken(tmp_path, recorded)
    for dialect, model in MODELS:
        total = replayed([recording], dialect=dialect, model=model, layout="shared").total
        assert total.requests == 12
        assert total.hit_ratio > 0.7


@pytest.mark.moves_prefix(reason="recorded programs replaced what they had sent, a plan among it")
def test_recorded_teams_are_laid_out_at_the_least_cost() -> None:
    recordings = list(read_recordings(traces("multiagent")))
    for dialect, model in (MODELS[2], ("openai", "gpt-4o")):
        found = {
            layout: replay(recordings, dialect=dialect, model=model, layout=layout, recorded_usage=False).rows
            for layout in ("separate", "shared", "auto")
        }
        for source, auto in found["auto"].items():
            costs = {layout: found[layout][source].cost_usd for layout in ("separate", "shared")}
            assert auto.cost_usd is not None
            assert auto.cost_usd <= 1.01 * min(cost for cost in costs.values() if cost is not None), (
                model,
                source,
            )
        for source, points in (("whowhen-captain", 0.11), ("whowhen-magentic", 0.08)):
            gain = found["auto"][source].hit_ratio - found["separate"][source].hit_ratio
            assert gain >= points, (model, source)


def test_long_sessions_and_teams_replay_without_a_skip() -> None:
    for name, requests in (("long", 679), ("multiagent", 1_026)):
        for dialect, model in MODELS:
            recordings = read_recordings(traces(name))
            result = replay(recordings, dialect=dialect, model=model, counter=COUNTER, recorded_usage=False)
            assert result.total.requests == requests
    assert list(result.rows) == [
        *("tau2-dual", "whowhen-captain", "whowhen-magentic", "sweagent-multi", "deerflow1", "mast-chatdev"),
    ]
