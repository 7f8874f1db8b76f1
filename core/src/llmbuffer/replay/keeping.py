"""Layouts that keep a recorded session inside a window: by one of the ways that others go, or by a session's own compaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..chain import walk
from ..compaction import Compaction, ElideToolResults, Summarizer, Truncator
from ..context import StableContext
from ..layout import render_head
from ..messages import Message
from ..request import Request
from ..rules import Dialect
from ..session import Session
from ..snapshot import Snapshot, message_tokens
from ..tokens import TokenCounter
from ..usage import Usage
from .compactions import TARGET, Way, Window, unfolded, way_of
from .layouts import Aside, Buffered, History, Layout, Prompt, takes_names
from .recordings import Call, Recording
from .summaries import LENGTH, Summaries, fresh_aside

__all__ = ["Keeping", "Rewritten", "Selfkept", "keeping"]


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """What a compaction is replayed with; ``name`` is one of ``COMPACTIONS``, ``window`` is in tokens."""

    name: str
    window: int
    seed: int
    dialect: Dialect
    model: str
    counter: TokenCounter

    def count(self, message: Message) -> int:
        """Tokens of one message."""
        return message_tokens(message, self.counter.count)


def keeping(recording: Recording, setting: Keeping) -> tuple[Recording, Layout]:
    """The recording with its whole history, and the layout that keeps it small."""
    whole = unfolded(recording, takes_names=takes_names(setting.dialect))
    kind = Selfkept if setting.name == "auto" else Rewritten
    return whole, kind(whole, setting)


class _Share:
    """How much of what was said is still sent."""

    def __init__(self, setting: Keeping) -> None:
        self._setting = setting
        self._tokens: dict[int, int] = {}  # by the id of a message, which the recording keeps alive
        self._whole = 0

    def said(self, messages: Sequence[Message]) -> None:
        for message in messages:
            tokens = self._tokens[id(message)] = self._setting.count(message)
            self._whole += tokens

    def history(self, sent: Sequence[Message], snapshot: Snapshot, *, compacted: bool) -> History:
        kept = sum(self._tokens.get(id(message), 0) for message in sent)
        return History(kept, self._whole, compacted, snapshot.tokens > self._setting.window)


class Rewritten:
    """Each prompt as one of the ways writes it; what it shares with the last one goes on in the same session."""

    def __init__(self, whole: Recording, setting: Keeping) -> None:
        self._setting = setting
        self._inner = Buffered(whole, setting.dialect, setting.model, setting.counter, "turn")
        self._summaries = Summaries(whole, setting.seed, setting.counter.count)
        head = render_head(
            StableContext(setting.model, whole.agents[0].system, whole.agents[0].tools),
            setting.dialect,
            setting.counter.count,
        )
        window = Window(setting.window, head.node.end, setting.count)
        self._way: Way = way_of(setting.name, whole, window, self._summaries)
        self._share, self._sent, self._index = _Share(setting), (), -1
        self._asked: Call | None = None

    _sent: tuple[Message, ...]

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        self._index += 1
        self._share.said(call.new)
        kept = self._way(self._index, call.new)
        same = _same(self._sent, kept.messages)
        self._asked = Call(0, same, kept.messages[same:], call.reply)
        self._sent = kept.messages
        prompt = self._inner.ask(self._asked, texts, at)
        return msgspec.structs.replace(
            prompt,
            history=self._share.history(kept.messages, prompt.snapshot, compacted=kept.compacted),
            asides=self._asides(kept.folded, kept.messages),
        )

    def _asides(self, folded: Sequence[Message], sent: Sequence[Message]) -> tuple[Aside, ...]:
        if not folded:
            return ()
        summary = next(message for message in sent if message.text.endswith("</summary>"))
        rules, count = self._setting.dialect.rules, self._setting.counter.count
        return (fresh_aside(folded, self._setting.count(summary), rules, count),)

    def answer(self, call: Call, usage: Usage) -> None:
        """Observe the reply."""
        assert self._asked is not None, "an answer follows a question"
        self._inner.answer(self._asked, usage)

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._asked is not None, "an answer follows a question"
        return self._inner.answered(self._asked)


def _same(before: Sequence[Message], now: Sequence[Message]) -> int:
    """How many messages at the beginning are those of before."""
    for index, (one, two) in enumerate(zip(before, now, strict=False)):
        if one is not two:
            return index
    return min(len(before), len(now))


class Selfkept:
    """One session with a ``Compaction``, and a model that answers it with the summaries of the recording."""

    def __init__(self, whole: Recording, setting: Keeping) -> None:
        self._setting, self._now = setting, 0.0
        agent = whole.agents[0]
        self._client = _Model(setting, Summaries(whole, setting.seed, setting.counter.count))
        self._session = _Watched(
            StableContext(setting.model, agent.system, agent.tools),
            setting.dialect,
            client=self._client,
            tokens=setting.counter,
            clock=lambda: self._now,
            compaction=Compaction(
                setting.window,
                TARGET,
                [ElideToolResults(), Summarizer(length=LENGTH), Truncator()],
                debug=False,
            ),
        )
        self._share = _Share(setting)
        self._asked: Request | None = None
        self._reply: Message | None = None

    def ask(self, call: Call, texts: Mapping[str, str], at: float) -> Prompt:
        """See ``Layout``."""
        self._now = at
        self._share.said(call.new)
        lacking = list(call.new[1:] if call.new and call.new[0] is self._reply else call.new)
        user = lacking.pop() if lacking and lacking[-1].role == "user" else None
        self._session.append(lacking)
        self._client.asides.clear()
        asked = self._asked = self._session.request(user, dict(texts) if call.begins_turn and texts else None)
        sent = [node.message for node in walk(asked.snapshot.tip) if isinstance(node.message, Message)]
        compacted = asked.placed.compacted is not None
        history = self._share.history(sent, asked.snapshot, compacted=compacted)
        return Prompt(asked.snapshot, history=history, asides=tuple(self._client.asides))

    def answer(self, call: Call, usage: Usage) -> None:
        """Observe the reply."""
        assert self._asked is not None, "an answer follows a question"
        self._reply = call.reply
        self._asked.observe(usage, call.reply)

    def answered(self, call: Call) -> Snapshot:
        """See ``Layout``."""
        assert self._asked is not None, "an answer follows a question"
        return msgspec.structs.replace(self._asked.snapshot, tip=self._session.tip, marks=())


class _Watched(Session):
    """A session whose model sees requests and not only their bodies, since what is cached depends on them."""

    __slots__ = ()

    def fork(self, name: str | None = None, **changes: Any) -> Session:
        fork = super().fork(name, **changes)
        fork.__class__ = _Watched
        return fork

    def _request(self, *asked: Any, **awaiting: Any) -> Request:
        request = super()._request(*asked, **awaiting)
        self.client.request = request
        return request


class _Model:
    """In place of any SDK's client: whatever endpoint is called, the reply is the next summary."""

    def __init__(self, setting: Keeping, summaries: Summaries) -> None:
        self._setting, self._summaries = setting, summaries
        self.request: Request | None = None
        self.asides: list[Aside] = []

    def __getattr__(self, name: str) -> _Model:
        if name.startswith("_"):
            raise AttributeError(name)
        return self

    def __call__(self, **_: Any) -> tuple[Usage, Message]:
        assert self.request is not None, "a request is made before it is sent"
        reply = Message("assistant", self._summaries.next())
        output = self._setting.count(reply)
        self.asides.append(Aside(self.request.snapshot, output))
        told = self.request.forecast
        usage = Usage(
            self.request.snapshot.tokens,
            output,
            cache_read_tokens=told.read_tokens,
            cache_write_tokens=told.write_tokens,
        )
        return usage, reply
