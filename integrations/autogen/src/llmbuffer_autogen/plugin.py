"""What ``llmbuffer plugins`` finds of this distribution; importing it loads no framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmbuffer.hookspecs import Register, hookimpl

__all__ = ["CAPABILITIES", "FRAMEWORKS", "register_adapters"]

FRAMEWORKS = (
    ("autogen", ">=0.9,<0.15"),
    ("ag2", ">=0.9,<1"),
    ("pyautogen", ">=0.9,<0.10"),
    ("autogen-agentchat", ">=0.7.5,<0.8"),
)
CAPABILITIES = ("observe", "buffer", "team", "fork", "async", "stream", "structured")


def _module() -> Any:
    return import_module("llmbuffer_autogen")


@hookimpl
def register_adapters(register: Register) -> None:
    """Offer the adapter for AutoGen, classic and agentchat."""
    register("autogen", _module)
