"""The adapter of llmbuffer for AutoGen, both generations; neither needs the other, and each is imported when it is used.

Classic (``autogen``, ``ag2`` before 1, ``pyautogen`` before 0.10): ``BufferedAgentMixin``, ``BufferedConversableAgent``,
``BufferedGroupChat``, ``fork_group_chat``. agentchat (``autogen-agentchat``): ``BufferedChatCompletionClient``,
``BufferedChatCompletionContext``, ``fork_team``. A name whose framework is missing, too old or installed twice raises
``ImportError`` with what was found and what to install.

>>> import llmbuffer_autogen
>>> "BufferedConversableAgent" in dir(llmbuffer_autogen)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .agentchat import BufferedChatCompletionClient, BufferedChatCompletionContext, fork_team
    from .classic import BufferedAgentMixin, BufferedConversableAgent, BufferedGroupChat, fork_group_chat

__all__ = [
    "BufferedAgentMixin",
    "BufferedChatCompletionClient",
    "BufferedChatCompletionContext",
    "BufferedConversableAgent",
    "BufferedGroupChat",
    "fork_group_chat",
    "fork_team",
]

_CLASSIC = frozenset(
    {"BufferedAgentMixin", "BufferedConversableAgent", "BufferedGroupChat", "fork_group_chat"}
)


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .generations import Generation, needed

    generation: Generation = "classic" if name in _CLASSIC else "agentchat"
    needed(generation)
    found = getattr(import_module(f".{generation}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
