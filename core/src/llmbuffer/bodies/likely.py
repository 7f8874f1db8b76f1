"""Whose dialect a request is likely to be in, by what it says and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .formats import Wire

__all__ = ["likely_dialect"]


def likely_dialect(body: Mapping[str, Any], wire: Wire, host: str = "") -> str:
    """The built-in dialect that a body of this wire format, sent to this host, is likely to be of.

    A server of one's own speaks OpenAI's format: it is told from OpenAI by the fields that only it has.

    >>> likely_dialect({"model": "deepseek-chat"}, "openai"), likely_dialect({"model": "m", "cache_salt": "s"}, "openai")
    ('deepseek', 'vllm')
    """
    if wire != "openai":
        return wire
    if "cache_prompt" in body or "id_slot" in body:
        return "llamacpp"
    if "cache_salt" in body:
        return "vllm"
    model = str(body.get("model", ""))
    deepseek = model.removeprefix("deepseek/").startswith("deepseek") or host.endswith("deepseek.com")
    return "deepseek" if deepseek else "openai"
