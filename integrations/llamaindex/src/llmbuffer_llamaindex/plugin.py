"""What ``llmbuffer plugins`` finds of this distribution; importing it loads no framework."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from llmbuffer.hookspecs import Register, hookimpl

__all__ = ["CAPABILITIES", "FRAMEWORKS", "register_adapters"]

FRAMEWORKS = (("llama-index-core", ">=0.14.6,<0.15"),)
CAPABILITIES = ("observe", "buffer", "team", "fork", "async", "stream", "structured", "memory", "summary")


def _module() -> Any:
    return import_module("llmbuffer_llamaindex")


@hookimpl
def register_adapters(register: Register) -> None:
    """Offer the adapter for LlamaIndex."""
    register("llamaindex", _module)
