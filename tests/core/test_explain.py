"""Explaining two recorded requests, and a log of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.properties import faults
from typer.testing import CliRunner

from llmbuffer.breaks import CAUSES, FIXES, CacheBreak
from llmbuffer.breaks.volatile import volatile_at, volatile_in
from llmbuffer.cli.app import app
from llmbuffer.errors import MessageError
from llmbuffer.explaining import BreakDetector, explain
from llmbuffer.replay import sample_recordings
from llmbuffer.tokens import EstimateCounter
from llmbuffer.usage import Usage

LONG = "Be kind and answer in full sentences. " * 300
Body = dict[str, Any]


def chat(*said: str, system: str = LONG, **more: Any) -> Body:
    """A body in OpenAI's chat format; user and assistant take turns."""
    roles = ("user", "assistant")
    told = [{"role": roles[index % 2], "content": text} for index, text in enumerate(said)]
    return {"model": "gpt-5.5", "messages": [{"role": "system", "content": system}, *told], **more}


def claude(*said: str, marks: bool = True) -> Body:
    mark = {"cache_control": {"type": "ephemeral"}} if marks else {}
    roles = ("user", "assistant")
    told = [
        {"role": roles[index % 2], "content": [{"type": "text", "text": text}]}
        for index, text in enumerate(said)
    ]
    told[-1]["content"][-1].update(mark)  # type: ignore[attr-defined]  # built two lines above
    system = [{"type": "text", "text": LONG, **mark}]
    return {"model": "claude-sonnet-5.5", "max_tokens": 100, "system": system, "messages": told}


def tool(name: str, **schema: Any) -> Body:
    return {
        "type": "function",
        "function": {"name": name, "description": f"Does {name}.", "parameters": schema},
    }


def test_seeded_faults_of_every_cause_are_found_where_they_are() -> None:
    verdicts, alarms = faults.run(list(sample_recordings()), 4 * len(faults.FAULTS), seed=3)
    assert [verdict for verdict in verdicts if verdict.wrong] == []
    assert alarms == 0
    assert len({verdict.cause for verdict in verdicts}) >= 12


def test_a_request_that_goes_on_is_no_break() -> None:
    assert explain(chat("Hello"), chat("Hello", "Hi!", "And now?")) is None
    assert explain(chat("Hello", "Hi!"), chat("Hello")) is None  # all of it can be read
    assert explain(claude("Hello"), claude("Hello", "Hi!", "And now?")) is None


def test_parts_and_strings_of_one_text_are_the_same() -> None:
    parts = chat("Hello")
    parts["messages"][1]["content"] = [{"type": "text", "text": "Hello"}]
    assert explain(chat("Hello"), parts) is None


@pytest.mark.parametrize(
    ("before", "after", "cause", "path"),
    [
        (chat("a"), chat("a", model="gpt-4o"), "model-changed", "model"),
        (chat("a", tools=[tool("f")]), chat("a", tools=[tool("f"), tool("g")]), "tools-added", "tools[1]"),
        (chat("a", tools=[tool("f"), tool("g")]), chat("a", tools=[tool("f")]), "tools-removed", "tools[1]"),
        (
            chat("a", tools=[tool("f"), tool("g")]),
            chat("a", tools=[tool("g"), tool("f")]),
            "tools-reordered",
            "tools[0]",
        ),
        (
            chat("a", tools=[tool("f", type="object")]),
            chat("a", tools=[tool("f", type="array")]),
            "tool-schema-changed",
            "tools[0].function.parameters.type",
        ),
        (chat("a"), chat("a", system="You" + LONG), "system-changed", "messages[0].content"),
        (chat("a", "b", "c"), chat("a", "B", "c"), "history-edited", "messages[2].content"),
        (chat("a", "b", "c", "d", "e"), chat("c", "d", "e"), "history-truncated", "messages[1].content"),
        (
            chat("a", "b", "c", "d", "e"),
            chat("Summary.", "d", "e"),
            "history-truncated",
            "messages[1].content",
        ),
        (
            chat("a", reasoning_effort="low"),
            chat("a", reasoning_effort="high"),
            "params-changed",
            "reasoning_effort",
        ),
    ],
)
def test_the_cause_and_its_place(before: Body, after: Body, cause: str, path: str) -> None:
    found = explain(before, after)
    assert found is not None
    assert (found.cause, found.path) == (cause, path)
    assert found.fix == FIXES[cause]


