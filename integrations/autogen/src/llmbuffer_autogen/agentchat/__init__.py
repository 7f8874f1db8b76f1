"""The agentchat generation: model clients, contexts and teams of autogen-core and autogen-agentchat.

The framework is imported when a name is used; ``ImportError`` says what to install where it is missing or too old.

>>> from llmbuffer_autogen.agentchat import BufferedChatCompletionClient
>>> BufferedChatCompletionClient.component_type
'model'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmbuffer.reconcile import dynamic_text, persona

if TYPE_CHECKING:
    from .client import BufferedChatCompletionClient
    from .context import BufferedChatCompletionContext
    from .convert import ModelHost
    from .forking import TeamFork, fork_team

__all__ = [
    "BufferedChatCompletionClient",
    "BufferedChatCompletionContext",
    "ModelHost",
    "TeamFork",
    "dynamic_text",
    "fork_team",
    "persona",
]

_PLACES = {
    "BufferedChatCompletionClient": "client",
    "BufferedChatCompletionContext": "context",
    "ModelHost": "convert",
    "TeamFork": "forking",
    "fork_team": "forking",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ..generations import needed

    needed("agentchat")
    found = getattr(import_module(f".{_PLACES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
