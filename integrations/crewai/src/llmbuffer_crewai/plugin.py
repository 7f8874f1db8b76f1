"""What ``llmbuffer plugins`` finds of this distribution; importing it loads no framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmbuffer.hookspecs import Register, hookimpl

__all__ = ["CAPABILITIES", "FRAMEWORKS", "register_adapters"]

FRAMEWORKS = (("crewai", ">=1.15.29,<2"),)
CAPABILITIES = ("observe", "buffer", "fork", "async", "stream", "structured", "summary")


def _module() -> Any:
    return import_module("llmbuffer_crewai")


@hookimpl
def register_adapters(register: Register) -> None:
    """Offer the adapter for CrewAI."""
    register("crewai", _module)