def test_a_short_prompt_is_explained_though_nothing_was_lost() -> None:
    found = explain(chat("a", system="Be kind."), chat("a", system="Be brief."))
    assert found is not None
    assert (found.cause, found.tokens_lost, found.offset) == ("system-changed", 0, 3)
    assert "nothing was lost" in found.fix


def test_the_instructions_of_responses_are_system_text() -> None:
    before = {"model": "gpt-5.6", "instructions": LONG, "input": "Hello"}
    found = explain(before, {**before, "instructions": "You" + LONG})
    assert found is not None
    assert (found.cause, found.section, found.path) == ("system-changed", "system", "instructions")


@pytest.mark.parametrize(
    ("old", "new", "offset"), [(None, "bob", 0), ("bob", None, 0), ("bob", "bobby", 3), ("ann", "bob", 0)]
)
def test_a_field_of_a_message_is_told_by_its_own_path(old: str | None, new: str | None, offset: int) -> None:
    before, after = chat("a", "b", "c"), chat("a", "b", "c")
    for body, name in ((before, old), (after, new)):
        if name is not None:
            body["messages"][1]["name"] = name
    found = explain(before, after)
    assert found is not None
    assert (found.cause, found.path, found.offset) == ("history-edited", "messages[1].name", offset)
    after["messages"][1]["content"] = [{"type": "text", "text": "a"}]
    again = explain(before, after)
    assert again is not None
    assert again.path == "messages[1].name", "a string and a text part say the same"


