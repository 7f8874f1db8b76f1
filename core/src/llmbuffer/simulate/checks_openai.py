"""What OpenAI's two APIs refuse, each rule with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bodies import Piece
from ..rules import CacheRules
from .refusals import RefusedError

__all__ = ["check_chat", "check_responses"]

_ROLES = (
    "developer",
    "system",
    "user",
    "assistant",
    "tool",
    "function",
)  # SDK: types/chat/*_message_param.py
_INPUT_ROLES = (
    "user",
    "assistant",
    "system",
    "developer",
)  # SDK: types/responses/easy_input_message_param.py
_KEY = 64  # characters of a prompt_cache_key: OpenAI's API reference
_CHAT_OPTIONS = {"mode", "ttl"}  # SDK: types/chat/completion_create_params.py
_RESPONSES_OPTIONS = {
    "mode",
    "ttl",
    "prewarm",
    "comparison_response_id",
}  # SDK: types/responses/response_create_params.py


def check_chat(body: Mapping[str, Any], found: Sequence[Piece], rules: CacheRules) -> None:
    """Raise ``RefusedError`` for what Chat Completions answers with a 400."""
    _check_common(body, found, rules, _CHAT_OPTIONS, ("30m",))
    messages = body.get("messages")
    if messages is None:
        raise RefusedError(
            "Missing required parameter: 'messages'.", param="messages", code="missing_required_parameter"
        )
    if not messages:
        raise RefusedError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            param="messages",
            code="empty_array",
        )
    for index, message in enumerate(messages):
        _check_role(message["role"], _ROLES, f"messages[{index}].role")
    _check_chat_pairs(messages)


def _check_role(role: str, known: Sequence[str], param: str) -> None:
    if role not in known:
        listed = ", ".join(f"'{each}'" for each in known)
        message = f"Invalid value: '{role}'. Supported values are: {listed}."
        raise RefusedError(message, param=param, code="invalid_value")


def _check_chat_pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each tool message answers a call of the assistant message before it, and each call is answered (API reference)."""
    waiting: list[str] = []
    called_at = 0
    for index, message in enumerate(messages):
        if message["role"] == "tool":
            answered = message.get("tool_call_id")
            if answered not in waiting:
                raise RefusedError(
                    f"Invalid parameter: messages with role 'tool' must be a response to a preceding message with "
                    f"'tool_calls'; found tool_call_id {answered!r}.",
                    param=f"messages.[{index}].role",
                )
            waiting.remove(answered)
            continue
        _check_answered(waiting, called_at)
        waiting = [str(call.get("id")) for call in message.get("tool_calls") or ()]
        called_at = index
    _check_answered(waiting, called_at)


def _check_answered(waiting: Sequence[str], index: int) -> None:
    if waiting:
        raise RefusedError(
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
            f"The following tool_call_ids did not have response messages: {', '.join(waiting)}",
            param=f"messages.[{index}].role",
        )


def check_responses(body: Mapping[str, Any], found: Sequence[Piece], rules: CacheRules) -> None:
    """Raise ``RefusedError`` for what the Responses API answers with a 400."""
    for field in ("previous_response_id", "conversation", "prompt"):
        if body.get(field) is not None:
            raise RefusedError(
                f"The simulated server keeps no conversations: send the whole input instead of {field!r}.",
                param=field,
                code="unsupported_parameter",
            )
    _check_common(body, found, rules, _RESPONSES_OPTIONS, ("30m", "12h"))
    given = body.get("input")
    if given is None and body.get("instructions") is None:
        raise RefusedError(
            "Missing required parameter: 'input'.", param="input", code="missing_required_parameter"
        )
    items = given if isinstance(given, list) else []
    for index, item in enumerate(items):
        if item.get("type") in (None, "message"):
            _check_role(item["role"], _INPUT_ROLES, f"input[{index}].role")
    _check_items(items)


def _check_items(items: Sequence[Mapping[str, Any]]) -> None:
    """Calls and outputs of functions come in pairs, the call first (API reference)."""
    called: list[Any] = []
    for item in items:
        if item.get("type") == "function_call":
            called.append(item.get("call_id"))
        elif item.get("type") == "function_call_output":
            if item.get("call_id") not in called:
                raise RefusedError(
                    f"No tool call found for function call output with call_id {item.get('call_id')}.",
                    param="input",
                )
            called.remove(item.get("call_id"))
    if called:
        raise RefusedError(f"No tool output found for function call {called[0]}.", param="input")


