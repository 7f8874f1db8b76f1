"""How an agent's prompt begins: as CrewAI lays it out, with the brief, or with the tools of all and the brief."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llmbuffer import Tool
from llmbuffer.reconcile.tooling import Offer

from .hosting import same, tool_name

__all__ = ["ToolLayout", "without"]

_ENDS = (".", "!", "?")  # of sentences, before a space
_FULL_STOP = "\u3002"  # which no space follows
_CLOSING = "\"')]"


class ToolLayout:
    """The tools of a crew, each name once, in the order of its agents, and how its prompts begin.

    With ``crewai`` the brief stands in each agent's backstory, where CrewAI's users have it; with ``own`` the brief goes
    first, behind each agent's own tools. With ``union`` all send the same tools, so that the prompts of all agents begin
    alike; which of them an agent may use is said in the request or in its own part of the system text.

    >>> tools = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("look", "cook")]
    >>> ToolLayout(tools, "union").offer(tools[1:], structured=False).hidden
    ('look',)
    """

    def __init__(self, tools: Sequence[Any] = (), name: str = "own") -> None:
        self.name = name
        self._union = {tool_name(tool): tool for tool in tools}

    @property
    def tools(self) -> tuple[Any, ...]:
        """The tools of all."""
        return tuple(self._union.values())

    def offer(self, tools: Sequence[Any] | None, *, structured: bool) -> Offer | None:
        """All tools, and which of them are hidden; ``None`` where a request goes out with its own.

        That is so where an agent has tools that the crew was not made with (those for delegation, say), and where an object of
        a schema is asked for, which some providers ask for by a tool.
        """
        if self.name != "union" or structured or not self._union:
            return None
        given = {tool_name(tool): tool for tool in tools or ()}
        if any(name not in self._union or not same(tool, self._union[name]) for name, tool in given.items()):
            return None
        return Offer(
            self.tools,
            tuple(Tool.of(tool) for tool in self.tools),
            tuple(name for name in self._union if name not in given),
            tuple(name for name in self._union if name in given),
        )

    def system(self, briefs: Sequence[str], own: str, role: str | None) -> list[str]:
        r"""The system texts of a prompt: the shared ones and the agent's own, or one text as CrewAI has it.

        >>> ToolLayout((), "own").system(["Bake."], "You are Ann. Be kind.", "Ann")
        ['Bake.', 'You are Ann. Be kind.']
        >>> ToolLayout((), "crewai").system(["Bake."], "You are Ann. Be kind.", "Ann")
        ['You are Ann. Bake.\n\nBe kind.']
        """
        head = f"You are {role}. "
        if self.name != "crewai" or role is None or not own.startswith(head):
            return [*briefs, *([own] if own else [])]
        rest = own[len(head) :]
        between = "" if rest.startswith("\n") else "\n\n"
        return [head + "\n\n".join(briefs) + between + rest]


def without(text: str, part: str) -> str:
    """The text without the first place of a part, where that begins and ends with a line or a sentence.

    >>> without("You are Ann. Be kind. You bake.", "Be kind."), without("You are Ann. Bakewell tarts.", "Bake")
    ('You are Ann.  You bake.', 'You are Ann. Bakewell tarts.')
    """
    start = text.find(part) if part else -1
    while start >= 0:
        end = start + len(part)
        if _parted(text[:start], text[start:]) and _parted(text[:end], text[end:]):
            return text[:start] + text[end:]
        start = text.find(part, start + 1)
    return text


def _parted(before: str, behind: str) -> bool:
    """Whether a line or a sentence ends between two texts."""
    head, tail = before.rstrip(" \t"), behind.lstrip(" \t")
    if not head or not tail or head.endswith("\n") or tail.startswith("\n"):
        return True
    spaced = len(head) < len(before) or len(tail) < len(behind)
    said = head.rstrip(_CLOSING)
    return said.endswith(_FULL_STOP) or (spaced and said.endswith(_ENDS))
