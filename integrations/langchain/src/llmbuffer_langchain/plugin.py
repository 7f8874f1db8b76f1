"""What ``llmbuffer plugins`` finds of this distribution; importing it loads no framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmbuffer.hookspecs import Register, hookimpl

__all__ = ["CAPABILITIES", "FRAMEWORKS", "register_adapters"]

FRAMEWORKS = (("langchain-core", ">=1.6,<2"),)
CAPABILITIES = (
    "observe",
    "buffer",
    "team",
    "fork",
    "async",
    "stream",
    "structured",
    "memory",
    "summary",
    "cache",
)


def _module() -> Any:
    return import_module("llmbuffer_langchain")


@hookimpl
def register_adapters(register: Register) -> None:
    """Offer the adapter for LangChain and LangGraph."""
    register("langchain", _module)
