"""Whether each request begins with the one before it, read off the bodies that are sent.

A body is laid out as blocks in the order model, tools, system, messages, without breakpoints. A message is a block of
its own (its role and further fields), then one block for each content part and tool call; a string counts as one text
part. Keys keep the order in which they are sent, since caches see it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from ..frozen import wire_json
from ..layout import render_dynamic
from ..request import Request
from ..rules import MARK_FIELDS

__all__ = [
    "Block", "assert_prefix_stable", "blocks_of", "body_laid_out", "cut", "difference", "dynamic_wires", "laid_out", "last_run", "sections",
]  # fmt: skip

_SYSTEM = ("system", "instructions", "systemInstruction")
_MESSAGES = ("messages", "input", "contents")
_LISTS = ("content", "parts", "tool_calls")
_EXCERPT = 30  # characters on each side of a difference
T = TypeVar("T")


class Block(NamedTuple):
    """A piece of a prompt: where it stands in the body, and its JSON as it is sent."""

    path: str
    wire: bytes


def assert_prefix_stable(
    requests: Iterable[Mapping[str, Any] | Request], *, dynamic: Iterable[str | re.Pattern[str]] = ()
) -> None:
    """Assert that each request of one conversation begins with the one before it.

    ``requests`` are request bodies of any dialect, in the order sent (as an SDK got or sent them), or ``Request``
    objects. ``dynamic`` announces texts that may come and go: text parts that equal one of them, as given or as llmbuffer
    renders it, or that a pattern matches as a whole. The dynamic segments of ``Request`` objects are known.

    Raises ``AssertionError`` that names the first request and the place where the prefix moved.

    >>> first = {"messages": [{"role": "user", "content": "It is 12:00. Hello"}]}
    >>> second = {"messages": [{"role": "user", "content": "It is 12:01. Hello"}, {"role": "assistant", "content": "Hi"}]}
    >>> assert_prefix_stable([first, second])
    Traceback (most recent call last):
    AssertionError: request 1 does not begin with request 0: messages[0].content differs at character 10:
      was 'It is 12:00. Hello'
      now 'It is 12:01. Hello'
    1 of 2 blocks before it are the same. ...
    """
    __tracebackhide__ = True
    announced = tuple(dynamic)
    before: list[Block] | None = None
    for index, request in enumerate(requests):
        after = [block for item in _announced_left_out(request, index, announced) for block in item]
        found = None if before is None else difference(before, after)
        if found is not None:
            raise AssertionError(f"request {index} does not begin with request {index - 1}: {found}")
        before = after


def _announced_left_out(
    request: Mapping[str, Any] | Request, index: int, announced: tuple[str | re.Pattern[str], ...]
) -> list[Sequence[Block]]:
    items = laid_out(request, index)
    return [item for item in (_without(item, announced) for item in items) if item] if announced else items


def _without(item: Sequence[Block], announced: tuple[str | re.Pattern[str], ...]) -> Sequence[Block]:
    kept = [block for block in item if not _is_announced(block, announced)]
    return () if len(kept) == 1 < len(item) else kept


def _is_announced(block: Block, announced: tuple[str | re.Pattern[str], ...]) -> bool:
    value = json.loads(block.wire)
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str):
        return False
    inner = re.fullmatch(r'<context name="[^\n]*">\n(.*)\n</context>', text, re.DOTALL)
    texts = {text, inner[1]} if inner is not None else {text}
    return any(
        each in texts if isinstance(each, str) else any(map(each.fullmatch, texts)) for each in announced
    )


def laid_out(request: Mapping[str, Any] | Request, index: int = 0) -> list[Sequence[Block]]:
    """The blocks of a request, in one list for the model, each tool, each system text and each message.

    Dynamic segments of a ``Request`` are left out. Raises ``ValueError`` for a body that holds no messages.

    >>> [block.path for item in laid_out({"messages": [{"role": "user", "content": "hi"}]}) for block in item]
    ['messages[0]', 'messages[0].content']
    """
    if isinstance(request, Request):
        return body_laid_out(request.body, dynamic_wires(request))
    if not isinstance(request, Mapping) or not any(key in request for key in _MESSAGES):
        found = sorted(request) if isinstance(request, Mapping) else type(request).__name__
        raise ValueError(
            f"request {index} is no request body: found {found}, expected a mapping with 'messages'"
        )
    return body_laid_out(request, [])


def body_laid_out(body: Mapping[str, Any], dynamic: Sequence[bytes]) -> list[Sequence[Block]]:
    """``laid_out`` for a body and the dynamic texts that were announced with it, as blocks are sent."""
    items: list[Sequence[Block]] = []
    if "model" in body:
        items.append([Block("model", wire_json(body["model"]))])
    for section, key in sections(body):
        items += [_placed(blocks_of(item, section), key, number) for number, item in _numbered(body[key])]
    at = last_run([[block.wire for block in item] for item in items], dynamic)
    if at is not None:
        cut(items, at, len(dynamic))
    return items


def dynamic_wires(request: Request) -> list[bytes]:
    """The announced dynamic texts of a request, as blocks are sent."""
    return [wire_json(request.dialect.dynamic_part(text)) for text in render_dynamic(request.dynamic)]


def sections(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that a body has, each with the name of its field."""
    named = [("tools", ("tools",)), ("system", _SYSTEM), ("messages", _MESSAGES)]
    return [(section, key) for section, keys in named for key in keys if body.get(key)]


def _numbered(value: Any) -> list[tuple[int | None, Any]]:
    return [(None, value)] if isinstance(value, str | Mapping) else list(enumerate(value))


def _placed(blocks: Sequence[Block], key: str, number: int | None) -> Sequence[Block]:
    at = key if number is None else f"{key}[{number}]"
    return [Block(at + block.path, block.wire) for block in blocks]


