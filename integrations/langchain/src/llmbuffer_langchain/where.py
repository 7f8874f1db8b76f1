"""Which conversation a call belongs to, and which agent makes it: read off LangChain's config and LangGraph's metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.runnables.config import ensure_config

__all__ = [
    "AGENT",
    "FORK",
    "FORK_OF",
    "GROUP",
    "PLANNED",
    "Named",
    "Where",
    "at",
    "config_of",
    "form_of",
    "thread_of",
    "where",
]

FORK, FORK_OF, GROUP = "llmbuffer_fork", "llmbuffer_fork_of", "llmbuffer_group"
PLANNED, AGENT = "llmbuffer_planned", "llmbuffer_agent"
_CONVERSATIONS = ("thread_id", "session_id", "conversation_id")
_HERE: ContextVar[Mapping[str, Any] | None] = ContextVar("llmbuffer_langchain_here", default=None)

Named = str | Callable[[Mapping[str, Any]], str | None] | None


class Where(NamedTuple):
    """A ``conversation`` and the ``member`` of it that calls; ``fork`` names a branch off the conversation ``fork_of``.

    ``group`` names the forks that were made together, ``planned`` says why the prefix changes on purpose with this call,
    ``agent`` whether an agent's middleware makes it.

    >>> Where("thread-1", "writer").fork is None
    True
    """

    conversation: str | None = None
    member: str | None = None
    fork: str | None = None
    fork_of: str | None = None
    group: str | None = None
    planned: str | None = None
    agent: bool = False


def config_of(config: Any = None) -> dict[str, Any]:
    """What tells where a call belongs, of a config and of the one around it: its metadata and configurable fields.

    >>> config_of({"configurable": {"thread_id": "7"}, "metadata": {"lc_agent_name": "ann"}})
    {'thread_id': '7', 'lc_agent_name': 'ann'}
    """
    whole = ensure_config(config)
    return {**whole.get("configurable", {}), **(whole.get("metadata") or {})}


def thread_of(request: Any) -> str | None:
    """The thread that an agent's request runs in: on Python 3.10, asynchronous nodes are told no config."""
    info = getattr(getattr(request, "runtime", None), "execution_info", None)
    return _text(getattr(info, "thread_id", None))


@contextmanager
def at(told: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, calls belong where ``told`` says, over what was told outside of it."""
    token = _HERE.set({**(_HERE.get() or {}), **told})
    try:
        yield
    finally:
        _HERE.reset(token)


def where(run_manager: Any = None, conversation: Named = None, member: Named = None) -> Where:
    """Where the call belongs that is about to be made.

    ``conversation`` and ``member`` are names that the user gave, or callables that get all that is known. Without them it
    is the thread (or session) id, and the name of the agent, else of the graph's node.
    """
    told = {**config_of(), **(getattr(run_manager, "metadata", None) or {}), **(_HERE.get() or {})}
    found = _named(conversation, told)
    if found is None:
        found = next((_text(told[key]) for key in _CONVERSATIONS if told.get(key) is not None), None)
    who = _named(member, told)
    if who is None:
        who = _text(told.get("lc_agent_name")) or _node(told)
    fork, fork_of, group, planned = (_text(told.get(key)) for key in (FORK, FORK_OF, GROUP, PLANNED))
    return Where(found, who, fork, fork_of, group, planned, AGENT in told)


def form_of(kwargs: Mapping[str, Any]) -> str | None:
    """The object that a single call is asked for, by the tool that it has to call or by its format; else ``None``.

    >>> form_of({"tool_choice": {"type": "function", "function": {"name": "Route"}}})
    'call:Route'
    """
    choice = kwargs.get("tool_choice")
    if isinstance(choice, Mapping):
        name = choice.get("name") or (choice.get("function") or {}).get("name")
        if name:
            return f"call:{name}"
    form = kwargs.get("response_format")
    if isinstance(form, Mapping):
        return f"form:{(form.get('json_schema') or {}).get('name') or form.get('type')}"
    return None if form is None else f"form:{getattr(form, '__name__', 'object')}"


def _named(name: Named, told: Mapping[str, Any]) -> str | None:
    return _text(name(told) if callable(name) else name)


def _text(value: Any) -> str | None:
    return None if value is None or value == "" else str(value)


def _node(told: Mapping[str, Any]) -> str | None:
    """The node that calls, under those of the graphs around it; the ids of single tasks left out.

    >>> _node({"langgraph_checkpoint_ns": "team:81f2|writer:09ab"})
    'team|writer'
    """
    place = told.get("langgraph_checkpoint_ns") or told.get("checkpoint_ns")
    if isinstance(place, str) and place:
        return "|".join(step.partition(":")[0] for step in place.split("|"))
    return _text(told.get("langgraph_node"))
