"""Which requests are asked of a model, and in which wire format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..bodies import Wire

__all__ = ["model_of", "wire_at"]

_PATHS: tuple[tuple[re.Pattern[str], Wire], ...] = (
    (re.compile(r"/chat/completions/?$"), "openai"),
    (re.compile(r"/responses/?$"), "openai-responses"),
    (re.compile(r"/messages/?$"), "anthropic"),
    (re.compile(r":(?:streamGenerateContent|generateContent|rawPredict|streamRawPredict)$"), "gemini"),
    (re.compile(r"/model/[^/]+/(?:invoke|invoke-with-response-stream)$"), "anthropic"),
)
_MODEL = re.compile(r"/models?/([^/:]+)(?=[:/])")


def wire_at(path: str, body: Any) -> Wire | None:
    """The wire format of a request to this path of a URL; ``None`` for what is not asked of a model.

    >>> wire_at("/v1/messages", {"messages": []}), wire_at("/v1/messages/count_tokens", {"messages": []})
    ('anthropic', None)
    """
    if not isinstance(body, Mapping):
        return None
    found = next((wire for pattern, wire in _PATHS if pattern.search(path)), None)
    if found == "gemini" and "contents" not in body:
        return "anthropic" if "messages" in body else None
    return found


def model_of(body: Mapping[str, Any], path: str) -> str:
    """The model as the body names it, or the path, where the API has it there.

    >>> model_of({"contents": []}, "/v1beta/models/gemini-3.1-pro:generateContent")
    'gemini-3.1-pro'
    """
    named = body.get("model")
    if isinstance(named, str) and named:
        return named
    found = _MODEL.search(path)
    return found[1] if found else ""
