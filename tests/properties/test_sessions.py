"""Any order of append, request, observe, fork and planned changes, against the naive models, for every regime."""

from __future__ import annotations

import copy
import json
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.properties import naive, wires
from tests.properties.legal import illegal
from tests.properties.lines import Asked, Dynamic, Line
from tests.properties.naive_cache import NaiveCache
from tests.properties.wires import KINDS, TEXTS, TOOLS, Wire, message_of

from llmbuffer import CacheRules, Message, PairingError, Request, Segment, Session, StableContext, Text, Usage
from llmbuffer.dialects.anthropic import Anthropic
from llmbuffer.errors import PlacementError
from llmbuffer.observing import WATCHERS
from llmbuffer.snapshot import relation as relation_of
from llmbuffer.testing import FakeClock
from llmbuffer.testing.guard import PrefixGuard

DYNAMIC = st.none() | st.dictionaries(
    st.sampled_from(["clock", "found"]), st.sampled_from(["", "12:00", "12:01"]), max_size=2
)
LEVELS = st.lists(st.sampled_from(["global", "tenant", "user", "session"]), max_size=3)
REPLIES = st.sampled_from(["reply", "reply", "calls", "calls", "nothing"])
PAUSES = st.sampled_from([1, 100, 290, 310, 1_700, 1_900, 3_500])
MODELS = {
    "openai": ["gpt-5.5", "gpt-5.6", "gpt-5.4"],
    "anthropic": ["claude-sonnet-5.5", "claude-haiku-4.5", "claude-opus-4.8"],
}


class Counter:
    """A short text has many tokens, so that a few messages pass the minimum of a cache."""

    name = "characters"
    estimated = False

    def count(self, text: str) -> int:
        return 41 * len(text)


