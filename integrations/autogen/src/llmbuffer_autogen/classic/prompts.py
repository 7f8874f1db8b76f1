"""One request of classic AutoGen: its parts as the core takes them, and a plan put back into it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from llmbuffer.reconcile import DictHost, Plan, PlanMark, unmarked

from .marking import marked_text

__all__ = ["Prompt", "Wire", "bare"]

Item = dict[str, Any]
_LEADING = ("system", "developer")
_OURS = frozenset({"messages", "tools", "functions", "model", "stream", "stream_options"})


class Wire(NamedTuple):
    """How the client of a model takes what the plan adds.

    ``parts``: texts as lists of parts, so that a breakpoint never turns a string into a list; else the tail goes into the
    string, which begins with what it was. ``marks``: on content parts (``parts``), as text that becomes a breakpoint when
    the SDK is called (``texts``), or not at all. ``fields``: the fields that go into the request as such; others go into
    ``extra_body``; ``None`` where the client takes none.
    """

    parts: bool = False
    marks: str | None = None
    fields: frozenset[str] | None = None


class Prompt:
    """The parts of a request: the ``system`` texts that lead it, the ``messages`` behind them, the ``tools``.

    ``closing`` is a text that is the last message of this request only: the question which agent speaks next.
    """

    def __init__(self, params: Mapping[str, Any], closing: str | None = None) -> None:
        self.given = params
        items = list(params.get("messages") or ())
        count = 0
        while count < len(items) and _leads(items[count]):
            count += 1
        self.leading, self.messages = items[:count], items[count:]
        self.closing: Item | None = None
        if closing is not None and self.messages and self.messages[-1].get("content") == closing:
            self.closing = self.messages.pop()
        self.field = "functions" if params.get("functions") and not params.get("tools") else "tools"
        self.tools: list[Any] = list(params.get(self.field) or ())

    @property
    def system(self) -> str | tuple[str, ...] | None:
        """The leading texts; ``None`` where there are none."""
        texts = self.texts
        return (texts[0] if len(texts) == 1 else texts) if texts else None

    @property
    def texts(self) -> tuple[str, ...]:
        """The leading texts, each of them."""
        return tuple(each["content"] for each in self.leading)

    @property
    def params(self) -> dict[str, Any]:
        """The other fields of the request."""
        return {name: value for name, value in self.given.items() if name not in _OURS}

    def applied(self, plan: Plan, wire: Wire, *, opens: bool = False) -> dict[str, Any]:
        """The request with the plan in it; the host's own objects are never changed, and unchanged ones go by reference.

        ``opens``: the first system text is what a session shares with other agents, and gets a breakpoint of its own.
        """
        heads, at = self._heads(plan)
        items = [*heads, *plan.messages]
        if wire.parts:
            kept = ("assistant", "tool") if wire.marks == "parts" else _LEADING
            items = [each if each.get("role") in kept else _with_parts(each) for each in items]
        _mark(items, plan, wire, at, len(heads), opens=opens and len(heads) > 1)
        self._add_tail(items, plan, wire, len(heads))
        sent = {**self.given, "messages": items}
        if plan.tools:
            sent[self.field] = list(plan.tools)
        _route(sent, plan, wire, choice=self.field == "tools")
        return sent

    def _heads(self, plan: Plan) -> tuple[list[Item], list[int]]:
        """The leading messages as they go out, and the number of the text that each of them holds."""
        texts: Sequence[str] = (plan.system,) if isinstance(plan.system, str) else plan.system or ()
        out, at = [], []
        for number, text in enumerate(texts):
            if not text.strip():
                continue
            own = self.leading[number] if number < len(self.leading) else {"role": "system"}
            out.append(own if own.get("content") == text else {**own, "content": text})
            at.append(number)
        return out, at

    def _add_tail(self, items: list[Item], plan: Plan, wire: Wire, offset: int) -> None:
        tail = plan.tail
        texts = [text for text in tail.texts if not self._closes(text)]
        long = next((mark.long for mark in plan.marks if mark.section == "tail"), None)
        if texts:
            parts = [{"type": "text", "text": text} for text in texts]
            if long is not None:
                parts[-1] = _marked_part(parts[-1], plan, wire, long=long)
            if tail.apart:
                told: Any = parts if wire.parts else tail_text(texts)
                items.append({"role": tail.role, "content": told})
            else:
                where = tail.index + offset
                items[where] = _with_more(items[where], parts, wire)
        if self.closing is not None:
            # Anthropic's client moves every system message to the top, where others read no prefix of theirs behind it.
            moved = plan.shared and wire.marks == "texts"
            items.append({**self.closing, "role": "user"} if moved else self.closing)

    def _closes(self, text: str) -> bool:
        """Whether a piece of the tail is the closing message, which goes out as the host's own object."""
        if self.closing is None:
            return False
        return text == self.closing["content"] or f"\n{self.closing['content']}\n" in text


