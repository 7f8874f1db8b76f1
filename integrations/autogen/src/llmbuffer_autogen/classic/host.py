"""What the core is told about the messages and tools of classic agents: mappings in OpenAI's chat format."""

from __future__ import annotations

from typing import Any

from llmbuffer import Tool
from llmbuffer.reconcile import DictHost

__all__ = ["ConversableHost"]


class ConversableHost(DictHost):
    """Messages in OpenAI's format with the ``name`` of who spoke; tools, and the older ``functions``.

    >>> ConversableHost().speaker({"role": "user", "name": "planner", "content": "Go on."})
    'planner'
    """

    by_reader = True  # an agent's own messages are an assistant's, those of all others a user's

    def to_tool(self, item: Any, /) -> Tool:
        """A tool: as it stands in ``tools``, or bare as in ``functions``."""
        if isinstance(item, dict) and "parameters" in item and "type" not in item:
            return Tool.of({"type": "function", "function": item})
        return super().to_tool(item)

    def speaker(self, item: Any, /) -> str | None:
        """Who said it, where the message names its speaker."""
        name = item.get("name") if isinstance(item, dict) else None
        return name if isinstance(name, str) and item.get("role") != "tool" else None
