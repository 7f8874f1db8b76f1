"""llmbuffer keeps the prompts of LLM agents cacheable.

It splits each prompt into what is stable and what is dynamic, keeps the stable part byte-identical, forks sessions
instead of rebuilding them, and says what broke when a cache is missed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import errors
from .breaks import CacheBreak
from .context import CacheKey, Segment, StableContext
from .errors import (
    ConflictError,
    FrozenError,
    HookError,
    LLMBufferError,
    LossyError,
    MessageError,
    PairingError,
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

if TYPE_CHECKING:
    from .compaction import (
        ClipToolOutput,
        Compaction,
        DropReasoning,
        ElideToolResults,
        Summarizer,
        Truncator,
    )
    from .explaining import explain
    from .fanout import fan_out
    from .graph import TaskGraph
    from .store import open_store
    from .team import Member, Team

__all__ = [
    "CacheBreak",
    "CacheKey",
    "CacheRules",
    "ClipToolOutput",
    "Compaction",
    "ConflictError",
    "Dialect",
    "DropReasoning",
    "ElideToolResults",
    "File",
    "Forecast",
    "FrozenError",
    "HookError",
    "Image",
    "LLMBufferError",
    "Ledger",
    "LossyError",
    "Member",
    "Message",
    "MessageError",
    "Observation",
    "Opaque",
    "PairingError",
    "Price",
    "Reasoning",
    "Request",
    "Segment",
    "Session",
    "StableContext",
    "Summarizer",
    "TaskGraph",
    "Team",
    "Text",
    "TokenCounter",
    "Tool",
    "ToolCall",
    "ToolResult",
    "Truncator",
    "Usage",
    "explain",
    "fan_out",
    "get_dialect",
    "open_store",
]


# Side rooms and hooks, loaded when first asked for: the request path gets along without them.
_LATER = {
    "ClipToolOutput": "compaction",
    "Compaction": "compaction",
    "DropReasoning": "compaction",
    "ElideToolResults": "compaction",
    "Member": "team",
    "Summarizer": "compaction",
    "TaskGraph": "graph",
    "Team": "team",
    "Truncator": "compaction",
    "explain": "explaining",
    "fan_out": "fanout",
    "open_store": "store",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # read when asked for: looking it up takes a tenth of the time of this import
        from importlib import metadata

        return metadata.version("llmbuffer")
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    if name.endswith("Error") and name in errors.__all__:
        return getattr(errors, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
