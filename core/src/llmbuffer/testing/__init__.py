"""For tests: assertions about prefixes and hit ratios, fakes, and the prefix guard (a pytest plugin).

The guard checks every conversation that a test runs. Turn it on with ``llmbuffer_prefix_guard = true`` in the pytest
configuration; a test that moves the prefix on purpose says ``@pytest.mark.moves_prefix(reason="…")``.
"""

from __future__ import annotations

from .fakes import FakeClock, reply
from .prefix import assert_prefix_stable
from .ratio import assert_hit_ratio

__all__ = ["FakeClock", "assert_hit_ratio", "assert_prefix_stable", "reply"]
