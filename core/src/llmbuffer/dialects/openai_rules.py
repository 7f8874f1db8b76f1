"""Cache rules of OpenAI's models, as data.

Two regimes: up to gpt-5.5 the longest common prefix, free to write; from gpt-5.6 on stored entries that end at
breakpoints, with a fee for writing.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from ..rules import CacheRules

__all__ = ["rules_for"]

_GUIDE = "OpenAI, prompt caching guide"
_SDK = "openai 3.54.0, types/chat/completion_create_params.py"
_PRICES = "litellm 1.109.1, model price table"
_FROZEN = frozenset(
    {"reasoning_effort", "response_format", "verbosity", "service_tier", "tool_choice", "functions"}
)

PREFIX = CacheRules(
    name="openai-prefix",
    match="prefix",
    min_tokens=1024,
    step=128,
    ttl=300.0,
    ttl_long=86_400.0,
    read_multiplier=0.1,
    per_key_rate=15 / 60,
    frozen_params=_FROZEN,
    routing_field="prompt_cache_key",
    sources={
        "match": f"{_GUIDE}: exact prefix matches",
        "min_tokens": f"{_GUIDE}: 1,024 tokens or longer",
        "step": f"{_GUIDE}: hits in increments of 128 tokens",
        "ttl": f"{_GUIDE}: 5 to 10 minutes of inactivity; the careful end",
        "ttl_long": f"{_SDK}: prompt_cache_retention '24h'",
        "read_multiplier": _PRICES,
        "per_key_rate": f"{_GUIDE}: about 15 requests a minute for one prefix and key",
        "frozen_params": f"{_GUIDE}: tools, schema of structured output, reasoning effort and verbosity are part of it",
    },
)

ENTRIES = CacheRules(
    name="openai-entries",
    match="entries",
    min_tokens=1024,
    slots=3,
    implicit=True,
    ttl=1_800.0,
    ttl_long=43_200.0,
    read_multiplier=0.1,
    write_multiplier=1.25,
    write_long_multiplier=2.5,
    per_key_rate=15 / 60,
    markable=frozenset({"text", "image_url", "input_audio", "file"}),
    frozen_params=_FROZEN - {"tool_choice"},
    instruction_role="developer",
    content_parts="always",
    routing_field="prompt_cache_key",
    sources={
        "match": f"{_SDK}: the longest stored prefix ending at a breakpoint, without a look-back limit",
        "min_tokens": f"{_GUIDE}: 1,024 visible input tokens",
        "slots": f"{_SDK}: one implicit breakpoint and writes up to the latest 3 explicit ones",
        "ttl": f"{_SDK}: ttl '30m', a minimum lifetime",
        "ttl_long": f"{_SDK}: ttl '12h'",
        "write_multiplier": _PRICES,
        "write_long_multiplier": _PRICES,
        "markable": f"{_SDK}: content parts of messages; marks on tool results are disputed, so none are sent",
        "frozen_params": f"{_GUIDE}: tool_choice 'allowed_tools' keeps the cache",
    },
)

DEEPSEEK_STEPS = CacheRules(
    name="deepseek-steps",
    match="prefix",
    min_tokens=64,
    step=64,
    ttl=7_200.0,
    read_multiplier=0.1,
    sources={
        "match": "DeepSeek, context caching guide of 2024: any prefix, in storage units of 64 tokens",
        "ttl": "DeepSeek, context caching guide: hours to days, best effort; the careful end",
        "read_multiplier": "DeepSeek, price page of 2025: a hit costs a tenth",
    },
)

UNKNOWN = CacheRules(
    name="openai-compatible",
    match="prefix",
    min_tokens=1024,
    step=128,
    read_multiplier=1.0,
    frozen_params=_FROZEN,
    sources={"match": "no rules known for this model: nothing is promised, no field of OpenAI's own is sent"},
)

_READ = {
    "gpt-4o": 0.5,
    "gpt-4.1": 0.25,
    "o3": 0.25,
    "o4": 0.25,
    "o1": 0.5,
    "gpt-6.1": 0.05,
}  # litellm 1.109.1
_VERSION = re.compile(r"gpt-(\d)(?!\d)(?:\.(\d+))?")  # no second digit: Azure writes gpt-35 for 3.5


def rules_for(model: str) -> CacheRules:
    """The rules of one model; ``UNKNOWN`` for names that OpenAI does not use.

    >>> rules_for("gpt-5.5").match, rules_for("gpt-5.6-sol").match, rules_for("my-model").name
    ('prefix', 'entries', 'openai-compatible')
    """
    if model.startswith(("deepseek-chat", "deepseek-reasoner")):
        return DEEPSEEK_STEPS
    family = next((name for name in sorted(_READ, key=len, reverse=True) if model.startswith(name)), None)
    version = _VERSION.match(model)
    if version is not None and (int(version[1]), int(version[2] or 0)) >= (5, 6):
        base = ENTRIES
    elif version is not None or family is not None:
        base = PREFIX
    else:
        return UNKNOWN
    return base if family is None else replace(base, read_multiplier=_READ[family])
