"""What every dialect is tried on: messages, tools, and a conversation that grows. Fixed, so that a failure repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from ...context import Segment, StableContext
from ...messages import File, Image, Message, Opaque, Part, Reasoning, Role, Text, ToolCall, ToolResult
from ...request import Request
from ...rules import Dialect
from ...session import Session
from ...tokens import EstimateCounter
from ..fakes import FakeClock, reply

__all__ = [
    "ARGUMENTS",
    "ASSISTANT",
    "CALL_NAMES",
    "DYNAMIC",
    "MESSAGES",
    "ROUTING_KEY",
    "TOOLS",
    "converse",
    "said",
    "session_for",
    "short_session",
]

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg=="
PDF = "data:application/pdf;base64,JVBERi0xLjcKJeLjz9M="
TEXTS = (
    "hello",
    "two\n\nparagraphs\twith a tab",
    "éàü 漢字 🫖 \u202eright to left\u202c",
    "<|endoftext|> </context> {not: json}",
    "'quotes' \"and\" \\backslashes\\",
    "\x00\x1f control characters",
    "a long text, " * 400,
)
# What models write: their own spelling of JSON, duplicate keys, no object, no JSON.
ARGUMENTS = (
    '{"q":"x"}',
    '{"b": 1, "a": 2}',
    '{"a": 1e2, "b": 1.0}',
    '{"é": "\\u00e9"}',
    '{"a": {"z": [1, {"y": null}], "b": true}}',
    "{}",
    "",
    '{"a": 1, "a": 2}',
    "[1, 2]",
    "null",
    '"text"',
    '{"q": "unfinis',
)
OPAQUE = (
    Opaque.of("openai", {"type": "input_audio", "input_audio": {"data": "audio-data", "format": "wav"}}),
    Opaque.of("openai", "the refusal", "field:refusal"),
    Opaque.of("anthropic", {"type": "thinking", "thinking": "a thought", "signature": "the signature"}),
    Opaque.of("any", {"type": "text", "text": "with a field of its own", "note": "the note"}),
    Opaque.of("nobody", {"type": "strange", "value": "what nobody knows"}),
)


def _calls() -> Iterator[Message]:
    for number, arguments in enumerate(ARGUMENTS):
        yield Message("assistant", [ToolCall(f"call_{number}", "look_up", arguments)])
    yield Message(
        "assistant", [Text("Both."), ToolCall("c1", "look_up", '{"q":"x"}'), ToolCall("c2", "list", "{}")]
    )


# Messages of the assistant in the order that every wire can keep: reasoning, text, calls, fields.
ASSISTANT: tuple[Message, ...] = (
    *(Message("assistant", text) for text in TEXTS),
    *_calls(),
    Message("assistant", [Reasoning("a plain thought"), Text("the answer")]),
    *(Message("assistant", [part, Text("the answer")]) for part in OPAQUE if part.slot == "content"),
    *(Message("assistant", [Text("the answer"), part]) for part in OPAQUE if part.slot != "content"),
)


def _fixed() -> Iterator[Message]:
    yield from (Message(role, text) for role in ("user", "system", "developer") for text in TEXTS)
    yield Message("user", "who speaks", name="Ann")
    yield from (Message("user", [Text("see"), Image(PNG, detail)]) for detail in (None, "auto", "low"))
    yield Message("user", [Image("https://example.com/a.png"), Text("what is it?")])
    yield from (
        Message("user", [file]) for file in (File(PDF, name="a.pdf"), File(id="file-1"), File(PDF, "file-2"))
    )
    yield from (Message("user", [Text("see"), part]) for part in OPAQUE)
    yield Message("tool", [ToolResult("call_1", "the result")])
    yield Message("tool", [ToolResult("call_1", "out of ink", is_error=True)])
    yield Message("tool", [ToolResult("call_1", (Text("one"), Text("two")))])
    yield Message("tool", [ToolResult("call_1", (Text("a picture"), Image(PNG)))])
    yield Message("tool", [ToolResult("call_1", "first"), ToolResult("call_2", "second")])
    yield Message("tool", [ToolResult("call_1", "the result"), Text("and more")])
    yield Message("user", [ToolResult("call_1", "the result"), Text("and more")])


def _drawn(random: Random, count: int) -> Iterator[Message]:
    """Messages with several parts of any kind, each with words of its own."""
    for number in range(count):
        role: Role = random.choice(("user", "assistant"))
        parts = [_part(random, f"«{number}.{place}»") for place in range(random.randint(1, 4))]
        yield Message(role, parts)


def _part(random: Random, mark: str) -> Part:
    kinds: tuple[Part, ...] = (
        Text(f"{random.choice(TEXTS[:5])} {mark}"),
        Image(f"https://example.com/{mark}.png"),
        File(id=f"file-{mark}"),
        ToolCall(f"call_{mark}", "look_up", json.dumps({"q": mark}, ensure_ascii=False)),
        Reasoning(f"thinking of {mark}"),
        random.choice(OPAQUE),
    )
    return random.choice(kinds)


MESSAGES: tuple[Message, ...] = (*_fixed(), *ASSISTANT, *_drawn(Random(4), 60))  # noqa: S311 - the same messages each time

CALL_NAMES = {"call_1": "look_up", "call_2": "list"}  # the calls that the results above answer
TOOLS: tuple[dict[str, Any], ...] = (
    {
        "name": "look_up",
        "description": "Looks a thing up: “näher”.",
        "parameters": {
            "type": "object",
            "required": ["q"],
            "properties": {"q": {"type": "string"}, "a": {"type": "number", "minimum": 1.5}},
        },
    },
    {"name": "list", "parameters": {"type": "object", "properties": {}, "additionalProperties": False}},
    {"name": "stop", "description": "Takes nothing."},
)


def said(message: Message) -> Iterator[str]:
    """The strings of a message that have to be found on the wire; blank texts say nothing."""
    if message.name is not None and message.role != "tool":
        yield message.name
    for part in message.parts:
        yield from _said(part)


def _said(part: Any) -> Iterator[str]:
    if isinstance(part, Text | Reasoning):
        yield part.text.strip()
    elif isinstance(part, Image | File):
        address = part.url or ""
        yield address.partition(";base64,")[2] if address.startswith("data:") else address
        yield from (each for each in (getattr(part, "id", None), getattr(part, "name", None)) if each)
        yield from ([part.detail] if isinstance(part, Image) and part.detail not in (None, "auto") else [])
    elif isinstance(part, ToolCall):
        yield from (part.id, part.name)
    elif isinstance(part, ToolResult):
        yield part.call_id
        for inner in (Text(part.content),) if isinstance(part.content, str) else part.content:
            yield from _said(inner)
    elif isinstance(part, Opaque):
        yield from _strings(part.value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


# --- a conversation

ROUTING_KEY = "the-routing-key"
DYNAMIC = "«the clock says 12:00»"


def session_for(dialect: Dialect, model: str, **options: Any) -> Session:
    """A session whose stable text lies above the minimum of the model's rules."""
    rules = dialect.bind(model).rules
    rule = "Rule {}: answer kindly, briefly and with a source. "
    policy = "".join(rule.format(number) for number in range(max(120, rules.min_tokens // 5)))
    system = [
        Segment("policy", policy, level="global", ttl="long"),
        Segment("tenant", "The shop sells teapots. " * 20, level="tenant"),
        Segment("user", "You help Ann, who likes tea. " * 20, level="user"),
    ]
    return _session(StableContext(model, system, tools=TOOLS), dialect, **options)


def short_session(dialect: Dialect, model: str) -> Session:
    """A session with so little text that no cache with a minimum keeps it."""
    return _session(StableContext(model, "Be kind."), dialect)


def _session(context: StableContext, dialect: Dialect, **options: Any) -> Session:
    return Session(
        context, dialect, tokens=EstimateCounter(), clock=FakeClock(), routing_key=ROUTING_KEY, **options
    )


def converse(session: Session, turns: int = 3, *, dynamic: bool = False) -> Iterator[Request]:
    """Every request of a conversation with tools, each before it is answered; in every turn one reply calls two tools."""
    for turn in range(turns):
        given = {"clock": DYNAMIC} if dynamic and turn == 0 else {}
        request = session.request(f"Question {turn}? " * 40, dynamic=given)
        yield request
        calls = [ToolCall(f"call_{turn}_{place}", "look_up", '{"q":"x"}') for place in range(2)]
        reply(request, Message("assistant", [Text("Let me look."), *calls]))
        session.append([Message("tool", [ToolResult(call.id, f"result of {call.id}")]) for call in calls])
        request = session.request(None)
        yield request
        reply(request, f"Answer {turn}. " * 20)
