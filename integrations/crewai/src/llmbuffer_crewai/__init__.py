"""The adapter of llmbuffer for CrewAI: agents, tasks and crews off one shared session.

``AgentFactory`` makes them; ``BufferedLLM`` wraps the LLM of agents that you make yourself. ``dynamic_text`` and ``persona``
mark text in a role, a backstory or a task. CrewAI is imported when a name is used, since that takes seconds; where it is
missing or too old, ``ImportError`` says what was found and what to install.

>>> import llmbuffer_crewai
>>> "AgentFactory" in dir(llmbuffer_crewai)
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmbuffer.reconcile import dynamic_text, persona

    from .choosing import LayoutChoice
    from .factory import AgentFactory
    from .forking import CrewResult, CrewResults
    from .llm import BufferedLLM

__all__ = [
    "AgentFactory",
    "BufferedLLM",
    "CrewResult",
    "CrewResults",
    "LayoutChoice",
    "dynamic_text",
    "persona",
]

_MODULES = {
    "AgentFactory": "factory",
    "BufferedLLM": "llm",
    "CrewResult": "forking",
    "CrewResults": "forking",
    "LayoutChoice": "choosing",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _MODULES:
        _needed()
        found = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    else:
        found = getattr(import_module("llmbuffer.reconcile"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _needed() -> None:
    """Raise ``ImportError`` unless a CrewAI that this adapter knows is installed."""
    from llmbuffer.frameworks import installed

    from .plugin import FRAMEWORKS

    for found in installed(FRAMEWORKS):
        if found.problem is not None:
            raise ImportError(f"{found.problem}: pip install 'llmbuffer[crewai]>=1'")
