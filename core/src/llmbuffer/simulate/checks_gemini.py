"""What Gemini's API refuses, each rule with its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..bodies import Piece
from ..rules import CacheRules
from .refusals import RefusedError

__all__ = ["check_gemini", "check_to_cache"]

_ROLES = ("user", "model", "function", "tool")
_HELD = {  # what a cached content holds already: google-genai 3.4.0, types.py, CreateCachedContentConfig
    "systemInstruction": "system_instruction",
    "tools": "tools",
    "toolConfig": "tool_config",
}


def check_gemini(body: Mapping[str, Any], _found: Sequence[Piece], _rules: CacheRules) -> None:
    """Raise ``RefusedError`` for what generateContent answers with a 400."""
    contents = body.get("contents")
    if not contents:
        raise RefusedError("* GenerateContentRequest.contents: contents is not specified")
    _check_roles(contents)
    if body.get("cachedContent", body.get("cached_content")) is not None:
        given = [snake for camel, snake in _HELD.items() if body.get(camel, body.get(snake)) is not None]
        if given:
            raise RefusedError(
                "CachedContent can not be used with GenerateContent request setting system_instruction, tools or "
                f"tool_config: found {', '.join(given)}. Move those values to CachedContent."
            )


def _check_roles(contents: Any) -> None:
    for content in [contents] if isinstance(contents, Mapping) else contents:
        role = content.get("role") if isinstance(content, Mapping) else None
        if role is not None and role not in _ROLES:
            raise RefusedError(f"Please use a valid role: user, model. Found {role!r}.")


def check_to_cache(body: Mapping[str, Any], tokens: int, minimum: int) -> None:
    """Raise ``RefusedError`` for what cachedContents.create answers with a 400; ``tokens`` is what it holds."""
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise RefusedError("* CreateCachedContentRequest.cached_content.model: model is not specified")
    contents = body.get("contents")
    if contents:
        _check_roles(contents)
        last = contents if isinstance(contents, Mapping) else contents[-1]
        if isinstance(last, Mapping) and last.get("role") == "model":  # litellm's source, on context caching
            raise RefusedError("CachedContent contents must not end with a model turn")
    if tokens < minimum:
        raise RefusedError(
            f"Cached content is too small. total_token_count={tokens}, min_total_token_count={minimum}"
        )