def test_a_call_with_another_id_is_told_by_its_path() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    before = chat("a")
    before["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    after = copy.deepcopy(before)
    after["messages"][3]["tool_call_id"] = "2"
    found = explain(before, after)
    assert found is not None
    assert (found.path, found.before, found.after) == ("messages[3].tool_call_id", "1", "2")


SAID = tuple(f"Message {number}. " * 60 for number in range(9))


def _of(model: str, messages: int) -> Body:
    """A body of so many messages; for Claude with a breakpoint on the last one only."""
    if not model.startswith("claude"):
        return {**chat(*SAID[:messages]), "model": model}
    body = claude(*SAID[:messages])
    del body["system"][0]["cache_control"]
    return body


WHOLE = ["gpt-5.6", "deepseek-v4-pro", "claude-sonnet-5.5"]  # models that read entries or units as a whole


@pytest.mark.parametrize("model", WHOLE)
def test_a_history_cut_at_its_end_is_told_where_nothing_of_it_can_be_read(model: str) -> None:
    before, after = _of(model, 9), _of(model, 7)
    detector = BreakDetector()
    assert detector.see(before, at=0.0) is None
    unread = Usage(3_000, 1, 0, 3_000)
    for found in (explain(before, after), explain(before, after, usage=unread), detector.see(after, at=1.0)):
        assert found is not None
        assert (found.cause, found.section) == ("history-truncated", "messages")
        assert found.path.startswith("messages[7]" if model.startswith("claude") else "messages[8]")
        assert found.tokens_lost > 2_500
        assert SAID[7].startswith(found.before)
    assert explain(before, after, usage=Usage(3_000, 1, 2_990)) is None
    assert detector.see(after, at=2.0) is None


@pytest.mark.parametrize("model", [*WHOLE, "gpt-5.5"])
def test_a_cut_history_that_can_be_read_is_no_break(model: str) -> None:
    detector = BreakDetector()
    seen = [detector.see(_of(model, messages), at=float(messages)) for messages in (7, 9)]
    again = detector.see(_of(model, 7), at=10.0)  # its own entry is still there
    assert [*seen, again] == [None, None, None]
    if model == "gpt-5.5":
        assert explain(_of(model, 9), _of(model, 7)) is None


def test_a_cut_history_is_read_up_to_a_breakpoint_in_it() -> None:
    before, after = _of("claude-sonnet-5.5", 9), _of("claude-sonnet-5.5", 7)
    before["messages"][6]["content"][0]["cache_control"] = {"type": "ephemeral"}
    assert explain(before, after) is None


def test_a_cut_history_below_the_minimum_lost_nothing() -> None:
    body = {**chat(*SAID, system="Be kind."), "model": "gpt-5.6"}
    assert explain(body, {**body, "messages": body["messages"][:2]}) is None


def test_dynamic_text_that_goes_from_the_end_is_no_break() -> None:
    looked_up = {"role": "user", "content": f"<context name='retrieved'>{'Facts. ' * 2_000}</context>"}
    body = {**chat("Hello"), "model": "gpt-5.6"}
    detector = BreakDetector()
    assert detector.see({**body, "messages": [*body["messages"], looked_up]}, at=0.0) is None
    assert detector.see(body, at=1.0) is None


def test_what_else_moved_is_told_as_well() -> None:
    found = explain(chat("a", tools=[tool("f")]), chat("b", tools=[tool("g")], system="You" + LONG))
    assert found is not None
    assert found.cause == "tools-added"
    assert found.also == (
        ("system-changed", "messages[0].content"),
        ("history-edited", "messages[1].content"),
    )


def test_time_and_marks_break_what_nothing_moved() -> None:
    first, second = claude("a"), claude("a", "b", "c")
    assert explain(first, second, seconds=200) is None
    late = explain(first, second, seconds=301)
    bare = explain(first, claude("a", "b", "c", marks=False))
    never = explain(claude("a", marks=False), claude("a", "b", "c", marks=False))
    assert late is not None
    assert bare is not None
    assert never is not None
    assert [late.cause, bare.cause, never.cause] == ["expired", "breakpoint-missing", "breakpoint-missing"]
    assert min(late.tokens_lost, bare.tokens_lost, never.tokens_lost) > 2_000


def test_what_the_provider_did_not_serve_is_told_if_its_usage_is_given() -> None:
    served = explain(chat("a"), chat("a", "b", "c"), usage=Usage(3_000, 10, 2_900))
    missed = explain(chat("a"), chat("a", "b", "c"), usage=Usage(3_000, 10, 0))
    assert served is None
    assert missed is not None
    assert missed.cause == "evicted-or-routed"


def test_excerpts_stay_out_of_the_repr() -> None:
    found = explain(chat("a", system="My secret is 1. " + LONG), chat("a", system="My secret is 2. " + LONG))
    assert found is not None
    assert "secret" in found.before
    assert "secret" in found.after
    assert "secret" not in repr(found) + found.sentence


def test_bodies_of_two_providers_and_no_bodies_are_refused() -> None:
    with pytest.raises(MessageError, match="two wire formats"):
        explain(chat("a"), claude("a"))
    with pytest.raises(MessageError, match="no request body"):
        explain({"prompt": "a"}, {"prompt": "b"})
    with pytest.raises(MessageError, match="a request body is a list"):
        explain([], chat("a"))  # type: ignore[arg-type]  # what people do


def test_every_cause_has_a_fix() -> None:
    assert set(FIXES) == set(CAUSES)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Today is Monday, November 3, 2026", ["timestamp"]),
        ("2026-11-22T10:30:05.123Z", ["timestamp"]),
        ("at 1763806205 and 1763806205123", ["timestamp", "timestamp"]),
        ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", ["uuid"]),
        ("req_8fj2kd93jd82", ["random-id"]),
        ("Version 1.2.3 costs 100 USD, 12 % off; call 555-0100; section 4.2", []),
        ("The ratio 16:9 is", []),
    ],
)
def test_volatile_text_is_recognised(text: str, kinds: list[str]) -> None:
    assert [found.kind for found in volatile_in(text)] == kinds


def test_a_set_in_another_order_is_volatile() -> None:
    assert volatile_at("Tags: {'b', 'a'}", "Tags: {'a', 'b'}", 8) == "unordered"
    assert volatile_at("Tags: {'b', 'a'}", "Tags: {'b', 'c'}", 13) is None


