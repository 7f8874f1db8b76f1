"""The session of the demo: its shapes, its sizes in tokens of the demo's engine, and what its texts must not hold."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib import resources
from itertools import chain
from statistics import mean
from typing import Any

import pytest

from llmbuffer import Message, Session, StableContext, ToolCall, ToolResult
from llmbuffer.demo.engines import script_texts
from llmbuffer.demo.script import Script, Step, Turn, Worker, script, shop
from llmbuffer.demo.shop import passages_of
from llmbuffer.demo.vocabulary import BytePairs

FILES = ("persona.md", "policy.md", "handbook.md")
RECORDS = ("tools.json", "records.json", "preferences.json", "support.json", "incident.json")


@cache
def pairs() -> BytePairs:
    """The vocabulary that the demo's model is written with."""
    return BytePairs.trained(script_texts(script()))


def stretches(told: Script) -> list[Turn | Worker]:
    return [*told.turns, *told.coordinator, *told.workers]


def steps(told: Script) -> Iterator[Step]:
    return (step for stretch in stretches(told) for step in stretch.steps)


def calls(told: Script) -> Iterator[ToolCall]:
    return (call for step in steps(told) for call in step.reply.tool_calls)


def results(turns: Any) -> list[str]:
    return [result for turn in turns for step in turn.steps for result in step.results]


# Shapes


def test_ten_turns_of_three_to_six_calls_each_and_three_workers() -> None:
    told = script()
    assert (len(told.tools), len(told.turns), len(told.workers)) == (6, 10, 3)
    assert all(3 <= len(turn.steps) <= 6 for turn in told.turns)
    assert 40 <= sum(len(turn.steps) for turn in told.turns) <= 48
    assert all(2 <= len(worker.steps) <= 4 for worker in told.workers)
    assert len({worker.name for worker in told.workers}) == 3


def test_a_turn_ends_with_its_only_answer_without_a_call() -> None:
    told = script()
    for turn in stretches(told):
        *working, final = turn.steps
        assert all(step.reply.tool_calls for step in working)
        assert final.reply.tool_calls == ()
        assert final.reply.text


def test_every_call_has_one_result_and_an_id_of_its_own() -> None:
    told = script()
    ids = [call.id for call in calls(told)]
    assert len(ids) == len(set(ids))
    assert all(len(step.results) == len(step.reply.tool_calls) for step in steps(told))
    assert all(result for step in steps(told) for result in step.results)
    assert any(len(step.results) > 1 for turn in told.turns for step in turn.steps), "some calls are parallel"


def test_the_retrieved_text_is_another_one_each_turn_and_the_preferences_change_once() -> None:
    told = script()
    assert len({turn.retrieved for turn in told.turns}) == len(told.turns)
    wishes = [turn.preferences for turn in told.turns]
    changes = [number for number in range(1, 10) if wishes[number] != wishes[number - 1]]
    assert len(changes) == 1
    assert 3 <= changes[0] <= 7


def test_a_session_takes_the_whole_script() -> None:
    told = script()
    session = Session(StableContext("local", told.persona + told.policy, tools=told.tools), "llamacpp")
    for turn in told.turns:
        session.append(Message("user", turn.user))
        for step in turn.steps:
            session.append(step.reply)
            for call, result in zip(step.reply.tool_calls, step.results, strict=True):
                session.append(Message("tool", [ToolResult(call.id, result)]))
    messages = session.request("And now?").body["messages"]
    assert sum(message["role"] == "tool" for message in messages) == len(results(told.turns))


# Sizes, in tokens of the demo's engine


def test_sizes_of_what_stays() -> None:
    told, count = script(), pairs().count
    assert 4_000 <= count(told.persona) + count(told.policy) <= 5_000
    assert 800 <= count(json.dumps(told.tools)) <= 1_500


def test_sizes_of_tool_outputs() -> None:
    sizes = [pairs().count(result) for result in results(script().turns)]
    assert 300 <= mean(sizes) <= 500
    assert max(sizes) <= 4_000


def test_sizes_of_retrieved_texts() -> None:
    sizes = [pairs().count(turn.retrieved) for turn in (*script().turns, *script().coordinator)]
    assert min(sizes) >= 150
    assert max(sizes) <= 500


def test_the_coordinator_leaves_a_history_worth_sharing() -> None:
    told, count = script(), pairs().count
    said = sum(count(turn.user) + count(step.reply.text) for turn in told.coordinator for step in turn.steps)
    assert said + sum(map(count, results(told.coordinator))) >= 5_000


def test_the_texts_are_small() -> None:
    folder = resources.files("llmbuffer.demo") / "texts"
    sizes = {name: len((folder / name).read_bytes()) for name in (*FILES, *RECORDS)}
    assert sum(sizes.values()) < 250_000
    assert {each.name for each in folder.iterdir()} == set(sizes)


# What the texts hold


def test_no_text_holds_an_address_or_a_secret() -> None:
    refused = re.compile(
        r"https?:|www\.|\w@\w|\b\d{1,3}(?:\.\d{1,3}){3}\b|\b(?:sk|pk|ghp|xox[bp])[-_]\w{8}|(?i:bearer|api.?key)"
        r"|\b(?:\d[ -]?){13,19}\b|\b[0-9a-fA-F]{24,}\b|\b[A-Z]{2}\d{2}(?: ?\w{4}){3,}"
    )
    found = [(match.group(), text[:40]) for text in script_texts(script()) if (match := refused.search(text))]
    assert found == []


