"""A summary of a task that has grown too long, asked for behind the prompt itself, so that it is read from the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .hosting import FLAG

if TYPE_CHECKING:
    from .llm import BufferedLLM

__all__ = ["fits", "instruction", "kept", "room", "summary_message"]

_Message = dict[str, Any]
_ASK = (
    "The conversation above is about to outgrow the context window. Do not go on with the task and use no tool now. Write a "
    "summary from which the task can be finished without it: what has been done and what is left, each finding, value, name "
    "and address that is still needed, and what to do next. Put it between <summary> and </summary>."
)
_ROOM = 2_000  # tokens left for the instruction and the summary


def instruction() -> _Message:
    """What the model is asked for."""
    return {"role": "user", "content": _ASK}


def room(llm: BufferedLLM, messages: Sequence[_Message], tools: Sequence[Any] | None) -> bool:
    """Whether the prompt and a summary fit into the model's window.

    CrewAI summarizes at 85 % of it, and gives that as the window's size; the rest is what a summary may use.
    """
    from crewai.llms.context_window import CONTEXT_WINDOW_USAGE_RATIO

    window = llm.get_context_window_size() / CONTEXT_WINDOW_USAGE_RATIO
    return llm.get_input_tokens_count(list(messages), list(tools) if tools else None) + _ROOM <= window


def fits(llm: BufferedLLM, messages: Sequence[_Message], tools: Sequence[Any] | None) -> bool:
    """Whether CrewAI would send the prompt without another summary."""
    return not llm.is_context_window_overflowing_threshold(list(messages), list(tools) if tools else None)


def kept(messages: Sequence[_Message]) -> list[_Message]:
    """What stays in front of a summary: the system text, and the task."""
    system = [message for message in messages if message.get("role") == "system"]
    said = [message for message in messages if message.get("role") == "user"]
    return [*system, *([each for each in said if each.get(FLAG)] or said[:1])]


def summary_message(reply: str) -> _Message:
    """The summary, in CrewAI's own words around it."""
    from crewai.utilities.agent_utils import format_message_for_llm
    from crewai.utilities.i18n import I18N_DEFAULT

    _, found, rest = reply.partition("<summary>")
    text = rest.partition("</summary>")[0] if found else reply
    return dict(format_message_for_llm(I18N_DEFAULT.slice("summary").format(merged_summary=text.strip())))
