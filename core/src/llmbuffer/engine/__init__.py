"""A real llama.cpp engine on the loopback interface, and a model for it that is small enough for a test.

Needs the packages ``xllamacpp`` and ``gguf``; they are imported where they are used.
"""

from __future__ import annotations

from .server import EngineServer
from .tiny import write_tiny_model

__all__ = ["EngineServer", "write_tiny_model"]
