"""Replayed compaction: whole histories, the ways to keep them small, and what each of them costs and keeps."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmbuffer import Message, ReplayError
from llmbuffer.cli.app import app
from llmbuffer.compaction.pairs import unpaired
from llmbuffer.replay import COMPACTIONS, Figures, Recording, read_recordings, replay
from llmbuffer.replay.compactions import Window, unfolded, way_of
from llmbuffer.replay.keeping import Keeping, keeping
from llmbuffer.replay.summaries import LENGTH, Summaries
from llmbuffer.snapshot import message_tokens
from llmbuffer.tokens import EstimateCounter

TRACES = Path(os.environ.get("LLMBUFFER_TRACES") or Path(__file__).resolve().parents[3] / "shared" / "traces")
COUNTER = EstimateCounter()
WINDOW = 12_000
MODELS = [
    ("anthropic", "claude-sonnet-5.5"),
    ("anthropic", "claude-opus-4.5"),
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai", "gpt-4o"),
]


def said(turns: int, found: int = 120) -> list[dict[str, Any]]:
    """Turns of two calls: one that looks something up, and the answer."""
    messages: list[dict[str, Any]] = []
    for turn in range(turns):
        call = {"id": f"call_{turn}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        messages += [
            {"role": "user", "content": f"Question {turn}: where is it?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {
                "role": "tool",
                "tool_call_id": f"call_{turn}",
                "content": f"{turn}: " + "a shelf, a row. " * found,
            },
            {"role": "assistant", "content": f"Answer {turn}: over there. " * 10},
        ]
    return messages


def recording_of(folder: Path, messages: list[dict[str, Any]], **more: Any) -> Recording:
    path = folder / "some.jsonl"
    line = {
        "id": "some-session-1",
        "system": "Look before you answer. " * 100,
        "tools": [],
        "messages": messages,
    }
    path.write_text(json.dumps({**line, **more}), encoding="utf-8")
    (recording,) = read_recordings(path)
    return recording


def event(before: int, first_kept: int, summary: str = "They looked.") -> dict[str, Any]:
    return {
        "type": "compaction",
        "before_message": before,
        "first_kept_message": first_kept,
        "summary": summary,
    }


@pytest.fixture
def folded(tmp_path: Path) -> Recording:
    return recording_of(tmp_path, said(40), events=[event(80, 60), event(120, 100, "They looked again.")])


def run(recording: Recording, name: str, window: int = WINDOW, model: str = "claude-sonnet-5.5") -> Figures:
    dialect = next(dialect for dialect, known in MODELS if known == model)
    result = replay(
        [recording],
        dialect=dialect,
        model=model,
        compaction=name,  # type: ignore[arg-type]  # one of them
        window=window,
        counter=COUNTER,
    )
    return result.total


def texts_of(recording: Recording) -> list[str]:
    return [message.text for call in recording.calls for message in call.new]


def test_a_recorded_compaction_is_taken_out_again(folded: Recording, tmp_path: Path) -> None:
    plain = recording_of(tmp_path, said(40))
    whole = unfolded(folded, takes_names=True)
    assert [call.new for call in whole.calls] == [call.new for call in plain.calls]
    assert [call.keep for call in whole.calls] == [call.keep for call in plain.calls]
    assert [(fold.call, fold.first_kept) for fold in folded.folds] == [(40, 60), (60, 100)]
    assert "looked" not in repr(folded.folds)


def test_as_recorded_sends_what_the_recording_sent(folded: Recording) -> None:
    whole = unfolded(folded, takes_names=True)
    window = Window(WINDOW, 0, lambda message: message_tokens(message, COUNTER.count))
    way = way_of("recorded", whole, window, Summaries(folded, 0, COUNTER.count))
    sent: list[Message] = []
    for index, (call, recorded) in enumerate(zip(whole.calls, folded.calls, strict=True)):
        kept = way(index, call.new)
        sent = [*sent[: recorded.keep], *recorded.new]
        assert list(kept.messages) == sent
        assert bool(kept.folded) == kept.compacted == (index in (40, 60))


@pytest.mark.parametrize("name", ["sliding-window", "clear-one", "fresh-summary"])
def test_each_way_fits_the_window_with_calls_beside_results(folded: Recording, name: str) -> None:
    whole = unfolded(folded, takes_names=True)
    window = Window(WINDOW, 1_000, lambda message: message_tokens(message, COUNTER.count))
    way = way_of(name, whole, window, Summaries(whole, 0, COUNTER.count))
    compacted = 0
    for index, call in enumerate(whole.calls):
        kept = way(index, call.new)
        compacted += kept.compacted
        assert window.size(kept.messages) <= window.room
        assert unpaired(kept.messages) is None
        assert kept.messages[0] is whole.calls[0].new[0]
        assert kept.messages[-1] is call.new[-1]
    assert compacted > 0


@pytest.mark.parametrize("model", [model for _, model in MODELS])
def test_auto_is_the_cheapest_that_fits(tmp_path: Path, model: str) -> None:
    recording = recording_of(tmp_path, said(40, 500))
    found = {name: run(recording, name, 30_000, model) for name in COMPACTIONS}
    costs = {
        name: figures.cost_usd
        for name, figures in found.items()
        if figures.retention is not None and not figures.retention.over_window
    }
    assert {"auto", "sliding-window", "clear-one", "fresh-summary"} <= set(costs)
    assert min(costs, key=lambda name: costs[name] or 0.0) == "auto"


def test_what_stays_is_told_beside_the_cost(folded: Recording) -> None:
    never, auto = run(folded, "never"), run(folded, "auto")
    assert never.retention is not None
    assert auto.retention is not None
    assert (never.retention.retained_end, never.retention.compactions) == (1.0, 0)
    assert never.retention.over_window > 0
    assert auto.retention.over_window == 0
    assert 0 < auto.retention.retained_end < auto.retention.retained_mean < 1
    assert auto.requests == never.requests + auto.retention.summary_requests
    assert auto.to_json()["retained_mean"] == auto.retention.retained_mean


def test_summary_calls_of_a_session_read_the_cache_and_others_do_not(tmp_path: Path) -> None:
    talk = [
        {"role": role, "content": f"{number}: " + "well, as I said. " * 60}
        for number in range(120)
        for role in ("user", "assistant")
    ]
    recording = recording_of(tmp_path, talk)
    auto, fresh = run(recording, "auto").retention, run(recording, "fresh-summary").retention
    assert auto is not None
    assert fresh is not None
    assert auto.summary_requests > 0
    assert (auto.summary_read_share or 0) >= 0.95
    assert fresh.summary_requests > 0
    assert fresh.summary_read_tokens == 0


def test_summaries_are_the_recorded_ones_and_then_as_long_as_told(folded: Recording) -> None:
    one, two = (Summaries(folded, 7, COUNTER.count) for _ in range(2))
    texts = [one.next() for _ in range(3)]
    assert texts[:2] == ["They looked.", "They looked again."]
    assert 0.9 * LENGTH < COUNTER.count(texts[2]) <= LENGTH
    assert [two.next() for _ in range(3)] == texts


def test_a_replay_is_the_same_each_time(folded: Recording) -> None:
    assert run(folded, "auto").to_json() == run(folded, "auto").to_json()


def test_the_layout_answers_with_summaries_through_the_sessions_own_client(folded: Recording) -> None:
    whole, layout = keeping(
        folded,
        Keeping(name="never", window=WINDOW, seed=0, dialect=_dialect(), model="gpt-5.5", counter=COUNTER),
    )
    prompt = layout.ask(whole.calls[0], {}, 0.0)
    assert prompt.history is not None
    assert prompt.history.kept == prompt.history.whole > 0


def _dialect() -> Any:
    from llmbuffer import get_dialect

    return get_dialect("openai").bind("gpt-5.5")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compaction": "sometimes"}, "unknown compaction 'sometimes': use one of never, auto, recorded"),
        ({"compaction": "auto", "layout": "recorded"}, "replayed in the layout 'buffered'"),
        ({"compaction": "auto", "noise": ["clock"]}, "without noise"),
        ({"window": 5_000}, "the window is 5000: give tokens, 1 or more, and a compaction"),
        ({"compaction": "auto", "window": 0}, "the window is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ReplayError, match=reason):
        replay([], **options)


def test_a_team_is_refused_by_line() -> None:
    from llmbuffer.replay import Agent, Call

    agents = (Agent("a", "You are a.", ()), Agent("b", "You are b.", ()))
    call = Call(0, 0, (Message("user", "hi"),), Message("assistant", "Hello."))
    team = Recording("team-1", None, agents, (call,), file="some.jsonl", line=3)
    with pytest.raises(ReplayError, match=r"some.jsonl:3: a recording of several agents"):
        replay([team], compaction="never")


def test_the_command_prints_both_tables_and_json(folded: Recording) -> None:
    file, runner = folded.file, CliRunner()
    options = ["replay", file, "--compaction", "auto", "--window", str(WINDOW), "--dialect", "anthropic"]
    shown = runner.invoke(app, options)
    assert shown.exit_code == 0
    assert "compaction auto, window 12,000, simulated" in " ".join(shown.stdout.split())
    assert "kept at end" in shown.stdout
    document = json.loads(runner.invoke(app, [*options, "--json"]).stdout)
    assert (document["compaction"], document["window"]) == ("auto", WINDOW)
    (row,) = document["rows"]
    assert row["measured"] is False
    assert row["over_window"] == 0
    assert 0 < row["retained_end"] < 1


def test_on_recorded_long_sessions_auto_costs_less_than_what_was_recorded() -> None:
    file = TRACES / "long_public.jsonl.gz"
    if not file.exists():
        pytest.skip(f"no recordings at {file}")
    with gzip.open(file) as lines:
        assert lines.readline().startswith(b"{")
    recordings = list(read_recordings(file))
    for recording in recordings:
        recorded = run(recording, "recorded", 150_000)
        auto = run(recording, "auto", 150_000)
        assert auto.retention is not None
        assert auto.retention.over_window == 0
        assert (auto.cost_usd or 0) < (recorded.cost_usd or 0)
        assert (auto.retention.summary_read_share or 1.0) >= 0.95