class Sessions(RuleBasedStateMachine):
    """One family of sessions. Subclasses name the dialect and the model it starts with."""

    dialect = "openai"
    model = "gpt-5.5"

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock(1_000.0)
        self.lines: list[Line] = []
        self.asked: list[Asked] = []
        self.seen: list[Asked] = []
        self.caches: dict[str, NaiveCache] = {}
        self.planned = 0
        self.newest, self.in_order = (
            0.0,
            True,
        )  # a cache model forgets what is over; later it may be asked about the past
        self.guard = PrefixGuard()
        WATCHERS.append(self.guard)

    def teardown(self) -> None:
        WATCHERS.remove(self.guard)
        moves = self.guard.take()
        assert moves == [] or self.planned, moves[0]

    @initialize(
        levels=LEVELS,
        length=st.sampled_from([5, 30, 120]),
        tools=st.booleans(),
        long=st.booleans(),
        always=st.booleans(),
        placement=st.sampled_from(["turn", "tail", "sticky", "auto"]),
    )
    def begin(
        self, levels: list[Any], length: int, tools: bool, long: bool, always: bool, placement: Any
    ) -> None:
        segments = [Segment(f"s{index}", str(index) * length, level) for index, level in enumerate(levels)]
        if segments and long:
            segments[0] = msgspec.structs.replace(segments[0], ttl="long")
        if always:
            segments.append(Segment("now", "noon", "turn"))
        context = StableContext(self.model, segments, tools=TOOLS if tools else ())
        older = Anthropic(collapse_tool_runs=True)  # one of the cases counts the look-back the other way
        dialect = older if self.model == CASES[3][1] else self.dialect
        session = Session(context, dialect, tokens=Counter(), clock=self.clock, placement=placement)
        self.lines.append(Line(session))

    # What a user does

    def line(self, data: st.DataObject) -> Line:
        return data.draw(st.sampled_from(self.lines), "line")

    @rule(data=st.data(), several=st.booleans())
    def append(self, data: st.DataObject, several: bool) -> None:
        line = self.line(data)
        if line.open_calls:
            self._answer(data, line, several)
        else:
            self._add(line, [data.draw(KINDS[self.dialect].anything)], several)

    def _answer(self, data: st.DataObject, line: Line, several: bool = True) -> None:
        order = data.draw(st.permutations(line.open_calls))
        results = [(name, data.draw(KINDS[self.dialect].results)) for name in order]
        saying, together = data.draw(st.none() | TEXTS), data.draw(st.booleans())
        self._add(line, wires.answers(self.dialect, results, together=together, saying=saying), several)

    def _add(self, line: Line, new: list[Wire], several: bool) -> None:
        messages = [message_of(wire, self.dialect) for wire in new]
        for part in [messages] if several else [[message] for message in messages]:
            line.session.append(part)
        for message, wire in zip(messages, new, strict=True):
            line.add(message, wire)

    @rule(data=st.data(), rounds=st.sampled_from([9, 10, 20]))
    def work_long(self, data: st.DataObject, rounds: int) -> None:
        """So many calls and results that a look-back of 20 positions may not reach across."""
        line = self.line(data)
        if line.open_calls or len(line.history) > 100:
            return
        kinds = KINDS[self.dialect]
        call, result = data.draw(kinds.calls), data.draw(kinds.results)
        answers = wires.answers(
            self.dialect, [(name, result) for name in wires.calls_of(call)], together=True, saying=None
        )
        self._add(line, [call, *answers] * rounds, several=True)

    @precondition(lambda self: any(line.open_calls for line in self.lines))
    @rule(data=st.data())
    def interrupt_the_calls(self, data: st.DataObject) -> None:
        line = data.draw(st.sampled_from([line for line in self.lines if line.open_calls]))
        wire = data.draw(KINDS[self.dialect].anything)
        tip = line.session.tip
        with pytest.raises(PairingError):
            line.session.append(message_of(wire, self.dialect))
        with pytest.raises(PairingError):
            line.session.request()
        assert line.session.tip is tip

    @rule(data=st.data(), says=st.booleans(), dynamic=DYNAMIC)
    def ask(self, data: st.DataObject, says: bool, dynamic: dict[str, str] | None) -> None:
        line = self.line(data)
        if line.open_calls:
            self._answer(data, line)
        if not (says or line.history):
            return
        if not says and not dynamic and line.history[-1][0].role == "assistant":
            return
        if (
            not says
            and dynamic is None
            and line.turn_dynamic == ()
            and line.turn_user == len(line.history) - 1
        ):
            return  # asked once more after a reply that said nothing: whether the text was cleared is not kept
        wire = data.draw(KINDS[self.dialect].user) if says else None
        user = None if wire is None else message_of(wire, self.dialect)
        before, messages = line.session.tip, line.session.messages
        try:
            request = line.session.request(user, dynamic)
        except PlacementError:
            assert line.turn_user is None
            assert line.history[-1][0].role == "tool"
            return
        again = line.session.request(user, dynamic)
        assert json.dumps(request.body) == json.dumps(again.body)
        assert request.key == again.key
        assert line.session.tip is before
        assert line.session.messages == messages
        self.asked.append(self._checked(line, request, user, wire, dynamic))

    @rule(data=st.data(), dynamic=DYNAMIC, kind=REPLIES)
    def converse(self, data: st.DataObject, dynamic: dict[str, str] | None, kind: str) -> None:
        """A turn of a user, answered at once."""
        before = len(self.asked)
        self.ask(data, True, dynamic)
        if len(self.asked) > before:
            self._observe(data, self.asked.pop(), kind, wait=False)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), kind=REPLIES, wait=st.booleans())
    def observe(self, data: st.DataObject, kind: str, wait: bool) -> None:
        asked = data.draw(st.sampled_from(self.asked), "which")
        self.asked.remove(asked)
        self._observe(data, asked, kind, wait)

    def _observe(self, data: st.DataObject, asked: Asked, kind: str, wait: bool) -> None:
        if wait:
            self.clock.advance(2)
        kinds = KINDS[self.dialect]
        wire = None if kind == "nothing" else data.draw(kinds.reply if kind == "reply" else kinds.calls)
        message = None if wire is None else message_of(wire, self.dialect)
        read, written, fresh = self._cache(asked).commit(asked.sent, asked.request.at, self.clock())
        usage = Usage(read + written + fresh, 1, read, written)
        kept = json.dumps(asked.request.body)
        seen = asked.request.observe(usage, message)
        assert json.dumps(asked.request.body) == kept
        line, after = asked.line, asked.after
        assert seen.forked == (line.version != asked.version)
        entry = seen.session.ledger[-1]
        told = (entry.forecast_read_tokens, entry.forecast_write_tokens, entry.forecast_fresh_tokens)
        self.in_order &= asked.request.at >= self.newest
        self.newest = max(self.newest, asked.request.at)
        assert told == (read, written, fresh) or not self.in_order
        after.session = seen.session
        if after.turn_user is not None:
            after.turn_dynamic = asked.dynamic
        if message is not None and wire is not None:
            after.add(message, wire)
        same_context = asked.context == seen.session.context
        after.committed = asked.blocks if same_context else []
        after.version = line.version + 1
        if seen.forked:
            self.lines.append(after)
        else:
            self.lines[self.lines.index(line)] = after
            for other in self.asked:
                other.line = after if other.line is line else other.line

    @precondition(lambda self: len(self.lines) < 6)
    @rule(data=st.data(), task=st.none() | TEXTS)
    def fork(self, data: st.DataObject, task: str | None) -> None:
        line = self.line(data)
        if line.open_calls:
            task = None
        forked = line.forked(line.session.fork(task=task))
        if task is not None:
            forked.add(Message("user", task), {"role": "user", "content": [wires.text_part(task)]})
        self.lines.append(forked)

    @rule(pause=PAUSES)
    def wait(self, pause: float) -> None:
        self.clock.advance(pause)

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def write_into_a_body(self, data: st.DataObject) -> None:
        body = data.draw(st.sampled_from(self.asked)).request.body
        kept = json.dumps(body)
        for place in _containers(body):
            with pytest.raises(TypeError, match="read-only"):
                place.clear()
            grow = place.update if isinstance(place, dict) else place.append
            with pytest.raises(TypeError, match="read-only"):
                grow({"role": "system"})
        plain = copy.deepcopy(body)
        assert type(plain) is dict
        for place in _containers(plain):
            assert type(place) in (dict, list)
            place.clear()
        assert json.dumps(body) == kept
        assert msgspec.json.decode(msgspec.json.encode(body)) == json.loads(kept) == body

    # What has to hold

    def _rules(self, session: Session) -> CacheRules:
        return session.dialect.rules

    def _cache(self, asked: Asked) -> NaiveCache:
        rules = asked.request.dialect.rules
        return self.caches.setdefault(asked.context.model, NaiveCache(rules, Counter().count))

    def _checked(
        self,
        line: Line,
        request: Request,
        user: Message | None,
        wire: Wire | None,
        given: dict[str, str] | None,
    ) -> Asked:
        context, rules = line.session.context, line.session.dialect.rules
        after = line.forked(line.session)
        wanted = self._dynamic(line, user, given)
        if wanted and not request.dynamic:
            assert line.session.placement in ("sticky", "auto")
            assert user is not None
            assert wire is not None
            user, wire = _with_sticky(user, wire, wanted, line.turns)
            wanted = ()
        if user is not None and wire is not None:
            after.add(user, wire)
        assert tuple((segment.name, segment.content) for segment in request.dynamic) == wanted
        rendered = [f'<context name="{name}">\n{text}\n</context>' for name, text in wanted]
        found = naive.sent(
            request.body, context, after.history, rendered, self.dialect, rules, Counter().count
        )
        if rendered:
            self._check_place(found, after, context, line.session)
        assert illegal(request.body, self.dialect) is None
        plain = naive.expected_body(context, [wire for _, wire in after.history], self.dialect, rules)
        blocks = naive.laid_out(plain, self.dialect).blocks
        assert blocks[: len(line.committed)] == line.committed
        asked = Asked(line, after, request, found, blocks, wanted, line.version, context)
        self._check_snapshot(asked)
        return asked

    def _dynamic(self, line: Line, user: Message | None, given: dict[str, str] | None) -> Dynamic:
        if given is not None:
            return tuple((name, text) for name, text in given.items() if text)
        if user is None and line.turn_dynamic is not None:
            return line.turn_dynamic
        if user is None and line.turn_user is not None and line.turn_user < len(line.history) - 1:
            return ()
        return tuple((segment.name, segment.content) for segment in line.session.context.dynamic)

    def _check_place(self, found: naive.Sent, after: Line, context: StableContext, session: Session) -> None:
        """Behind the turn's user message, or at the end; never between a tool's result and the final answer."""
        head = 1 + len(context.tools) + len(context.segments)
        at = (
            next(index for index, unit in enumerate(found.units) if unit.alike == ("block", "messages"))
            - head
        )
        end = len(after.history)
        in_turn = end if after.turn_user is None else after.turn_user + 1
        allowed = {"turn": {in_turn}, "tail": {end}, "sticky": {in_turn}, "auto": {in_turn, end}}[
            session.placement
        ]
        if after.history[-1][0].role == "tool":
            allowed = {in_turn}
        assert at in allowed
        assert after.history[at - 1][0].role != "tool"

    def _check_snapshot(self, asked: Asked) -> None:
        request = asked.request
        assert request.snapshot.tokens == asked.sent.tokens
        for other in self.seen:
            expected = naive.relation(other.sent, asked.sent)
            assert relation_of(other.request.snapshot, request.snapshot) == expected
            assert relation_of(request.snapshot, other.request.snapshot) == naive.relation(
                asked.sent, other.sent
            )
        self.seen = [*self.seen[-11:], asked]

    @invariant()
    def forecasts_hold(self) -> None:
        for asked in self.asked[-3:]:
            told = asked.request.forecast
            expected = self._cache(asked).look(asked.sent, self.clock())
            found = (told.read_tokens, told.write_tokens, told.fresh_tokens)
            assert found == expected or not self.in_order

    @invariant()
    def histories_hold(self) -> None:
        for line in self.lines:
            assert list(line.session.messages) == [message for message, _ in line.history]


