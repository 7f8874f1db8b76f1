"""Running the calls of a reply: which tool, with what arguments, and a result for the model whatever happens."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from .chain import Node, walk
from .dialects.base import INVALID_JSON
from .errors import EncodingError, LoopError
from .frozen import freeze, wire_json
from .messages import Message
from .parts import File, Image, Opaque, Part, Text, ToolCall, ToolResult

__all__ = ["Executor", "arun", "check_executor", "error_result", "open_calls", "run"]

Executor: TypeAlias = Mapping[str, Callable[..., Any]] | Callable[[str, dict[str, Any]], Any]

_CONTENT = (Text, Image, File, Opaque)


class _RefusedError(Exception):
    """Why a call is answered without running anything; the text is for the model."""


def check_executor(tools: object, *, asynchronous: bool) -> None:
    """Raise ``LoopError`` for what cannot run tools: nothing callable, or coroutines where nobody awaits them."""
    if tools is None:
        return
    named = tools if isinstance(tools, Mapping) else {"tools": tools}
    for name, tool in named.items():
        if not callable(tool):
            raise LoopError(
                f"{name!r} is a {type(tool).__name__}: tools are a mapping from name to callable, or one "
                "callable(name, arguments)"
            )
        if inspect.iscoroutinefunction(tool) and not asynchronous:
            raise LoopError(f"{name!r} is asynchronous: use arespond or astream, or give a plain function")


def open_calls(tip: Node) -> tuple[ToolCall, ...]:
    """The calls that await results at the end of a history, in the order in which the model made them.

    >>> from llmbuffer import Session, StableContext
    >>> session = Session(StableContext("gpt-5.5"))
    >>> session.append(Message("assistant", [ToolCall("call_1", "search", "{}")]))
    >>> [call.name for call in open_calls(session.tip)]
    ['search']
    """
    answered: list[str] = []
    for node in walk(tip):
        message = node.message
        if not isinstance(message, Message):
            continue
        answered += (result.call_id for result in message.tool_results)
        if message.call_ids or not message.tool_results:
            return tuple(
                call for part in message.parts if (call := _call(part)) and not _take(answered, call.id)
            )
    return ()


def _take(answered: list[str], call_id: str) -> bool:
    """Whether the call was answered; two calls of one id need two answers."""
    if call_id not in answered:
        return False
    answered.remove(call_id)
    return True


def _call(part: Part) -> ToolCall | None:
    """The call in a part; of a provider's own kinds, those with a name and one input (``{"input": …}``)."""
    if isinstance(part, ToolCall):
        return part
    if not isinstance(part, Opaque) or part.slot != "tool_calls":
        return None
    call = part.value
    kind = str(call.get("type"))
    inner = call.get(kind)
    inner = inner if isinstance(inner, Mapping) else {}
    arguments = inner.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({"input": inner.get("input")}, ensure_ascii=False)
    return ToolCall(str(call["id"]), str(inner.get("name") or kind), arguments)


def run(call: ToolCall, tools: Executor, known: Sequence[str]) -> ToolResult:
    """Run one call. What the tool raises becomes an error result; ``known`` are the tools that the model was told of.

    Raises ``LoopError`` if the tool turns out to be asynchronous, and whatever is no ``Exception``.

    >>> run(ToolCall("1", "add", '{"a": 1, "b": 2}'), {"add": lambda a, b: a + b}, ["add"]).content
    '3'
    >>> run(ToolCall("2", "add", "[1, 2]"), {"add": max}, ["add"]).is_error
    True
    """
    try:
        value = _bound(call, tools, known)()
        result = None if inspect.isawaitable(value) else _result(call, value)
    except _RefusedError as refusal:
        return error_result(call, str(refusal))
    except Exception as error:  # noqa: BLE001 - the model reads what went wrong in a tool, and the turn goes on
        return error_result(call, f"{type(error).__name__}: {error}")
    if result is None:
        refuse_awaitable(value, f"tool {call.name!r} is asynchronous: use arespond or astream")
    return result


