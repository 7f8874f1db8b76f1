"""The adapter of llmbuffer for LangChain and LangGraph: prompts that stay cacheable, by swapping in one object.

LangChain is imported when a name is first used, so ``import llmbuffer_langchain`` is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbuffer.reconcile import dynamic_text, persona

    from .callback import BufferCallbackHandler
    from .convert import LangChainHost
    from .forking import fork_runnable
    from .history import BufferedChatMessageHistory
    from .llm_cache import BufferedCache
    from .middleware import BufferedMiddleware
    from .model import BufferedChatModel
    from .summarization import BufferedSummarization

__all__ = [
    "BufferCallbackHandler",
    "BufferedCache",
    "BufferedChatMessageHistory",
    "BufferedChatModel",
    "BufferedMiddleware",
    "BufferedSummarization",
    "LangChainHost",
    "dynamic_text",
    "fork_runnable",
    "persona",
]

_PLACES = {
    "BufferCallbackHandler": "callback",
    "BufferedCache": "llm_cache",
    "BufferedChatMessageHistory": "history",
    "BufferedChatModel": "model",
    "BufferedMiddleware": "middleware",
    "BufferedSummarization": "summarization",
    "LangChainHost": "convert",
    "fork_runnable": "forking",
}
_CORE = frozenset({"dynamic_text", "persona"})


def __getattr__(name: str) -> Any:
    if name in _CORE:
        return getattr(import_module("llmbuffer.reconcile"), name)
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(".framework", __name__).check()
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