def blocks_of(item: Any, section: str) -> list[Block]:
    """The blocks of one tool, system text or message, with paths relative to it."""
    value = _plain(item)
    if isinstance(value, str):
        return [Block("", _wire({"type": "text", "text": value}))]
    if section != "messages":
        return [Block("", _wire(value))]
    fields = {key: field for key, field in value.items() if key not in _LISTS or field is None}
    blocks = [Block("", _wire(fields))]
    for key in _LISTS:
        content = value.get(key)
        if isinstance(content, str):
            blocks.append(Block(f".{key}", _wire({"type": "text", "text": content})))
        elif content is not None:
            blocks += [Block(f".{key}[{index}]", _wire(part)) for index, part in enumerate(content)]
    return blocks


def _plain(value: Any) -> Any:
    """Objects of the SDKs (replies that a program hands back as they came) as the mappings that are sent."""
    dump = getattr(value, "model_dump", None)
    return value if dump is None else dump(mode="json", exclude_unset=True)


def _wire(part: Any) -> bytes:
    return wire_json(_unmarked(part))


def _unmarked(part: Any) -> Any:
    value = _plain(part)
    if not isinstance(value, Mapping):
        return value
    kept = {key: field for key, field in value.items() if key not in MARK_FIELDS}
    if set(kept) == {"type", "text"}:  # the SDKs' objects put the keys of a text part in another order
        return {"type": kept["type"], "text": kept["text"]}
    if kept.get("type") == "tool_result" and isinstance(kept.get("content"), list | tuple):
        kept["content"] = [_unmarked(inner) for inner in kept["content"]]
    return kept


def last_run(items: Sequence[Sequence[bytes]], run: Sequence[bytes]) -> tuple[int, int] | None:
    """Where ``run`` occurs last inside one of the ``items``, behind its first element: (item, start)."""
    wanted = list(run)
    for number in range(len(items) - 1, -1, -1) if wanted else ():
        item = list(items[number])
        if wanted[0] in item:
            for start in range(len(item) - len(wanted), 0, -1):
                if item[start : start + len(wanted)] == wanted:
                    return number, start
    return None


def cut(items: list[Sequence[T]], at: tuple[int, int], length: int) -> None:
    """Take ``length`` elements out of one of the ``items``, and the item itself if only its first element is left."""
    number, start = at
    rest = [*items[number][:start], *items[number][start + length :]]
    items[number : number + 1] = [rest] if len(rest) > 1 else []


def difference(before: Sequence[Block], after: Sequence[Block]) -> str | None:
    """What keeps ``after`` from beginning with ``before``, for people; ``None`` if it does."""
    same = 0
    while same < len(before) and same < len(after) and before[same].wire == after[same].wire:
        same += 1
    if same == len(before):
        return None
    advice = (
        f"{same} of {len(before)} blocks before it are the same. Text that changes goes to the dynamic content, and "
        "what was sent stays as it was"
    )
    if same == len(after):
        return f"it ends before {before[same].path}, which was sent already.\n{advice}"
    old, new = before[same], after[same]
    if _section(old.path) != _section(new.path) or old.path.count(".") != new.path.count("."):
        return f"{new.path} stands where {old.path} was:\n  was {_short(old)}\n  now {_short(new)}\n{advice}"
    return f"{_located(old, new)}\n{advice}"


def _section(path: str) -> str:
    return re.split(r"[.\[]", path)[0]


def _short(block: Block) -> str:
    text = block.wire.decode()
    return text if len(text) <= 2 * _EXCERPT else text[: 2 * _EXCERPT] + "…"


def _located(old: Block, new: Block) -> str:
    path, was, now = _leaf(json.loads(old.wire), json.loads(new.wire), new.path)
    if not new.path.endswith("]"):  # a string that counts as a text part
        path = path.removesuffix(".text")
    moved = "" if old.path == new.path else f" (was {old.path})"
    if isinstance(was, str) and isinstance(now, str):
        at = _shared(was, now)
        return (
            f"{path}{moved} differs at character {at}:\n  was {_excerpt(was, at)}\n  now {_excerpt(now, at)}"
        )
    return f"{path}{moved} differs:\n  was {_excerpt(_json(was), 0)}\n  now {_excerpt(_json(now), 0)}"


def _shared(was: str, now: str) -> int:
    pairs = enumerate(zip(was, now, strict=False))
    return next((index for index, (old, new) in pairs if old != new), min(len(was), len(now)))


def _json(value: Any) -> str:
    return "nothing" if value is _NOTHING else wire_json(value).decode()


_NOTHING = object()


def _leaf(was: Any, now: Any, path: str) -> tuple[str, Any, Any]:
    """The first place inside a block where two values differ; the order of keys is a difference too."""
    if isinstance(was, dict) and isinstance(now, dict):
        if list(was) != list(now) and set(was) == set(now):
            return f"{path} (order of keys)", ", ".join(was), ", ".join(now)
        for key in [*was, *(key for key in now if key not in was)]:
            if was.get(key, _NOTHING) != now.get(key, _NOTHING) or wire_json(was[key]) != wire_json(now[key]):
                return _leaf(was.get(key, _NOTHING), now.get(key, _NOTHING), f"{path}.{key}".lstrip("."))
    if isinstance(was, list) and isinstance(now, list):
        for index, (old, new) in enumerate(zip(was, now, strict=False)):
            if wire_json(old) != wire_json(new):
                return _leaf(old, new, f"{path}[{index}]")
    return path, was, now


def _excerpt(text: str, at: int) -> str:
    start, end = max(0, at - _EXCERPT), at + _EXCERPT
    lead, trail = "…" if start else "", "…" if end < len(text) else ""
    return repr(lead + text[start:end] + trail)
