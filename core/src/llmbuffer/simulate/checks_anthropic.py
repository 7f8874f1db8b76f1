"""What Anthropic's Messages API refuses, each rule with its source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..bodies import Piece
from ..rules import CacheRules
from .refusals import RefusedError

__all__ = ["check_anthropic"]

# Where a rule stands: the guide (prompt caching guide), the page on pre-warming, the SDK's types (anthropic 2.12.0), or a
# response of the API as quoted in public issue threads (griffinmartin/opencode-claude-auth#121 for the number of marks,
# cnighswonger/claude-code-cache-fix#44 for the order of TTLs).
_UNMARKABLE = frozenset({"thinking", "redacted_thinking"})  # SDK: their types have no cache_control
_ROLES = ("user", "assistant", "system")  # SDK: types/message_param.py, types/system_message_param.py


def check_anthropic(
    body: Mapping[str, Any], found: Sequence[Piece], rules: CacheRules, *, counts: bool = False
) -> None:
    """Raise ``RefusedError`` for what the API answers with a 400; ``counts`` is for count_tokens, which generates nothing."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise RefusedError("model: Field required", param="model")
    if not counts:
        _check_max_tokens(body)
    messages = body.get("messages")
    if messages is None:
        raise RefusedError("messages: Field required", param="messages")
    if not messages:
        raise RefusedError("messages: at least one message is required", param="messages")
    _check_roles(messages, rules)
    _check_texts(body, messages)
    _check_pairs(messages)
    _check_marks(body, found)


def _check_max_tokens(body: Mapping[str, Any]) -> None:
    tokens = body.get("max_tokens")
    if tokens is None:  # SDK: required
        raise RefusedError("max_tokens: Field required", param="max_tokens")
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise RefusedError("max_tokens: Input should be an integer that is greater than or equal to 0")
    if tokens == 0:
        _check_prewarm(body)


def _check_prewarm(body: Mapping[str, Any]) -> None:
    """``max_tokens: 0`` fills the cache and says nothing; the page on pre-warming lists what it goes with."""
    choice = _of(body, "tool_choice").get("type")
    refused = {
        "stream": body.get("stream") is True,
        "thinking": _of(body, "thinking").get("type") in ("enabled", "adaptive"),
        "output_config.format": _of(body, "output_config").get("format") is not None,
        "tool_choice": choice in ("any", "tool"),
    }
    for field, found in refused.items():
        if found:
            raise RefusedError(f"max_tokens: 0 is not allowed together with {field}", param=field)


