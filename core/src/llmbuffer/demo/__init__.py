"""The demo: one agent session, sent to a real engine as programs send it by default, and through llmbuffer.

``run_demo`` measures the arms (see ``arms``) and returns a ``Demo``, whose ``to_json`` is what ``llmbuffer demo --json``
prints. The engine is llama.cpp's server with a small model of random weights, on this machine; where it is not installed,
the same arms run against a model of its cache, and everything is marked as simulated.
"""

from __future__ import annotations

from .figures import ArmFigures, Demo
from .run import run_demo

__all__ = ["ArmFigures", "Demo", "run_demo"]