class Changing(Sessions):
    """With planned breaks: another system text, other tools, another model."""

    @precondition(lambda self: self.lines)
    @rule(data=st.data(), what=st.sampled_from(["system", "tools", "model", "fork"]))
    def change(self, data: st.DataObject, what: str) -> None:
        line = self.line(data)
        model = data.draw(st.sampled_from(MODELS[self.dialect]))
        self.planned += 1
        if what == "fork":
            line = line.forked(line.session.fork(model=model, system="another"))
            self.lines.append(line)
        else:
            line.session.thaw("a test")
            changes: dict[str, dict[str, Any]] = {
                "system": {"system": "new"},
                "tools": {"tools": TOOLS[:1]},
                "model": {"model": model},
            }
            line.session.update(**changes[what])
        line.committed = []
        for asked in self.asked:  # what was rendered anew has moved on, so the replies go to forks
            if asked.line is line and asked.request.base is not line.session._state:
                asked.version = -1


def _containers(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    below = [each for item in inner for each in _containers(item)]
    return [*below, value] if isinstance(value, dict | list) else []


def _with_sticky(user: Message, wire: Wire, dynamic: Dynamic, turns: int) -> tuple[Message, Wire]:
    added = [f'<context name="{name}, turn {turns + 1}">\n{text}\n</context>' for name, text in dynamic]
    content = wire["content"]
    parts = [wires.text_part(content)] if isinstance(content, str) else content
    message = Message(user.role, [*user.parts, *map(Text, added)], user.name)
    return message, {**wire, "content": [*parts, *map(wires.text_part, added)]}


CASES = [
    ("openai", "gpt-5.5"),
    ("openai", "gpt-5.6"),
    ("anthropic", "claude-sonnet-5.5"),
    ("anthropic", "claude-haiku-4.5"),
]


def cases(base: type[Sessions], dialect: str, model: str, examples: int) -> Any:
    name = f"{base.__name__}_{model}".replace("-", "_").replace(".", "_")
    machine: Any = type(name, (base,), {"dialect": dialect, "model": model})
    case = machine.TestCase
    case.settings = settings(derandomize=True, deadline=None, max_examples=examples, stateful_step_count=40)
    return case


EXAMPLES = 100
TestOpenAIPrefix = cases(Sessions, *CASES[0], EXAMPLES)
TestOpenAIEntries = cases(Sessions, *CASES[1], EXAMPLES)
TestAnthropic = cases(Sessions, *CASES[2], EXAMPLES)
TestAnthropicOlder = cases(Sessions, *CASES[3], EXAMPLES)
_moves = pytest.mark.moves_prefix(reason="the context changes in planned breaks")
TestOpenAIChanging = _moves(cases(Changing, *CASES[1], EXAMPLES))
TestAnthropicChanging = _moves(cases(Changing, *CASES[2], EXAMPLES))
