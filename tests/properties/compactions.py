"""Generated sessions with any chain of hooks, under every dialect, and what has to hold after each compaction.

    python -m tests.properties.compactions [--sessions 10000] [--seed 0]

prints how many sessions, requests and compactions there were, and which rules were broken (none). The rules are read off
messages and request bodies here, and not with the code that guards hooks; bodies are put before the checks of the simulated
providers, which stand for what the real ones refuse.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from llmbuffer import (
    Message,
    Opaque,
    Reasoning,
    Request,
    Segment,
    Session,
    StableContext,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbuffer.bodies import pieces
from llmbuffer.chain import walk
from llmbuffer.compaction import (
    ClipToolOutput,
    Compaction,
    CompactionWarning,
    DropReasoning,
    ElideToolResults,
    Summarizer,
    Truncator,
)
from llmbuffer.simulate.binding import Bindings
from llmbuffer.simulate.checks_anthropic import check_anthropic
from llmbuffer.simulate.checks_gemini import check_gemini
from llmbuffer.simulate.checks_openai import check_chat, check_responses
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

MODELS = (
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("openai-responses", "gpt-5.6"),
    ("anthropic", "claude-sonnet-5.5"),
    ("anthropic", "claude-haiku-4.5"),
    ("gemini", "gemini-3.1-pro"),
)
CHECKS: dict[str, Callable[..., None]] = {
    "openai": check_chat,
    "openai-responses": check_responses,
    "anthropic": check_anthropic,
    "gemini": check_gemini,
}
TOOLS = [{"name": "read", "description": "Read.", "parameters": {"type": "object", "properties": {"q": {}}}}]
_ID = re.compile(r'\bid "([0-9a-f]{16})"|originals is "([0-9a-f]{16})"|Its id is "([0-9a-f]{16})"')
_COUNT = EstimateCounter()


# Hooks that a user might write, good ones and bad ones


def drop_all(messages: list[Message], budget: Any) -> Any:
    return []


def drop_calls(messages: list[Message], budget: Any) -> Any:
    return [message for message in messages if not message.tool_calls]


def drop_first(messages: list[Message], budget: Any) -> Any:
    return messages[len(messages) // 2 :]


def drop_newest(messages: list[Message], budget: Any) -> Any:
    return messages[: max(1, len(messages) - 2)]


def give_nothing(messages: list[Message], budget: Any) -> Any:
    return None


def give_garbage(messages: list[Message], budget: Any) -> Any:
    return [*messages[:1], "garbage"]


def fail(messages: list[Message], budget: Any) -> Any:
    raise RuntimeError("no")


def grow(messages: list[Message], budget: Any) -> Any:
    return [*messages[:-1], Message("assistant", "more " * 900), *messages[-1:]]


def shift_roles(messages: list[Message], budget: Any) -> Any:
    return [Message("system", message.parts) if message.role == "user" else message for message in messages]


def mutate(messages: list[Message], budget: Any) -> Any:
    for message in messages:
        object.__setattr__(message, "_content", "gone")
    return messages[:1] + messages[-1:]


def keep_users(messages: list[Message], budget: Any) -> Any:
    """A good one: old replies become short, calls and results stay."""
    short = [
        Message("assistant", "…") if message.role == "assistant" and not message.call_ids else message
        for message in messages[:-6]
    ]
    return short + messages[-6:]


BAD = (
    drop_all,
    drop_calls,
    drop_first,
    drop_newest,
    give_nothing,
    give_garbage,
    fail,
    grow,
    shift_roles,
    mutate,
)


def hooks_of(random: Random) -> list[Any]:
    ready: list[Callable[[], Any]] = [
        lambda: ClipToolOutput(random.choice([20, 60, 200]), random.choice(["head+tail", "head", "tail"])),
        lambda: ElideToolResults(random.randrange(4), over=random.choice([10, 64])),
        lambda: DropReasoning(random.randrange(1, 3)),
        lambda: Truncator(random.randrange(1, 4)),
        lambda: Summarizer(_summary, random.choice([50, 300]), keep_last=random.randrange(1, 3), length=80),
        lambda: Summarizer(_summary, 80, moment="commit"),
        lambda: keep_users,
        lambda: random.choice(BAD),
    ]
    return [random.choice(ready)() for _ in range(random.randrange(1, 5))]


def _summary(messages: Sequence[Message]) -> str:
    return f"Summary of {len(messages)}: " + " ".join(message.text[:8] for message in messages[:6])


# Sessions


class World:
    """One session, its forks, and what was found."""

    def __init__(self, seed: int, counts: Counter[str]) -> None:
        self.random, self.counts, self.number = Random(seed), counts, 0
        random = self.random
        self.dialect, model = random.choice(MODELS)
        self.clock = FakeClock(1_000.0)
        window = random.choice([900, 1_500, 3_000])
        self.compaction = Compaction(
            window,
            random.choice([0.3, 0.5, 0.7]),
            hooks_of(random),
            random.choice(["auto", 3, 40, 400]),
            reserve=random.choice([0, 50]),
            max_loss=random.choice([0.5, 0.9, 1.0]),
        )
        system = [Segment("rules", "Be kind. " * random.choice([1, 20])), Segment("kept", "x", pinned=True)]
        self.session = Session(
            StableContext(model, system, TOOLS),
            self.dialect,
            tokens=_COUNT,
            clock=self.clock,
            placement=random.choice(["turn", "turn", "sticky", "tail"]),
            compaction=self.compaction,
        )
        self.bindings = Bindings(10_000)
        self.pins: list[Message] = []
        self.seen: dict[str, Message] = {}

    def run(self) -> None:
        for _ in range(self.random.randrange(4, 14)):
            self.clock.advance(self.random.choice([1, 20, 400, 4_000]))
            self.turn()
            if self.random.random() < 0.1:
                self.explicit()
        self.counts["sessions"] += 1

    def words(self, most: int) -> str:
        self.number += 1
        return f"#{self.number} " + "word " * self.random.randrange(1, most)

    def reply(self, calls: int) -> Message:
        parts: list[Any] = []
        if self.random.random() < 0.4:
            parts.append(self.thought())
        if calls == 0 or self.random.random() < 0.5:
            parts.append(Text(self.words(40)))
        for _ in range(calls):
            self.number += 1
            parts.append(ToolCall(f"call_{self.number}", "read", '{"q": 1}'))
        return Message("assistant", parts)

    def thought(self) -> Any:
        text = self.words(60)
        if self.dialect == "anthropic":
            return Opaque.of(
                "anthropic", {"type": "thinking", "thinking": text, "signature": f"s{self.number}"}
            )
        if self.dialect == "openai-responses":
            item = {"type": "reasoning", "id": f"rs_{self.number}", "summary": [], "encrypted_content": text}
            return Opaque.of("openai-responses", item, "item")
        return Reasoning(text)

    def turn(self) -> None:
        random, session = self.random, self.session
        if random.random() < 0.15:
            session.document("plan", "\n".join(self.words(9) for _ in range(random.randrange(1, 6))))
        dynamic = random.choice([None, {}, {"clock": f"{self.number}"}])
        if session.placement == "sticky" and dynamic and random.random() < 0.5:
            dynamic = [Segment("rule", self.words(5), "turn", pinned=True)]  # type: ignore[assignment]
        self.converse(Message("user", self.words(60)), dynamic)
        for _ in range(random.choice([0, 0, 1, 2, 3])):
            self.observed(self.reply(calls=random.choice([1, 1, 2])))
            results = [Message("tool", [ToolResult(call, self.words(200))]) for call in self.open_calls()]
            session.append(results)
            self.converse(None, None)
        self.observed(self.reply(calls=0))
        if random.random() < 0.1 and session.messages:
            pin = random.choice(session.messages)
            session.pin(pin)

    def open_calls(self) -> Sequence[str]:
        return self.session._state.open_calls

    def converse(self, user: Message | None, dynamic: Any) -> None:
        session = self.session
        before, state = session.messages, session._state
        request = session.request(user, dynamic)
        if request.placed.compacted is not None or self.random.random() < 0.2:
            again, twin = session.request(user, dynamic), session.fork("twin").request(user, dynamic)
            self.holds(_wire(request) == _wire(again), "asked twice, the bytes differ")
            self.holds(_blocks(request) == _blocks(twin), "a fork made before does not agree")
        self.holds(session._state is state and session.messages == before, "asking changed the session")
        self.asked, self.before = request, before
        self.legal(request)
        self.counts["requests"] += 1
        if request.placed.compacted is not None:
            after = [
                n.message for n in walk(request.placed.compacted.state.tip) if isinstance(n.message, Message)
            ]
            self.compacted(before, tuple(reversed(after)), request.placed.compacted.state)
            self.counts["+".join(request.placed.compacted.preview.actions)] += 1
        fits = request.snapshot.tokens + self.compaction.reserve <= self.compaction.max_tokens
        told = "over-max-tokens" in request.forecast.warnings
        self.holds(fits or told, "it does not fit, and nobody says so")
        self.counts["did not fit, and said so"] += told

    def observed(self, reply: Message) -> None:
        epoch, compacted = self.session.epoch, self.asked.placed.compacted
        seen = self.asked.observe(Usage(100, 10), reply)
        self.holds(not seen.forked and seen.session is self.session, "the session was forked")
        self.holds(self.session.epoch == epoch + (compacted is not None), "the epoch is wrong")
        kinds = [entry.kind for entry in self.session.ledger]
        self.holds(kinds.count("compacted") == self.session.epoch, "the ledger does not tell of a compaction")
        if not self.open_calls() and self.random.random() < 0.3:
            one, two = self.session.request("go"), self.session.fork("after").request("go")
            self.holds(_blocks(one) == _blocks(two), "a fork made afterwards does not agree")

    def explicit(self) -> None:
        before = self.session.messages
        told = self.session.compact("to see")
        after = self.session.messages
        if after != before:
            self.holds(told.after < told.before, "it is not smaller")
            self.compacted(before, after, self.session._state)
            self.counts["asked for"] += 1

    # What has to hold

    def holds(self, true: bool, what: str) -> None:
        self.counts["checks"] += 1
        if not true:
            raise AssertionError(what)

    def legal(self, request: Request) -> None:
        body = json.loads(json.dumps(request.body))
        rules = self.session.dialect.rules
        wire: Any = self.dialect
        found = pieces({**body, "model": "m"} if wire == "gemini" else body, wire)
        CHECKS[wire](body, found, rules)
        if (
            rules.reasoning_bound and self.session.placement == "sticky"
        ):  # nothing but compactions moves what is before
            self.bindings.check("", found)
        self.counts["legal bodies"] += 1

    def compacted(self, before: Sequence[Message], after: Sequence[Message], state: Any) -> None:
        self.counts["compactions"] += 1
        archive = state.archive
        told = {message for each in archive.documents for message in each.told}
        self.holds(_paired(after), "calls and results are not paired")
        first = _first(before)
        self.holds(
            first is None or _first(after) == first or _first(after) in told, "the first user message is gone"
        )
        self.holds(all(pin in after for pin in archive.pins), "a pinned message is gone")
        self.holds(all(message in after for message in told), "a document is gone")
        newest = [_bare(message) for message in before[_newest(before) :] if not _document(message)]
        rest = [_bare(message) for message in after if not _document(message)]
        self.holds(rest[len(rest) - len(newest) :] == newest, "the newest turn is not what it was")
        self.lost(before, after, state)
        self.prefix(before, state)

    def lost(self, before: Sequence[Message], after: Sequence[Message], state: Any) -> None:
        kept = [message for each in state.archive.originals() for message in each.messages]
        gone = [message for message in before if message not in after]
        self.counts["messages replaced"] += len(gone)
        self.holds(all(message in kept for message in gone), "a message is lost")
        text = json.dumps([str(part) for message in after for part in _texts(message)])
        ids = {next(filter(None, groups)) for groups in _ID.findall(text.replace('\\"', '"'))}
        self.holds(
            all(state.archive.original(name) for name in ids), "a marker names an id that nobody knows"
        )
        self.counts["markers followed"] += len(ids)

    def prefix(self, before: Sequence[Message], state: Any) -> None:
        """Up to the first message that differs, nodes have the bytes that they had."""
        old = list(walk(self.session._state.tip))[::-1] if self.session._state.tip is not state.tip else []
        new = list(walk(state.tip))[::-1]
        for one, two in zip(old, new, strict=False):
            if one.message != two.message:
                return
            self.holds(one.wire == two.wire, "the prefix before the cut has other bytes")


def _wire(request: Request) -> str:
    return json.dumps(request.body)


def _blocks(request: Request) -> str:
    """The prompt without breakpoints and routing: a fork marks its own beginning besides."""
    return re.sub(r', "(cache_control|prompt_cache_breakpoint)": \{[^}]*\}', "", json.dumps(request.body))


def _texts(message: Message) -> list[str]:
    out = []
    for part in message.parts:
        if isinstance(part, Text):
            out.append(part.text)
        elif isinstance(part, ToolResult):
            out.append(part.content if isinstance(part.content, str) else "")
    return out


def _document(message: Message) -> bool:
    return message.role == "user" and message.text.startswith("<document ")


def _first(messages: Sequence[Message]) -> Message | None:
    return next((m for m in messages if m.role == "user" and not m.tool_results), None)


def _newest(messages: Sequence[Message]) -> int:
    at = len(messages) - 1
    while at > 0 and not (messages[at].role == "user" and messages[at - 1].role != "user"):
        at -= 1
    return max(at, 0)


def _bare(message: Message) -> tuple[str, tuple[Any, ...]]:
    if message.role != "assistant":
        return message.role, message.parts
    return message.role, tuple(part for part in message.parts if not isinstance(part, Reasoning | Opaque))


def _paired(messages: Sequence[Message]) -> bool:
    called = [call.id for message in messages for call in message.tool_calls]
    answered = [result.call_id for message in messages for result in message.tool_results]
    return called == answered


def check(seed: int, counts: Counter[str]) -> None:
    """One session. Raises ``AssertionError`` with its seed for the first rule that is broken."""
    world = World(seed, counts)
    try:
        world.run()
    except Exception as error:
        named = [str(getattr(hook, "__name__", hook.__class__.__name__)) for hook in world.compaction.hooks]
        raise AssertionError(f"seed {seed} ({world.dialect}, {named}): {error!r}") from error
    refused = [entry.reason for entry in world.session.ledger if entry.kind == "hook-refused"]
    counts["hooks refused"] += len(refused)


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sessions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    counts: Counter[str] = Counter()
    broken: list[str] = []
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompactionWarning)
        for seed in range(options.seed, options.seed + options.sessions):
            try:
                check(seed, counts)
            except AssertionError as error:  # noqa: PERF203 - it is what is counted
                broken.append(str(error))
                if len(broken) >= 10:
                    break
    for name, number in counts.most_common():
        print(f"{number:>10,}  {name}")
    print(f"{len(broken):>10,}  rules broken, in {time.perf_counter() - start:.0f} s")
    for line in broken:
        print(f"            {line}")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