def _of(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body.get(field)
    return value if isinstance(value, Mapping) else {}


def _check_roles(messages: Sequence[Mapping[str, Any]], rules: CacheRules) -> None:
    before = None
    for index, message in enumerate(messages):
        role = message["role"]
        if role not in _ROLES:
            raise RefusedError(
                f"messages.{index}.role: Input should be 'user', 'assistant' or 'system', found {role!r}"
            )
        if role == "system" and rules.midway_role != "system":  # guide: some models only
            raise RefusedError(
                f'messages.{index}: Unexpected role "system". This model takes the top-level `system` parameter only'
            )
        if index == 0 and role != "user":
            raise RefusedError('messages: first message must use the "user" role')
        if role == "system" and before not in ("user", "system"):  # guide: after a user turn
            raise RefusedError(f'messages.{index}: a message with role "system" must follow a user message')
        before = role


def _check_texts(body: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> None:
    last = len(messages) - 1
    for index, message in enumerate(messages):
        content = message.get("content")
        if content is None:
            raise RefusedError(f"messages.{index}.content: Field required")
        # SDK: an assistant's last message is a prefill, and may be empty as a string.
        if content in ("", []) and not (index == last and message["role"] == "assistant"):
            raise RefusedError(f"messages.{index}: all messages must have non-empty content")
    holders = [("system", body.get("system"))]
    holders += [
        (f"messages.{index}.content", message.get("content")) for index, message in enumerate(messages)
    ]
    for path, content in holders:
        for number, block in enumerate(content if isinstance(content, list) else ()):
            _check_text(block, f"{path}.{number}")


def _check_text(block: Any, path: str) -> None:
    if not isinstance(block, Mapping) or block.get("type") != "text":
        return
    if not isinstance(block.get("text"), str):
        raise RefusedError(f"{path}.text: Field required")
    if not block["text"].strip():
        if block.get("cache_control") is not None:  # guide: empty text cannot be marked
            raise RefusedError(f"{path}: cache_control cannot be set for empty text blocks")
        raise RefusedError(f"{path}: text content blocks must be non-empty")


def _check_pairs(messages: Sequence[Mapping[str, Any]]) -> None:
    """Each ``tool_use`` has its ``tool_result`` in the next message, and the other way round (guide on tool use)."""
    turns = _turns(messages)
    for number, (index, blocks) in enumerate(turns):
        before = _ids(turns[number - 1][1], "tool_use", "id") if number else []
        for block in blocks:
            if block.get("type") == "tool_result" and block.get("tool_use_id") not in before:
                raise RefusedError(
                    f"messages.{index}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block.get('tool_use_id')}. Each `tool_result` block must have a corresponding `tool_use` block in "
                    "the previous message."
                )
        after = _ids(turns[number + 1][1], "tool_result", "tool_use_id") if number + 1 < len(turns) else []
        missing = [call for call in _ids(blocks, "tool_use", "id") if call not in after]
        if missing:
            raise RefusedError(
                f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: "
                f"{', '.join(missing)}. Each `tool_use` block must have a corresponding `tool_result` block in the next "
                "message."
            )


def _turns(messages: Sequence[Mapping[str, Any]]) -> list[tuple[int, list[Mapping[str, Any]]]]:
    """Blocks by turn: consecutive messages of one role are one; an instruction between them is none of its own."""
    turns: list[tuple[int, list[Mapping[str, Any]]]] = []
    previous = None
    for index, message in enumerate(messages):
        content = message.get("content")
        blocks = (
            [block for block in content if isinstance(block, Mapping)] if isinstance(content, list) else []
        )
        role = "user" if message["role"] == "system" else message["role"]
        if role == previous:
            turns[-1][1].extend(blocks)
        else:
            turns.append((index, blocks))
        previous = role
    return turns


def _ids(blocks: Sequence[Mapping[str, Any]], kind: str, field: str) -> list[str]:
    return [str(block.get(field)) for block in blocks if block.get("type") == kind]


def _check_marks(body: Mapping[str, Any], found: Sequence[Piece]) -> None:
    for path, control in _controls(body, ""):
        if not isinstance(control, Mapping) or control.get("type") != "ephemeral":
            raise RefusedError(f"{path}.type: Input should be 'ephemeral'")
        if control.get("ttl") not in (None, "5m", "1h"):  # SDK: types/cache_control_ephemeral_param.py
            raise RefusedError(f"{path}.ttl: Input should be '5m' or '1h'")
    marked = [piece for piece in found if piece.mark is not None]
    for piece in marked:
        if piece.kind in _UNMARKABLE:
            raise RefusedError(f"{_dotted(piece.path)}.cache_control: Extra inputs are not permitted")
    automatic = body.get("cache_control")
    count = len(marked) + (automatic is not None)  # SDK: the top-level one marks the last block
    if count > 4:
        raise RefusedError(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")
    lengths = [(_dotted(piece.path), piece.mark) for piece in marked]
    if isinstance(automatic, Mapping):
        own = "long" if automatic.get("ttl") == "1h" else "short"
        if found and found[-1].mark not in (None, own):  # guide: the two would contradict each other
            raise RefusedError("cache_control: the last block carries a cache_control with another ttl")
        lengths.append(("", "long" if own == "long" else "short"))
    short = False
    for path, length in lengths:
        if length == "long" and short:
            raise RefusedError(
                f"{path}{'.' if path else ''}cache_control.ttl: a ttl='1h' cache_control block must not come after a "
                "ttl='5m' cache_control block. Note that blocks are processed in the following order: `tools`, `system`, "
                "`messages`."
            )
        short = short or length == "short"


def _controls(holder: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    """Each ``cache_control`` with where it stands: of the request, of tools and blocks, and of blocks inside those."""
    if holder.get("cache_control") is not None:
        yield f"{path}cache_control", holder["cache_control"]
    for key in ("tools", "system", "messages", "content"):
        inner = holder.get(key)
        for number, item in enumerate(inner if isinstance(inner, list) else ()):
            if isinstance(item, Mapping):
                yield from _controls(item, f"{path}{key}.{number}.")


def _dotted(path: str) -> str:
    return re.sub(r"\[(\d+)\]", r".\1", path)
