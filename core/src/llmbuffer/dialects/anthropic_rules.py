"""Cache rules of Anthropic's models, as data."""

from __future__ import annotations

from msgspec.structs import replace

from ..rules import CacheRules

__all__ = ["rules_for"]

_GUIDE = "Anthropic, prompt caching guide (anthropics/skills, claude-api/shared/prompt-caching.md)"
_PRICES = "litellm 1.109.1, model price table"

BASE = CacheRules(
    name="anthropic",
    match="lookback",
    min_tokens=4096,
    slots=4,
    lookback=20,
    ttl=300.0,
    ttl_long=3_600.0,
    read_multiplier=0.1,
    write_multiplier=1.25,
    write_long_multiplier=2.0,
    markable=frozenset({"text", "image", "document", "search_result", "tool_use", "tool_result", "tool"}),
    frozen_params=frozenset({"thinking", "output_config", "speed", "container", "mcp_servers"}),
    message_params=frozenset({"tool_choice"}),
    content_parts="always",
    sources={
        "match": f"{_GUIDE}: one entry a breakpoint, looked up at most 20 positions back",
        "lookback": f"{_GUIDE}",
        "collapsed": f"{_GUIDE} takes a run of tool blocks as one position, others do not say so; an option of the dialect",
        "slots": f"{_GUIDE}: at most 4 breakpoints",
        "min_tokens": f"{_GUIDE}: 512 to 4,096 by model; {_PRICES} agrees; the careful end for unknown models",
        "ttl": f"{_GUIDE}: 5 minutes from the start of the request, refreshed by a read",
        "ttl_long": f"{_GUIDE}: ttl '1h'",
        "read_multiplier": _PRICES,
        "write_multiplier": _PRICES,
        "write_long_multiplier": _PRICES,
        "markable": "anthropic 2.12.0, types: blocks with cache_control; no thinking blocks, no empty text",
        "frozen_params": f"{_GUIDE}: speed, thinking and effort leave no message, and partly no system text, to read",
        "message_params": f"{_GUIDE}: tool_choice keeps tools and system, and drops the messages",
        "midway_role": "Anthropic, messages API: role 'system' between messages, on the models that take it",
        "content_parts": "anthropic 2.12.0, types: cache_control is a field of a block, and a string has none",
        "reasoning_bound": "anthropic 2.12.0, types: thinking block binding; which models, issue threads say",
        "tail_after_tool": "Anthropic, page on stop reasons: text after a tool result causes empty replies",
    },
)

# Tokens below which nothing is cached: Anthropic's guide and litellm 1.109.1. Of mythos-preview they say 2,048 and
# 512; the careful one is here.
_MINIMUM = {
    "fable-5": 512, "mythos-5": 512, "opus-5": 512, "sonnet-5-5": 512, "haiku-5-5": 512,
    "opus-4-8": 1024, "sonnet-5": 1024, "sonnet-4-6": 1024, "sonnet-4-5": 1024,
    "opus-4-7": 2048, "mythos-preview": 2048, "opus-4-5": 4096, "opus-4-6": 4096, "haiku-4-5": 4096,
}  # fmt: skip
_READ = {"opus-5-5": 0.05, "sonnet-5-5": 0.05, "fable-5-1": 0.025, "mythos-5-1": 0.025}  # litellm 1.109.1
_MIDWAY = (
    "opus-4-8",
    "opus-5",
    "fable-5",
    "sonnet-5-5",
)  # take {"role": "system"} between messages; sonnet-5 does not
_BOUND = ("fable-5-1", "opus-5-5", "sonnet-5-5")  # bind thinking to what is before it


def rules_for(model: str) -> CacheRules:
    """The rules of one model, by the longest part of its name that the tables know.

    >>> rules_for("claude-sonnet-5.5").min_tokens, rules_for("claude-haiku-4-5-20251001").min_tokens
    (512, 4096)
    """
    name = model.replace(".", "-")
    known = [part for part in _MINIMUM if part in name]
    if not known:
        return replace(BASE, name="anthropic-unknown")
    family = max(known, key=len)
    read = next((rate for part, rate in _READ.items() if part in name), BASE.read_multiplier)
    midway = "system" if any(part in name for part in _MIDWAY) else None
    bound = any(part in name for part in _BOUND)
    return replace(
        BASE,
        min_tokens=_MINIMUM[family],
        read_multiplier=read,
        midway_role=midway,
        reasoning_bound=bound,
    )
