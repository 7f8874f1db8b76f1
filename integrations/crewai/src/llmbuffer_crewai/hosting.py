"""How CrewAI's messages, tools and replies are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from llmbuffer import Message
from llmbuffer.reconcile import DictHost

__all__ = ["FLAG", "CrewHost", "reply_message", "tool_name"]

FLAG = "cache_breakpoint"  # CrewAI's own mark on messages; it never reaches a provider
_OWN = frozenset({FLAG, "files", "raw_tool_call_parts"})  # fields of CrewAI's that no wire has


class CrewHost(DictHost):
    """CrewAI's messages: mappings in OpenAI's chat format, with some fields of its own.

    >>> host = CrewHost()
    >>> marked = {"role": "user", "content": "Bake.", "cache_breakpoint": True}
    >>> host.to_message(marked).text, host.leaves(marked) == host.leaves({"role": "user", "content": "Bake."})
    ('Bake.', True)
    """

    def to_message(self, item: Any, /) -> Message:
        """See ``Host``."""
        return super().to_message(_plain(item))

    def leaves(self, item: Any, /) -> tuple[Any, ...]:
        """See ``Host``; CrewAI sets its cache marks on some messages of a prompt and not on others."""
        if isinstance(item, Mapping) and FLAG in item:
            item = {key: value for key, value in item.items() if key != FLAG}
        return super().leaves(item)

    def speaker(self, item: Any, /) -> str | None:
        """Nobody: CrewAI's prompts hold one agent's own work."""
        return None


def _plain(item: Any) -> Any:
    """The message without CrewAI's own fields; one without content says nothing."""
    if not isinstance(item, Mapping) or _OWN.isdisjoint(item):
        return item
    return {key: value for key, value in item.items() if key not in _OWN}


def tool_name(tool: Any) -> str:
    """The name of a tool in OpenAI's or Anthropic's shape; empty where it has none.

    >>> tool_name({"type": "function", "function": {"name": "look_up"}})
    'look_up'
    """
    if not isinstance(tool, Mapping):
        return ""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, Mapping) else tool.get("name")
    return name if isinstance(name, str) else ""


def called(reply: Any) -> list[tuple[str, str]]:
    """The id and name of each tool that a reply calls; none for a text."""
    from crewai.utilities.agent_utils import extract_tool_call_info, is_tool_call_list

    if not isinstance(reply, list) or not is_tool_call_list(reply):
        return []
    found = (extract_tool_call_info(call) for call in reply)
    return [(str(info[0]), info[1]) for info in found if info is not None]


def reply_message(reply: Any) -> dict[str, Any] | None:
    """A reply as the message that CrewAI will put into its prompts; ``None`` where it will put in none."""
    from crewai.utilities.agent_utils import build_tool_calls_assistant_message

    if isinstance(reply, str):
        return {"role": "assistant", "content": reply} if reply else None
    if isinstance(reply, list):
        message, _ = build_tool_calls_assistant_message(reply)
        return None if message is None else dict(message)
    dump = getattr(reply, "model_dump_json", None)
    if dump is not None:
        return {"role": "assistant", "content": dump()}
    return None


def schemas(tools: Sequence[Any]) -> list[dict[str, Any]]:
    """CrewAI's tools as it sends them to a model with native tool calls."""
    from crewai.utilities.agent_utils import convert_tools_to_openai_schema

    return list(convert_tools_to_openai_schema(list(tools))[0])


def same(one: Any, other: Any) -> bool:
    """Whether two tools are sent as the same bytes, the order of their keys included."""
    return one is other or msgspec.json.encode(one) == msgspec.json.encode(other)
