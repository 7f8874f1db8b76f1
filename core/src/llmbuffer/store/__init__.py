"""Sessions and stable contexts that outlive a process, shared and safe: ``open_store`` opens a store.

``Backend`` is what a back end keeps; ``Envelope`` how bytes are named and wrapped before it sees them; ``Store`` is what
users hold. Names are loaded when they are asked for: who wants a policy alone gets no store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .backend import Backend, Size, Swept
    from .base import Store
    from .envelope import Envelope
    from .keys import Keyring, new_key
    from .levels import Levels
    from .opening import open_store
    from .records import Compiled, SessionRecord
    from .rotation import Rotated
    from .tiered import Tiers
    from .transfer import Imported
    from .upkeep import Finding, Forgotten
    from .values import Lease

__all__ = [
    "Backend",
    "Compiled",
    "Envelope",
    "Finding",
    "Forgotten",
    "Imported",
    "Keyring",
    "Lease",
    "Levels",
    "Rotated",
    "SessionRecord",
    "Size",
    "Store",
    "Swept",
    "Tiers",
    "new_key",
    "open_store",
]

_PLACES = {
    "Backend": "backend",
    "Compiled": "records",
    "Envelope": "envelope",
    "Finding": "upkeep",
    "Forgotten": "upkeep",
    "Imported": "transfer",
    "Keyring": "keys",
    "Lease": "values",
    "Levels": "levels",
    "Rotated": "rotation",
    "SessionRecord": "records",
    "Size": "backend",
    "Store": "base",
    "Swept": "backend",
    "Tiers": "tiered",
    "new_key": "keys",
    "open_store": "opening",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