def test_no_paragraph_is_said_twice() -> None:
    told = script()
    prose = [told.persona, told.policy, *(turn.user for turn in told.turns)]
    prose += [step.reply.text for step in steps(told) if step.reply.text]
    lines = [line for text in prose for line in text.splitlines() if len(line) > 60]
    assert len(lines) == len(set(lines))


@pytest.mark.parametrize("tool", [tool["function"]["name"] for tool in script().tools])
def test_every_call_fits_the_schema_of_its_tool(tool: str) -> None:
    (schema,) = [
        each["function"]["parameters"] for each in script().tools if each["function"]["name"] == tool
    ]
    made = [json.loads(call.arguments) for call in calls(script()) if call.name == tool]
    assert made, "every tool is used"
    assert [misfit for arguments in made for misfit in misfits(arguments, schema)] == []


def test_only_tools_of_the_script_are_called() -> None:
    assert {call.name for call in calls(script())} == {tool["function"]["name"] for tool in script().tools}


KINDS: dict[str, Any] = {"string": str, "number": (int, float), "integer": int, "array": list, "object": dict}


def misfits(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:
    """What in a value does not fit its schema; knows the keywords that the tools use."""
    known = {"type", "description", "required", "additionalProperties", "properties", "enum", "items"}
    assert set(schema) <= known | {"minimum", "maximum", "minItems", "maxItems"}
    found = [] if isinstance(value, KINDS[schema["type"]]) else [f"{path} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path} is {value!r}")
    if isinstance(value, dict):
        fields = schema["properties"]
        found += [f"{path}.{name} is missing" for name in schema["required"] if name not in value]
        found += [f"{path}.{name} is unknown" for name in value if name not in fields]
        for name in value.keys() & fields.keys():
            found += misfits(value[name], fields[name], f"{path}.{name}")
    elif isinstance(value, list):
        found += (
            [] if schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99) else [f"{path}[]"]
        )
        found += chain.from_iterable(misfits(item, schema["items"], f"{path}[]") for item in value)
    elif isinstance(value, int | float):
        found += [] if schema.get("minimum", value) <= value <= schema.get("maximum", value) else [path]
    return found


def test_what_does_not_fit_is_found() -> None:
    schema = script().tools[3]["function"]["parameters"]
    assert misfits({"query": "gasket", "limit": 2}, schema) == []
    assert misfits({"limit": 9, "page": 1}, schema) == [".query is missing", ".page is unknown", ".limit"]


def test_a_reference_that_is_given_to_the_customer_came_from_a_tool() -> None:
    told = script()
    seen = ""
    for turn in stretches(told):
        for step in turn.steps:
            given = re.findall(r"\b[A-Z]{2}-7\d{4}\b", step.reply.text)
            assert [reference for reference in given if reference not in seen] == []
            seen += "".join(step.results)


def test_sums_of_orders_agree_with_what_was_paid() -> None:
    orders = json.loads((resources.files("llmbuffer.demo") / "texts" / "records.json").read_text("utf-8"))[
        "orders"
    ]
    for number, order in orders.items():
        answer = json.loads(shop().answer("get_order", {"order_number": number, "include": ["payments"]}))
        paid = sum(round(100 * float(payment["amount"])) for payment in answer["payments"])
        assert paid == round(100 * float(answer["total"])) == sum(cents for _, cents in order["paid"])


# The same every time


def test_the_script_is_the_same_in_every_process() -> None:
    program = (
        "import hashlib; from llmbuffer.demo.script import script; from llmbuffer.demo.engines import script_texts;"
        "print(hashlib.sha256('|'.join(script_texts(script())).encode()).hexdigest())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_the_shop_gives_the_same_answer_twice_and_refuses_what_it_does_not_know() -> None:
    asked = ("track_parcel", {"parcel_number": "NW-5530-1204", "events": "latest"})
    assert shop().answer(*asked) == shop().answer(*asked)
    with pytest.raises(KeyError):
        shop().answer("get_order", {"order_number": "C-00000"})


def test_passages_of_the_handbook() -> None:
    handbook = (resources.files("llmbuffer.demo") / "texts" / "handbook.md").read_text("utf-8")
    passages = passages_of(handbook)
    assert len(passages) == handbook.count("# HB-")
    assert all(passage.text and "\n# " not in passage.shown for passage in passages.values())


# The vocabulary


def test_a_token_of_the_vocabulary_is_about_three_characters() -> None:
    text = "".join(script_texts(script()))
    assert len(pairs().merges) == 1_500
    assert 2.5 <= len(text) / pairs().count(text) <= 3.6


def test_the_vocabulary_is_the_same_for_the_same_texts() -> None:
    texts = [script().policy, script().persona]
    assert BytePairs.trained(texts, 200).merges == BytePairs.trained(texts, 200).merges
    assert BytePairs.trained(reversed(texts), 200).merges == BytePairs.trained(texts, 200).merges


def test_a_split_text_joins_to_what_it_was() -> None:
    for text in ("", "a", "  two  blanks\n\n", "Grüße, 12 €!", "they've don't", "\ttab", "日本 🙂"):
        tokens = pairs().split(text)
        assert "".join(tokens) == "".join(BytePairs([]).split(text))
        assert len(BytePairs([]).split(text)) == len(text.encode())
        assert pairs().count(text) == len(tokens)


def test_a_vocabulary_stops_where_nothing_stands_twice() -> None:
    assert BytePairs.trained(["abcdefg"]).merges == ()
    assert BytePairs.trained([]).merges == ()
    assert BytePairs.trained(["aaaa"]).merges == (("a", "a"),)