def bare(params: dict[str, Any]) -> dict[str, Any]:
    """The request without the marks of ``dynamic_text`` and ``persona``; itself, where it has none."""
    given = params.get("messages") or []
    shown = [DictHost().stripped(each, unmarked) for each in given]
    return params if shown == given else {**params, "messages": shown}


def tail_text(texts: Sequence[str]) -> str:
    """Pieces of dynamic text as one."""
    return "\n".join(texts)


def _leads(item: Any) -> bool:
    return isinstance(item, dict) and item.get("role") in _LEADING and isinstance(item.get("content"), str)


def _with_parts(item: Item) -> Item:
    content = item.get("content")
    if not isinstance(content, str) or not content:
        return item
    return {**item, "content": [{"type": "text", "text": content}]}


def _with_more(item: Item, parts: list[Item], wire: Wire) -> Item:
    """A message with further text behind its own."""
    content = item.get("content")
    if isinstance(content, list):
        return {**item, "content": [*content, *parts]}
    if wire.parts or not isinstance(content, str):
        own = [{"type": "text", "text": content}] if content else []
        return {**item, "content": [*own, *parts]}
    return {**item, "content": tail_text([content, *(part["text"] for part in parts)])}


def _mark(items: list[Item], plan: Plan, wire: Wire, at: Sequence[int], offset: int, *, opens: bool) -> None:
    """Put the breakpoints of system texts and messages in place, where the client can carry them."""
    if wire.marks is None:
        return
    marks = list(plan.marks)
    if opens and not any(mark.section == "system" and mark.index == 0 for mark in marks):
        marks.append(PlanMark("system", 0, -1))
    for mark in marks:
        if mark.section == "system" and mark.index in at:
            where = at.index(mark.index)
        elif mark.section == "messages":
            where = mark.index + offset
        else:
            continue
        content = items[where].get("content")
        if isinstance(content, str) and content and wire.marks == "texts":
            items[where] = {**items[where], "content": marked_text(content, long=mark.long)}
        elif isinstance(content, list) and -mark.part <= len(content):
            parts = list(content)
            parts[mark.part] = _marked_part(parts[mark.part], plan, wire, long=mark.long)
            items[where] = {**items[where], "content": parts}


def _marked_part(part: Any, plan: Plan, wire: Wire, *, long: bool) -> Any:
    if wire.marks == "parts":
        return dict(plan.session.dialect.mark_part(part, long=long))
    if wire.marks == "texts" and isinstance(part.get("text"), str):
        return {**part, "text": marked_text(part["text"], long=long)}
    return part


def _route(sent: dict[str, Any], plan: Plan, wire: Wire, *, choice: bool) -> None:
    """Add the plan's arguments; the fields of the user's own configuration win, but for the choice of tools."""
    if wire.fields is None:
        return
    extra = dict(sent.get("extra_body") or {})
    for name, value in plan.arguments.items():
        if name == "tool_choice":
            if choice:
                sent[name] = value
        elif name in sent or name in extra:
            continue
        elif name in wire.fields:
            sent[name] = value
        else:
            extra[name] = value
    if extra:
        sent["extra_body"] = extra