def _check_common(
    body: Mapping[str, Any],
    found: Sequence[Piece],
    rules: CacheRules,
    options: set[str],
    ttls: Sequence[str],
) -> None:
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise RefusedError("you must provide a model parameter")
    key = body.get("prompt_cache_key")
    if key is not None and (not isinstance(key, str) or len(key) > _KEY):
        raise RefusedError(
            f"Invalid 'prompt_cache_key': string too long. Expected a string with maximum length {_KEY}.",
            param="prompt_cache_key",
            code="string_above_max_length",
        )
    retention = body.get("prompt_cache_retention")
    if retention not in (None, "in_memory", "24h"):  # SDK
        _refuse_value("prompt_cache_retention", retention, ("in_memory", "24h"))
    newer = rules.name.startswith("openai-entries") or body["model"].startswith("gpt-5.5")
    if newer and retention == "in_memory":  # SDK: from gpt-5.5 on, 24h only
        _refuse_value("prompt_cache_retention", retention, ("24h",))
    _check_options(body.get("prompt_cache_options"), options, ttls)
    _check_breakpoints(body, found)
    # SDK: options are "supported for gpt-5.6 and later models"; engines and other providers ignore what they do not know.
    if rules.name.startswith("openai-prefix"):
        marked = next((piece.path for piece in found if piece.mark is not None), None)
        if body.get("prompt_cache_options") is not None:
            raise RefusedError(
                "Unsupported parameter: 'prompt_cache_options' is not supported with this model.",
                param="prompt_cache_options",
                code="unsupported_parameter",
            )
        if marked is not None:
            raise RefusedError(
                f"Unsupported parameter: '{marked}.prompt_cache_breakpoint' is not supported with this model.",
                param=f"{marked}.prompt_cache_breakpoint",
                code="unsupported_parameter",
            )


def _check_breakpoints(body: Mapping[str, Any], found: Sequence[Piece]) -> None:
    """Breakpoints are on parts of the input: types/chat/*_part_*_param.py, types/responses/response_input_*_param.py."""
    for piece in found:
        if piece.mark is not None and (piece.section == "tools" or piece.kind == "output_text"):
            path = f"{piece.path}.prompt_cache_breakpoint"
            raise RefusedError(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")
    for key in ("messages", "input"):
        items = body.get(key)
        for index, item in enumerate(items if isinstance(items, list) else ()):
            content = item.get("content") if isinstance(item, Mapping) else None
            for number, part in enumerate(content if isinstance(content, list) else ()):
                mark = part.get("prompt_cache_breakpoint") if isinstance(part, Mapping) else None
                path = f"{key}[{index}].content[{number}].prompt_cache_breakpoint"
                if mark is not None and (not isinstance(mark, Mapping) or mark.get("mode") != "explicit"):
                    _refuse_value(f"{path}.mode", mark, ("explicit",))
                if isinstance(mark, Mapping) and mark.get("ttl") not in (None, "30m", "12h"):
                    _refuse_value(f"{path}.ttl", mark["ttl"], ("30m", "12h"))


def _check_options(options: Any, known: set[str], ttls: Sequence[str]) -> None:
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise RefusedError(
            "Invalid type for 'prompt_cache_options': expected an object.", param="prompt_cache_options"
        )
    for field, value in options.items():
        path = f"prompt_cache_options.{field}"
        if field not in known:
            raise RefusedError(f"Unknown parameter: '{path}'.", param=path, code="unknown_parameter")
        if field == "mode" and value not in ("implicit", "explicit"):
            _refuse_value(path, value, ("implicit", "explicit"))
        if field == "ttl" and value not in ttls:
            _refuse_value(path, value, ttls)


def _refuse_value(param: str, value: Any, known: Sequence[str]) -> None:
    listed = ", ".join(f"'{each}'" for each in known)
    raise RefusedError(
        f"Invalid value: '{value}'. Supported values are: {listed}.", param=param, code="invalid_value"
    )