async def arun(
    call: ToolCall, tools: Executor, known: Sequence[str], *, limit: float | None = None
) -> ToolResult:
    """``run`` for asynchronous tools; others run in a worker thread. ``limit`` in seconds (default: none).

    A tool in a thread cannot be stopped: after its time it runs on, and what it returns is dropped.
    """
    try:
        bound = _bound(call, tools, known)
        with anyio.move_on_after(limit):
            return _result(call, await _outcome(bound, abandon=limit is not None))
    except _RefusedError as refusal:
        return error_result(call, str(refusal))
    except Exception as error:  # noqa: BLE001 - the model reads what went wrong in a tool, and the turn goes on
        return error_result(call, f"{type(error).__name__}: {error}")
    return error_result(call, f"TimeoutError: the tool {call.name!r} took longer than {limit:g} seconds")


async def _outcome(bound: partial[Any], *, abandon: bool) -> Any:
    if inspect.iscoroutinefunction(bound.func):
        return await bound()
    value = await anyio.to_thread.run_sync(bound, abandon_on_cancel=abandon)
    return await value if inspect.isawaitable(value) else value


def refuse_awaitable(value: object, message: str) -> NoReturn:
    """Close a coroutine that nobody will await, and raise ``LoopError``."""
    if inspect.iscoroutine(value):
        value.close()
    raise LoopError(message)


def _bound(call: ToolCall, tools: Executor, known: Sequence[str]) -> partial[Any]:
    if call.name not in known:
        raise _RefusedError(
            f"unknown tool {call.name!r}, nothing was run: the tools are {', '.join(known) or 'none'}"
        )
    if isinstance(tools, Mapping) and call.name not in tools:
        raise _RefusedError(f"tool {call.name!r} cannot be used here, nothing was run")
    arguments = _arguments(call)
    if isinstance(tools, Mapping):
        return partial(tools[call.name], **arguments)
    return partial(tools, call.name, arguments)


def _arguments(call: ToolCall) -> dict[str, Any]:
    """The arguments as an object; models write nothing at all for a tool without parameters."""
    if not call.arguments.strip():
        return {}
    try:
        value = json.loads(call.arguments, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(f"the arguments are not JSON, nothing was run: {error}") from None
    if not isinstance(value, dict):
        raise _RefusedError(
            f"the arguments are a JSON {type(value).__name__}, nothing was run: write a JSON object"
        )
    if value.keys() == {INVALID_JSON}:
        raise _RefusedError("the arguments are not JSON, nothing was run: write a complete JSON object")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def error_result(call: ToolCall, text: str) -> ToolResult:
    """A result that tells the model what went wrong; characters that UTF-8 cannot carry are replaced."""
    return ToolResult(call.id, text.encode("utf-8", "replace").decode(), is_error=True)


def _result(call: ToolCall, value: object) -> ToolResult:
    if isinstance(value, ToolResult):
        return ToolResult(call.id, value.content, value.is_error)
    return ToolResult(call.id, _content(value))


def _content(value: object) -> str | tuple[Text | Image | File | Opaque, ...]:
    """Text as it is, parts as parts; anything else as JSON, or failing that as ``str`` shows it."""
    if isinstance(value, str):
        return value
    parts = tuple(value) if isinstance(value, list | tuple) else (value,)
    content = tuple(part for part in parts if isinstance(part, _CONTENT))
    if content and len(content) == len(parts):
        return content
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    try:
        return wire_json(freeze(value, "result")).decode()
    except EncodingError:
        return _rich(value)


def _rich(value: object) -> str:
    """Data classes, dates, sets (sorted) and their like as JSON."""
    try:
        dump = getattr(value, "model_dump", None)
        plain = dump(mode="json") if dump is not None else msgspec.to_builtins(value, order="deterministic")
        return wire_json(freeze(plain, "result")).decode()
    except (EncodingError, TypeError, ValueError):
        return str(value)
