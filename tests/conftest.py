"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Programs that import a framework, or run in an environment of their own: there is no doctest in them to collect.
collect_ignore_glob = ["benchmarks/adapters/*", "benchmarks/peers/hosts/*"]

# A busy machine is no reason for a test to fail.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile("unhurried"), derandomize=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "unhurried")