class TestDetector:
    def test_one_fault_is_one_alarm(self) -> None:
        detector = BreakDetector()
        bodies = [chat("a"), chat("a", "b", "c"), chat("a", "b", "c", system="New. " + LONG)]
        bodies.append(chat("a", "b", "c", "d", "e", system="New. " + LONG))
        found = [detector.see(body, at=float(at)) for at, body in enumerate(bodies)]
        assert [each and each.cause for each in found] == [None, None, "system-changed", None]

    def test_conversations_side_by_side_never_meet(self) -> None:
        detector = BreakDetector()
        left = [
            chat(*[f"left {number}" for number in range(count)], system="L" + LONG) for count in (1, 3, 5)
        ]
        right = [
            chat(*[f"right {number}" for number in range(count)], system="R" + LONG) for count in (1, 3, 5)
        ]
        found = [detector.see(body, at=0.0) for pair in zip(left, right, strict=True) for body in pair]
        assert found == [None] * 6

    def test_agents_that_share_a_history_are_told_apart_by_name(self) -> None:
        detector = BreakDetector()
        said = ["a", "b", "c"]
        seen = [
            detector.see(chat(*said[: 1 + turn], system=f"{agent} {LONG}"), at=0.0, agent=agent)
            for turn in range(3)
            for agent in ("ann", "bob")
        ]
        assert seen == [None] * 6

    def test_a_sibling_that_came_too_early_is_told(self) -> None:
        detector = BreakDetector()
        usage = Usage(3_000, 10, 0)
        assert detector.see(chat("a"), at=0.0, visible_at=9.0, agent="x", usage=usage) is None
        found = detector.see(chat("a", "b", "c"), at=1.0, agent="x", usage=usage)
        assert found is not None
        assert found.cause == "not-yet-visible"

    def test_only_so_many_conversations_are_remembered(self) -> None:
        detector = BreakDetector(limit=2)
        for name in "abc":
            detector.see(chat(name), at=0.0, agent=name)
        assert len(detector._known) == 2

    def test_framed_text_goes_with_its_turn_and_no_earlier(self) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        turn = [
            {"role": "user", "content": "Where is it?"},
            {"role": "user", "content": '<context name="found">' + "a parcel " * 900 + "</context>"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "in Lyon"},
            {"role": "user", "content": "Remember to be brief."},
        ]
        later = [
            *turn,
            {"role": "assistant", "content": "In Lyon. " * 600},
            {"role": "user", "content": "And now?"},
        ]
        for said, alarms in ((turn, 0), (later, 1)):
            detector, head = BreakDetector(), chat()["messages"]
            first = {"model": "gpt-5.5", "messages": [*head, *said]}
            second = {
                "model": "gpt-5.5",
                "messages": [*head, said[0], *said[2:], {"role": "user", "content": "?"}],
            }
            assert detector.see(first, at=0.0) is None
            assert (detector.see(second, at=1.0) is not None) == bool(alarms)

    def test_recorded_sessions_raise_no_alarm(self) -> None:
        stream, random = faults.cases(list(sample_recordings()), Random(1)), Random(2)
        for _ in range(20):
            case = next(stream)
            detector = BreakDetector(dialect=case.dialect, model=case.model, counter=EstimateCounter())
            agent = random.choice((None, "agent"))
            assert detector.see(case.before, at=0.0, agent=agent) is None
            assert detector.see(case.after, at=1.0, agent=agent) is None


