"""For tests: assertions about prefixes and hit ratios, fakes, contracts, and the prefix guard (a pytest plugin).

The guard checks every conversation that a test runs. Turn it on with ``llmbuffer_prefix_guard = true`` in the pytest
configuration; a test that moves the prefix on purpose says ``@pytest.mark.moves_prefix(reason="…")``.

``AdapterContract``, ``DialectContract`` and ``StoreContract`` are test suites for an adapter, a dialect and a store's back
end of your own; they are loaded when they are asked for, since they need pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .fakes import FakeClock, reply
from .prefix import assert_prefix_stable
from .ratio import assert_hit_ratio

if TYPE_CHECKING:
    from .adapters import AdapterContract, AdapterExamples, Agent, Group, Setup
    from .dialects import DialectContract, DialectExamples
    from .stores import StoreContract, StoreExamples

__all__ = [
    "AdapterContract",
    "AdapterExamples",
    "Agent",
    "DialectContract",
    "DialectExamples",
    "FakeClock",
    "Group",
    "Setup",
    "StoreContract",
    "StoreExamples",
    "assert_hit_ratio",
    "assert_prefix_stable",
    "reply",
]

_CONTRACTS = {
    "AdapterContract": "adapters",
    "AdapterExamples": "adapters",
    "Agent": "adapters",
    "Group": "adapters",
    "Setup": "adapters",
    "DialectContract": "dialects",
    "DialectExamples": "dialects",
    "StoreContract": "stores",
    "StoreExamples": "stores",
}
_REWRITTEN = ("adapter", "adapters", "dialect", "dialects", "store", "stores")


def __getattr__(name: str) -> Any:
    if name not in _CONTRACTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import sys
    from importlib import import_module

    try:
        import pytest
    except ModuleNotFoundError:
        raise ImportError("the contracts need pytest: pip install 'llmbuffer[testing]>=1'") from None

    # So that a failing promise shows the values that it compared.
    modules = {f"{__name__}.{module}" for module in _REWRITTEN}
    pytest.register_assert_rewrite(*sorted(modules - sys.modules.keys()))
    return getattr(import_module(f".{_CONTRACTS[name]}", __name__), name)
