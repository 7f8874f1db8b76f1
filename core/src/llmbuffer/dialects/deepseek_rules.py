"""Cache rules of DeepSeek's models, as data.

Two regimes: the models up to ``deepseek-chat`` and ``deepseek-reasoner`` read any prefix in steps of 64 tokens, those from
``deepseek-v4`` on whole stored units.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..rules import CacheRules

__all__ = ["STEPS", "UNITS", "rules_for"]

_GUIDE = "DeepSeek, guide on context caching (api-docs.deepseek.com/guides/kv_cache)"
_OLD_GUIDE = "DeepSeek, context caching guide of 2024"
_TTL = "hours to days, best effort; the careful end"

STEPS = CacheRules(
    name="deepseek-steps",
    match="prefix",
    min_tokens=64,
    step=64,
    ttl=7_200.0,
    read_multiplier=0.1,
    stores_output=True,
    sources={
        "match": f"{_OLD_GUIDE}: any prefix, in storage units of 64 tokens",
        "step": f"{_OLD_GUIDE}: the same",
        "min_tokens": f"{_OLD_GUIDE}: less than one unit is not stored",
        "ttl": f"{_OLD_GUIDE}: {_TTL}",
        "read_multiplier": "DeepSeek, price page of 2025: a hit costs a tenth",
        "stores_output": "recorded usage of mini-swe-agent sessions",
    },
)

UNITS = CacheRules(
    name="deepseek-units",
    match="units",
    ttl=7_200.0,
    read_multiplier=1 / 30,
    stores_output=True,
    frozen_params=frozenset({"reasoning_effort", "response_format", "thinking", "tool_choice"}),
    sources={
        "match": f"{_GUIDE}: units end with the user's input, with the reply, and where two requests part",
        "min_tokens": f"{_GUIDE}: none is stated",
        "ttl": f"{_GUIDE}: {_TTL}",
        "read_multiplier": "litellm 1.109.1, rows deepseek-v4-pro and deepseek-flash: read price by input price",
        "stores_output": f"{_GUIDE}: the end of the model's output is the end of a unit",
        "frozen_params": "no source says which fields change the prompt; the careful choice is those that may",
    },
)

_FLASH = 0.02  # the source is that of the multiplier above


def rules_for(model: str) -> CacheRules | None:
    """The rules of one model; ``None`` for names that are none of DeepSeek's own.

    >>> rules_for("deepseek-v4-pro").match, rules_for("deepseek-chat").step, rules_for("deepseek-coder")
    ('units', 64, None)
    """
    if model.startswith(("deepseek-chat", "deepseek-reasoner")):
        return STEPS
    if not model.startswith(("deepseek-v4", "deepseek-flash")):
        return None
    return replace(UNITS, read_multiplier=_FLASH) if "-flash" in model else UNITS
