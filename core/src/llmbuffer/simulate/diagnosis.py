"""Cache diagnostics as the providers give them: this prompt against that of an earlier response, by digests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from ..bodies import Piece
from ..frozen import wire_json
from .refusals import RefusedError

__all__ = ["Fingerprint", "Fingerprints", "anthropic_diagnosis", "fingerprint", "openai_diagnosis"]

_BYTES = 8  # of a digest: enough to compare the prompts of one test run
# Other params of Anthropic's that change what the cache sees: types/cache_miss_unavailable.py.
_OTHER = ("thinking", "tool_choice", "output_config", "cache_control")


class Fingerprint(msgspec.Struct, frozen=True):
    """Digests of one prompt by section, those of the messages in a row, and the values that diagnoses name."""

    model: bytes
    tools: bytes
    system: bytes
    messages: bytes
    tokens: int
    fields: Mapping[str, bytes]


class Fingerprints:
    """The latest ``limit`` prompts by the id of their response and the scope they were sent in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[tuple[str, str], Fingerprint] = OrderedDict()

    def put(self, scope: str, response_id: str, value: Fingerprint) -> None:
        """Remember a prompt."""
        self._known[scope, response_id] = value
        if len(self._known) > self._limit:
            self._known.popitem(last=False)

    def get(self, scope: str, response_id: str) -> Fingerprint | None:
        """The prompt that led to this response."""
        return self._known.get((scope, response_id))

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    def __len__(self) -> int:
        return len(self._known)


def fingerprint(body: Mapping[str, Any], found: Sequence[Piece], tokens: int) -> Fingerprint:
    """The digests of a prompt; no text is kept."""
    wires: dict[str, list[bytes]] = {"tools": [], "system": [], "messages": []}
    for piece in found:
        wires[piece.section].append(_digest(piece.wire))
    text, reasoning = _of(body, "text"), _of(body, "reasoning")
    named = {
        "prompt_cache_key": body.get("prompt_cache_key"),
        "text_format": text.get("format"),
        "verbosity": text.get("verbosity"),
        "reasoning_effort": reasoning.get("effort"),
        "service_tier": body.get("service_tier"),
        "speed": body.get("speed"),
        **{name: body.get(name) for name in _OTHER if name != "cache_control"},
    }
    return Fingerprint(
        _digest(str(body.get("model")).encode()),
        _digest(b"".join(wires["tools"])),
        _digest(b"".join(wires["system"])),
        b"".join(wires["messages"]),
        tokens,
        {name: _digest(wire_json(value)) for name, value in named.items() if value is not None},
    )


def _digest(value: bytes) -> bytes:
    return blake2b(value, digest_size=_BYTES).digest()


def _of(body: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = body.get(field)
    return value if isinstance(value, Mapping) else {}


def anthropic_diagnosis(
    body: Mapping[str, Any], scope: str, now: Fingerprint, known: Fingerprints, read_tokens: int
) -> dict[str, Any] | None:
    """The field ``diagnostics``: null where nobody asked and where nothing parted (types/message.py)."""
    before_id = _of(body, "diagnostics").get("previous_message_id")
    if before_id is None:
        return None
    if not isinstance(before_id, str):
        raise RefusedError("diagnostics.previous_message_id: Input should be a valid string")
    before = known.get(scope, before_id)
    if before is None:
        return {"cache_miss_reason": {"type": "previous_message_not_found"}}
    missed = {"cache_missed_input_tokens": max(0, before.tokens - read_tokens)}
    if before.model != now.model or _differ(before, now, "speed"):
        return {"cache_miss_reason": {"type": "model_changed", **missed}}
    for section in ("tools", "system"):
        if getattr(before, section) != getattr(now, section):
            return {"cache_miss_reason": {"type": f"{section}_changed", **missed}}
    if not now.messages.startswith(before.messages):
        return {"cache_miss_reason": {"type": "messages_changed", **missed}}
    if any(_differ(before, now, field) for field in _OTHER):
        return {"cache_miss_reason": {"type": "unavailable"}}
    return None


def openai_diagnosis(
    body: Mapping[str, Any], scope: str, now: Fingerprint, known: Fingerprints, read_tokens: int
) -> dict[str, Any] | None:
    """The field ``prompt_cache_diagnostics``; ``None`` where nobody asked (types/responses/response.py)."""
    before_id = _of(body, "prompt_cache_options").get("comparison_response_id")
    if before_id is None:
        return None
    before = known.get(scope, before_id) if isinstance(before_id, str) else None
    if before is None:
        return {"type": "comparison_response_not_found"}
    reason = _reason(before, now)
    if reason is None:
        return {"type": "cache_hit"} if read_tokens else {"type": "unavailable"}
    missed = max(0, before.tokens - read_tokens)
    return {"type": "cache_miss", "reason": reason, "cache_missed_tokens": missed}


def _reason(before: Fingerprint, now: Fingerprint) -> str | None:
    if before.model != now.model:
        return "model_changed"
    if _differ(before, now, "prompt_cache_key"):
        return "prompt_cache_key_changed"
    if before.tools != now.tools:
        return "tools_changed"
    for field in ("text_format", "reasoning_effort", "verbosity", "service_tier"):
        if _differ(before, now, field):
            return f"{field}_changed"
    if before.system != now.system or not now.messages.startswith(before.messages):
        return "input_changed"
    return None


def _differ(before: Fingerprint, now: Fingerprint, field: str) -> bool:
    return before.fields.get(field) != now.fields.get(field)
