"""LlamaIndex with prompts that stay cacheable: model, memory, chat store, and forks of workflows.

    from llama_index.llms.openai import OpenAI
    from llmbuffer_llamaindex import BufferedLLM

    llm = BufferedLLM(OpenAI("gpt-5.5"))  # an OpenAI still: use it wherever that went
    llm.seam.account().usage  # what was used, cached tokens included

Names are loaded when they are asked for: importing this package loads no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbuffer.reconcile import dynamic_text, persona

    from .chat_store import BufferedChatStore
    from .convert import LlamaHost
    from .fork import fork_workflow
    from .memory import BufferedMemory
    from .model import BufferedLLM

__all__ = [
    "BufferedChatStore",
    "BufferedLLM",
    "BufferedMemory",
    "LlamaHost",
    "dynamic_text",
    "fork_workflow",
    "persona",
]

_PLACES = {
    "BufferedChatStore": ".chat_store",
    "BufferedLLM": ".model",
    "BufferedMemory": ".memory",
    "LlamaHost": ".convert",
    "dynamic_text": "llmbuffer.reconcile",
    "fork_workflow": ".fork",
    "persona": "llmbuffer.reconcile",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    place = _PLACES[name]
    if place.startswith("."):
        from .framework import check

        check()
    return getattr(import_module(place, __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