class TestCommand:
    @pytest.fixture
    def files(self, tmp_path: Path) -> tuple[str, str]:
        for name, body in (("a", chat("a")), ("b", chat("a", system="Secret. " + LONG))):
            (tmp_path / f"{name}.json").write_text(json.dumps(body), encoding="utf-8")
        return str(tmp_path / "a.json"), str(tmp_path / "b.json")

    def test_says_what_moved(self, files: tuple[str, str]) -> None:
        run = CliRunner().invoke(app, ["explain", *files])
        assert run.exit_code == 0
        assert run.stdout.startswith("system-changed at messages[0].content: ")
        assert "Secret" not in run.stdout

    def test_speaks_json_and_gives_exit_codes(self, files: tuple[str, str]) -> None:
        run = CliRunner().invoke(app, ["explain", *files, "--json", "--exit-code", "--show-text"])
        assert run.exit_code == 1
        found = json.loads(run.stdout)["break"]
        assert (found["cause"], found["after"][:7], found["measured"]) == ("system-changed", "Secret.", False)
        assert found["cost_usd"] > 0
        assert "cost" not in found
        same = CliRunner().invoke(app, ["explain", files[0], files[0], "--json", "--exit-code"])
        assert (same.exit_code, json.loads(same.stdout)) == (0, {"break": None})

    def test_reads_lines_of_a_log(self, tmp_path: Path) -> None:
        log = tmp_path / "log.jsonl"
        bodies = [{"body": chat("a")}, {"body": chat("a", "b", "c")}]
        log.write_text("\n".join(json.dumps(copy.deepcopy(body)) for body in bodies), encoding="utf-8")
        run = CliRunner().invoke(app, ["explain", f"{log}:1", f"{log}:2"])
        assert (run.exit_code, run.stdout[:8]) == (0, "No break")
        beyond = CliRunner().invoke(app, ["explain", f"{log}:1", f"{log}:3"])
        assert beyond.exit_code == 2
        assert "found 2 lines, and line 3 was asked for" in beyond.stderr

    def test_pseudonyms_of_two_runs_are_not_compared(self, tmp_path: Path) -> None:
        """Equal text has another pseudonym in each run: what they came to would be a break that never was."""
        log = tmp_path / "log.jsonl"
        lines = [{"salt": salt, "body": chat("a")} for salt in ("one", "one", "two", None)]
        log.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        refused = CliRunner().invoke(app, ["explain", f"{log}:2", f"{log}:3"])
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "redacted with different keys: found salts 'one' and 'two'" in refused.stderr
        for line in (2, 4):
            assert CliRunner().invoke(app, ["explain", f"{log}:1", f"{log}:{line}"]).exit_code == 0

    def test_a_line_without_a_body_is_told(self, tmp_path: Path, files: tuple[str, str]) -> None:
        log = tmp_path / "served.jsonl"
        log.write_text(json.dumps({"at": 1.0, "body": None}), encoding="utf-8")
        run = CliRunner().invoke(app, ["explain", files[0], f"{log}:1"])
        assert run.exit_code == 2
        assert "holds no body" in run.stderr

    def test_what_is_no_file_or_no_json_is_one_line(self, tmp_path: Path, files: tuple[str, str]) -> None:
        (tmp_path / "bad.json").write_text("{", encoding="utf-8")
        for bad, said in (("missing.json", "No such file"), (str(tmp_path / "bad.json"), "no JSON")):
            run = CliRunner().invoke(app, ["explain", files[0], bad])
            assert run.exit_code == 2
            assert said in run.stderr
            assert len(run.stderr.splitlines()) == 1


def test_the_record_is_planned_or_an_alarm() -> None:
    assert CacheBreak("thawed", "tools", 10, 1.0).planned
    assert not CacheBreak("expired", "messages", 10, 1.0).planned


def test_the_page_on_breaks_lists_every_cause_with_its_fix() -> None:
    page = (Path(__file__).parents[2] / "docs" / "breaks.md").read_text("utf-8")
    table = page.partition("## Causes")[2].partition("## Advice")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    assert {cause.strip("`"): fix for cause, fix in rows} == FIXES


def test_dynamic_text_of_the_last_turn_may_go() -> None:
    detector = BreakDetector(model="gpt-5.5")
    looked_up = f"<context name='retrieved'>{'Facts. ' * 2_000}</context>"
    first = chat("Hello")
    first["messages"].append({"role": "user", "content": looked_up})
    assert detector.see(first, at=0.0) is None
    assert detector.see(chat("Hello", "Hi!", "And now?"), at=1.0) is None
    inside = chat("Hello", "Hi!", "And now?", system=f"{looked_up} {LONG}")
    found = detector.see(inside, at=2.0)
    assert found is not None
    assert found.section == "system", (
        "what stands in front of the history must not change, however it is framed"
    )


def test_a_break_that_was_declared_is_planned() -> None:
    detector = BreakDetector()
    detector.see(chat("a", "b", "c"), at=0.0)
    found = detector.see(chat("Summary.", "c"), at=1.0, planned="compacted")
    assert found is None or found.planned
    found = detector.see(chat("Summary.", "c", system="You" + LONG), at=2.0, planned="thawed")
    assert found is not None
    assert (found.cause, found.planned) == ("thawed", True)
    assert detector.see(chat("Summary.", "c", system="You" + LONG), at=3.0) is None
