"""Breakpoints for Anthropic behind AutoGen's client, which drops every field of a message that it does not know.

So a mark travels as text at the end of what it marks, and becomes ``cache_control`` when the SDK is called. What the client
does to messages on the way (joining, reordering, filling in) does not matter then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["marked_text", "with_breakpoints"]

# Private-use characters: no text holds them by chance, and every client passes them on.
_SHORT, _LONG = "\ue0f1\ue0f2\ue0f1", "\ue0f1\ue0f3\ue0f1"


def marked_text(text: str, *, long: bool) -> str:
    """The text with a breakpoint behind it.

    >>> with_breakpoints({"system": marked_text("Be kind.", long=False)})["system"]
    [{'type': 'text', 'text': 'Be kind.', 'cache_control': {'type': 'ephemeral'}}]
    """
    return text + (_LONG if long else _SHORT)


def with_breakpoints(body: Mapping[str, Any], tools: bool | None = None) -> dict[str, Any]:
    """The arguments of ``messages.create`` with marks in text made breakpoints; strings become lists of one text block.

    ``tools`` asks for a breakpoint behind the last tool, and says whether it is a long one.
    """
    made = dict(body)
    system = made.get("system")
    if isinstance(system, str) and system:
        made["system"] = _text_blocks({"type": "text", "text": system})
    made["messages"] = [_message(each) for each in made.get("messages") or ()]
    if tools is not None and made.get("tools"):
        last = {**made["tools"][-1], "cache_control": _control(long=tools)}
        made["tools"] = [*made["tools"][:-1], last]
    if "messages" not in body:
        del made["messages"]
    return made


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if isinstance(content, str) and content:
        content = [{"type": "text", "text": content}]
    if not isinstance(content, list):
        return dict(message)
    return {**message, "content": [block for each in content for block in _blocks(each)]}


def _blocks(block: Any) -> list[Any]:
    if not isinstance(block, dict):
        return [block]
    if block.get("type") == "text":
        return _text_blocks(block)
    if block.get("type") == "tool_result":
        return [_result(block)]
    return [block]


def _text_blocks(block: dict[str, Any]) -> list[dict[str, Any]]:
    """One text, cut behind each mark in it."""
    out: list[dict[str, Any]] = []
    rest = block["text"]
    while rest:
        text, long, rest = _cut(rest)
        if text:
            out.append({**block, "text": text})
        if long is not None and out:
            out[-1]["cache_control"] = _control(long=long)
    return out


def _result(block: dict[str, Any]) -> dict[str, Any]:
    content, marks = block.get("content"), []
    if isinstance(content, str):
        content, long = _unmarked(content)
        marks.append(long)
    elif isinstance(content, list):
        cut = [_unmarked(each["text"]) if _is_text(each) else (None, None) for each in content]
        content = [
            each if text is None else {**each, "text": text}
            for each, (text, _) in zip(content, cut, strict=True)
        ]
        marks += [long for _, long in cut]
    found = [long for long in marks if long is not None]
    return {**block, "content": content} | ({"cache_control": _control(long=found[-1])} if found else {})


def _is_text(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "text"


def _unmarked(text: str) -> tuple[str, bool | None]:
    """A text without its mark, and whether it had a long one; ``None`` for none."""
    out, last = "", None
    while text:
        before, long, text = _cut(text)
        out, last = out + before, last if long is None else long
    return out, last


def _cut(text: str) -> tuple[str, bool | None, str]:
    """What stands before the first mark, whether that is a long one, and what stands behind it."""
    found = [(text.index(mark), mark) for mark in (_SHORT, _LONG) if mark in text]
    if not found:
        return text, None, ""
    at, mark = min(found)
    return text[:at], mark == _LONG, text[at + len(mark) :]


def _control(*, long: bool) -> dict[str, str]:
    return {"type": "ephemeral", "ttl": "1h"} if long else {"type": "ephemeral"}
