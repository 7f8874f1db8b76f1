"""llmbuffer keeps the prompts of LLM agents cacheable.

It splits each prompt into what is stable and what is dynamic, keeps the stable part byte-identical, forks sessions
instead of rebuilding them, and says what broke when a cache is missed.
"""

from __future__ import annotations

from typing import Any

from .breaks import CacheBreak
from .cache import CacheModel, Lookup
from .context import CacheKey, Segment, StableContext
from .errors import (
    DialectError,
    EncodingError,
    FrozenError,
    LLMBufferError,
    LoopError,
    LossyError,
    MessageError,
    PairingError,
    PlacementError,
    PluginError,
    PriceError,
    ReplayError,
    UnknownDialectError,
    UnknownModelError,
)
from .forecast import Forecast
from .ledger import Ledger
from .messages import Message
from .observing import Observation
from .parts import File, Image, Opaque, Reasoning, Text, ToolCall, ToolResult
from .plugins import get_dialect
from .prices import Price
from .request import Request
from .rules import CacheRules, Dialect
from .session import Session
from .tokens import TokenCounter
from .tools import Tool
from .usage import Usage

__all__ = [
    "CacheBreak",
    "CacheKey",
    "CacheModel",
    "CacheRules",
    "Dialect",
    "DialectError",
    "EncodingError",
    "File",
    "Forecast",
    "FrozenError",
    "Image",
    "LLMBufferError",
    "Ledger",
    "Lookup",
    "LoopError",
    "LossyError",
    "Message",
    "MessageError",
    "Observation",
    "Opaque",
    "PairingError",
    "PlacementError",
    "PluginError",
    "Price",
    "PriceError",
    "Reasoning",
    "ReplayError",
    "Request",
    "Segment",
    "Session",
    "StableContext",
    "Text",
    "TokenCounter",
    "Tool",
    "ToolCall",
    "ToolResult",
    "UnknownDialectError",
    "UnknownModelError",
    "Usage",
    "get_dialect",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read when asked for: looking it up takes a tenth of the time of this import
        from importlib import metadata

        return metadata.version("llmbuffer")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
