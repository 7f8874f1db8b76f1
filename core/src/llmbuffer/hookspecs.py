"""All hooks of llmbuffer, on one screen. A plugin implements any of them with ``hookimpl``.

A distribution registers its plugin module under the entry point group ``llmbuffer``. A hook gets a ``register`` callable:
``register(name, factory)``. The factory is called when the name is first asked for, so importing a plugin stays cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pluggy

__all__ = ["Register", "hookimpl", "hookspec"]

hookspec = pluggy.HookspecMarker("llmbuffer")
hookimpl = pluggy.HookimplMarker("llmbuffer")


class Register(Protocol):
    """What hooks are called with; raises ``PluginError`` if the name is taken."""

    def __call__(self, name: str, factory: Callable[[], Any]) -> None:
        """Offer ``factory`` under ``name``."""


@hookspec
def register_dialects(register: Register) -> None:
    """Offer dialects: ``register("openai", OpenAIChat)``. A factory returns an object that keeps ``rules.Dialect``."""


@hookspec
def register_adapters(register: Register) -> None:
    """Offer adapters for agent frameworks. A factory returns the adapter's module.

    The plugin may tell more, so that ``llmbuffer plugins`` can show it without importing a framework: ``FRAMEWORKS``, pairs of
    a distribution and its versions, as in ``(("langchain-core", ">=1.6,<2"),)``, of which one has to be there, and
    ``CAPABILITIES``, names of what the adapter can do, as in ``("observe", "buffer", "team")``.
    """


@hookspec
def register_stores(register: Register) -> None:
    """Offer stores by URL scheme: ``register("sqlite", open_sqlite)``. A factory returns a callable that opens a URL."""
