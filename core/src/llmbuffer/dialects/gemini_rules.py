"""Cache rules of Google's Gemini models, as data: those of the implicit cache, which no request asks for."""

from __future__ import annotations

from msgspec.structs import replace

from ..rules import CacheRules

__all__ = ["rules_for"]

_GUIDE = "Google, Gemini API, context caching guide"
_PRICES = "litellm 1.109.1, model price table"

BASE = CacheRules(
    name="gemini",
    match="prefix",
    min_tokens=4096,
    ttl=300.0,
    read_multiplier=0.1,
    visible_after="end",
    frozen_params=frozenset(
        [
            "cached_content",
            "cachedContent",
            "generation_config",
            "generationConfig",
            "media_resolution",
            "mediaResolution",
            "response_json_schema",
            "responseJsonSchema",
            "response_mime_type",
            "responseMimeType",
            "response_modalities",
            "responseModalities",
            "response_schema",
            "responseSchema",
            "thinking_config",
            "thinkingConfig",
            "tool_config",
            "toolConfig",
        ]
    ),
    sources={
        "match": f"{_GUIDE}: requests with a common prefix, from 2.5 on; no guarantee, no parameter, no fee for writing",
        "min_tokens": f"{_PRICES}, and {_GUIDE} for 2.5; the largest known figure, 6,144 on Vertex AI, for other names",
        "step": "undocumented; cached counts are taken as they come",
        "ttl": "undocumented; 5 minutes, the shortest lifetime that any provider documents, as the careful value",
        "read_multiplier": _PRICES,
        "visible_after": "undocumented; the end of the response is the careful value",
        "frozen_params": "undocumented; all that changes how the prompt is laid out or read, as the careful choice",
    },
)

_MINIMUM = {
    "gemini-2.5": 2048,
    "gemini-3.1-pro": 4096,
    "gemini-3.5-flash": 4096,
    "gemini-3.6-flash": 4096,
    "gemini-3.7-flash": 4096,
    "gemini-3.8-flash": 4096,
    "gemini-4-argon": 4096,
}  # tokens below which nothing is cached; litellm 1.109.1, and Google's guide for 2.5 Flash
_READ = {"gemini-4-argon": 0.05}  # litellm 1.109.1; the others a tenth
_CAREFUL_MINIMUM = 6144  # some models on Vertex AI: litellm 1.109.1
_CAREFUL_READ = 0.25  # what a read cost when Google introduced implicit caching


def rules_for(model: str) -> CacheRules:
    """The rules of one model, by the longest beginning of its name that the table knows.

    Other ``gemini-`` names get careful figures; names that are not Gemini's the same ones and a name that says so.

    >>> rules_for("models/gemini-2.5-pro").min_tokens, rules_for("gemini-4-argon").read_multiplier
    (2048, 0.05)
    >>> rules_for("gemini-5-flash").min_tokens, rules_for("gemma-4").name
    (6144, 'gemini-unknown')
    """
    name = model.rsplit("/", 1)[-1].lower()
    known = [family for family in _MINIMUM if name.startswith(family)]
    if known:
        family = max(known, key=len)
        return replace(
            BASE, min_tokens=_MINIMUM[family], read_multiplier=_READ.get(family, BASE.read_multiplier)
        )
    return replace(
        BASE,
        name="gemini" if name.startswith("gemini-") else "gemini-unknown",
        min_tokens=_CAREFUL_MINIMUM,
        read_multiplier=_CAREFUL_READ,
    )
