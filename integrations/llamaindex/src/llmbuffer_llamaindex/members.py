"""Which agent calls: LlamaIndex does not tell its LLMs, so it is seen from the system prompt and the tools."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any, NamedTuple

from llmbuffer.tools import Tool

__all__ = ["Companies", "Members"]

_LIMIT = 256
_ALIKE = 0.5  # of the sentences: a clock or a retrieved text changes fewer
_BORDER = re.compile(r"(?<=[.!?])\s+|\n+")


class _Known(NamedTuple):
    name: str | None
    system: str
    tools: frozenset[tuple[str, str | None]]


class Members:
    """Tells the agents that share one LLM apart; the first one has the name ``first``, the others are ``agent 2`` and so on.

    The same system prompt is the same agent. With ``alike``, so is one of which at least half the sentences were there before,
    if the tools are described alike: then something in it changes from call to call. A call without system prompt and tools is
    one of the first agent.

    >>> members = Members()
    >>> members.of("You write.", ()), members.of("You check facts.", ()), members.of("You write.", ())
    (None, 'agent 2', None)
    """

    def __init__(self, first: str | None = None, *, alike: bool = True) -> None:
        self._first, self._alike = first, alike
        self._known: list[_Known] = []  # the one that was seen last comes first
        self._number = 0
        self._lock = Lock()

    def of(self, system: str, tools: Sequence[Any]) -> str | None:
        """The name of the agent with this system prompt and these tools."""
        offered = frozenset(_described(tool) for tool in tools)
        if not system and not offered:
            return self._first
        with self._lock:
            found = self._same(system, offered) or self._like(system, offered)
            if found is None:
                self._number += 1
                name = self._first if self._number == 1 else f"agent {self._number}"
                found = _Known(name, system, offered)
            else:
                self._known.remove(found)
            self._known.insert(0, _Known(found.name, system, offered or found.tools))
            del self._known[_LIMIT:]
            return found.name

    def name(self, name: str, system: str, tools: Sequence[Any]) -> None:
        """Call the agent with this system prompt and these tools by its name from now on."""
        offered = frozenset(_described(tool) for tool in tools)
        with self._lock:
            self._known = [each for each in self._known if each.name != name]
            self._known.insert(0, _Known(name, system, offered))

    def _same(self, system: str, tools: frozenset[Any]) -> _Known | None:
        alike = [each for each in self._known if each.system == system]
        exact = next((each for each in alike if each.tools == tools), None)
        if exact is not None or not alike:
            return exact
        # Tools may be retrieved anew for each call, or left out of one; agents of a workflow differ in all of theirs.
        return next((each for each in alike if not tools or not each.tools or tools & each.tools), None)

    def _like(self, system: str, tools: frozenset[Any]) -> _Known | None:
        sentences = _sentences(system)
        if not sentences or not self._alike:
            return None
        alike = [each for each in self._known if each.tools == tools]
        return next((each for each in alike if _share(sentences, _sentences(each.system)) >= _ALIKE), None)


def _described(tool: Any) -> tuple[str, str | None]:
    read = Tool.of(tool)
    return read.name, read.description


def _sentences(text: str) -> frozenset[str]:
    return frozenset(each for each in _BORDER.split(text) if each.strip())


def _share(one: frozenset[str], other: frozenset[str]) -> float:
    """How much of the longer of two texts stands in the other one too.

    >>> _share(frozenset("ab"), frozenset("abcd"))
    0.5
    """
    return len(one & other) / max(len(one), len(other), 1)


class Companies:
    """Which conversation of a team a prompt belongs to, where nobody named it: the one that it goes on from, or a new one.

    >>> companies = Companies()
    >>> first = companies.of([1, 2])
    >>> companies.of([1, 2, 3]) == first, companies.of([1, 4]) == first, companies.of([1, 2, 3]) == first
    (True, False, True)
    """

    def __init__(self) -> None:
        self._said: OrderedDict[str, list[Any]] = OrderedDict()
        self._number = 0
        self._lock = Lock()

    def of(self, leaves: Sequence[Any]) -> str:
        """The name of the conversation whose last prompt this one begins with, the longest one of several."""
        said = list(leaves)
        with self._lock:
            begun = [name for name, known in self._said.items() if said[: len(known)] == known]
            name = max(begun, key=lambda each: len(self._said[each]), default="")
            if not name:
                self._number += 1
                name = f"team {self._number}"
            self._said[name] = said
            self._said.move_to_end(name)
            while len(self._said) > _LIMIT:
                self._said.popitem(last=False)
            return name
