"""Cache rules of OpenAI's models, as data.

Two regimes: up to gpt-5.5 the longest common prefix, free to write; from gpt-5.6 on stored entries that end at
breakpoints, with a fee for writing.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from ..rules import CacheRules
from . import deepseek_rules

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
        "routing_field": f"{_SDK}: prompt_cache_key",
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
        "implicit": f"{_SDK}: prompt_cache_options mode 'implicit', the default: a breakpoint at the latest message",
        "ttl": f"{_SDK}: ttl '30m', a minimum lifetime",
        "ttl_long": f"{_SDK}: ttl '12h'",
        "read_multiplier": _PRICES,
        "write_multiplier": _PRICES,
        "write_long_multiplier": _PRICES,
        "markable": f"{_SDK}: content parts of messages; marks on tool results are disputed, so none are sent",
        "per_key_rate": f"{_GUIDE}: about 15 requests a minute for one key in all",
        "frozen_params": f"{_GUIDE}: tool_choice 'allowed_tools' keeps the cache",
        "instruction_role": f"{_SDK}: breakpoints stand on content parts of messages, so system text is such a message",
        "content_parts": f"{_SDK}: a breakpoint needs a content part; a string that becomes a list would move the prefix",
        "routing_field": f"{_SDK}: prompt_cache_key",
    },
)

UNKNOWN = CacheRules(
    name="openai-compatible",
    match="prefix",
    min_tokens=1024,
    step=128,
    read_multiplier=1.0,
    frozen_params=_FROZEN,
    sources=dict.fromkeys(
        ("match", "min_tokens", "step", "read_multiplier", "frozen_params"),
        "no rules known for this model: nothing is promised, no field of OpenAI's own is sent",
    ),
)

_READ = {
    "gpt-4o": 0.5,
    "gpt-4o-2024-05-13": 1.0,  # the rows of 1.0 have no price for reads
    "gpt-4o-audio": 1.0,
    "gpt-4o-mini-audio": 1.0,
    "gpt-4.1": 0.25,
    "gpt-5-pro": 1.0,
    "gpt-5.2-pro": 1.0,
    "gpt-5.4-pro": 1.0,
    "gpt-5.5-pro": 1.0,
    "gpt-6.1": 0.05,
    "o1": 0.5,
    "o1-pro": 1.0,
    "o3": 0.25,
    "o3-mini": 0.5,
    "o3-pro": 1.0,
    "o4": 0.25,
}  # litellm 1.109.1
_VERSION = re.compile(r"gpt-(\d)(?!\d)(?:\.(\d+))?")  # no second digit: Azure writes gpt-35 for 3.5
_DASHED = re.compile(r"^(gpt-\d)-(\d)(?!\d)")  # gpt-5-6 for gpt-5.6, and not gpt-5-2025-08-07


def rules_for(model: str) -> CacheRules:
    """The rules of one model; ``UNKNOWN`` for names that OpenAI does not use, and for its models older than gpt-4o.

    >>> rules_for("gpt-5.5").match, rules_for("gpt-5.6-sol").match, rules_for("my-model").name
    ('prefix', 'entries', 'openai-compatible')
    """
    deepseek = deepseek_rules.rules_for(model)
    if deepseek is not None:  # their endpoint by way of this dialect
        return deepseek
    name = _DASHED.sub(r"\1.\2", model.lower())
    family = max((known for known in _READ if name.startswith(known)), key=len, default=None)
    found = _VERSION.match(name)
    version = (int(found[1]), int(found[2] or 0)) if found is not None else (0, 0)
    if version >= (5, 6):
        base = ENTRIES
    elif version > (4, 0) or family is not None:
        base = PREFIX
    else:
        return UNKNOWN
    return base if family is None else replace(base, read_multiplier=_READ[family])
