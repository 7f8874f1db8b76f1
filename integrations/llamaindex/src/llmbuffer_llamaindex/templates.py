"""What LlamaIndex itself writes around dynamic text: retrieved context, memory blocks, the state of a workflow."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from llama_index.core.llms import TextBlock

__all__ = ["SYSTEM_TEMPLATES", "Told", "told_in"]

# What `Policy(declared=…)` finds in system prompts: the templates of ContextChatEngine and of CondensePlusContextChatEngine,
# those for refining included. The sentences that lead up to the text stay where they are.
SYSTEM_TEMPLATES: tuple[re.Pattern[str], ...] = (
    re.compile(
        r"(?s)(?<=context information below to assist the user\.\n-{20}\n)(?P<context>.*?)(?=\n-{20}\n)"
    ),
    re.compile(
        r"(?s)(?<=existing answer and nothing more\.\n\n-{20}\n)"
        r"(?P<context>.*?\n-{20}\nExisting Answer:\n.*?)(?=\n-{20}\n)"
    ),
    re.compile(
        r"(?s)(?<=Here are the relevant documents for the context:\n\n)"
        r"(?P<documents>  .*?)(?=\n\n  Instruction: (?:Based on|Refine) )"
    ),
)
_MEMORY = re.compile(r"(?s)\s*<memory>\n(?P<memory>.*?)\n</memory>\s*")
_BLOCK = re.compile(r"(?s)<([^<>\n]+)>\n(.*?)\n</\1>\n?")
_STATE = re.compile(r"(?s)\ACurrent state:\n(?P<state>.*?)\n\nCurrent message:\n(?P<message>.*)\n\Z")


class Told(NamedTuple):
    """Messages without what the framework tells beside them, and that, by name."""

    messages: list[Any]
    dynamic: dict[str, str]


def told_in(messages: list[Any]) -> Told:
    r"""Take memory blocks out of messages, and put the state of a workflow behind what the user said; others stay as they are.

    ``Memory`` puts its blocks into a system message in front of the history, or into the newest message of the user's; what an
    older one holds is no longer told. A state stays in its message: some memories keep it there, others drop it at once.

    >>> from llama_index.core.llms import ChatMessage
    >>> message = ChatMessage("Current state:\n{'n': 1}\n\nCurrent message:\nGo on.\n")
    >>> told_in([message]).messages[0].content
    "Go on.\n\n\nCurrent state:\n{'n': 1}"
    >>> blocks = [TextBlock(text="<memory>\n<facts>\nn is 1\n</facts>\n</memory>"), TextBlock(text="Hello")]
    >>> told_in([ChatMessage(blocks=blocks)]).dynamic
    {'memory: facts': 'n is 1'}
    """
    out: list[Any] = []
    standing, newest = dict[str, str](), dict[str, str]()
    for message in messages:
        role = str(getattr(message.role, "value", message.role))
        blocks = message.blocks
        if role == "system":
            blocks, found = _without_memory(blocks)
            standing |= found
        elif role == "user":
            blocks, newest = _without_memory(blocks, alone=True)
            blocks = [part for block in blocks for part in _state_behind(block)]
        if blocks == message.blocks:
            out.append(message)
        elif blocks:
            out.append(message.model_copy(update={"blocks": blocks}))
    return Told(out, {**standing, **newest})


def _without_memory(blocks: list[Any], *, alone: bool = False) -> tuple[list[Any], dict[str, str]]:
    """The blocks without what ``Memory`` wrote; ``alone``: it has to be a block of its own, beside another one."""
    kept: list[Any] = []
    found: dict[str, str] = {}
    for block in blocks:
        text = block.text if isinstance(block, TextBlock) else ""
        if "<memory>" not in text or (alone and (len(blocks) < 2 or not _MEMORY.fullmatch(text))):
            kept.append(block)
            continue
        for match in _MEMORY.finditer(text):
            found |= _told(match["memory"])
        rest = _MEMORY.sub("", text)
        kept += [TextBlock(text=rest)] if rest.strip() else []
    return kept, found


def _told(memory: str) -> dict[str, str]:
    """Memory blocks by name; what stands beside them as ``memory``."""
    out = {f"memory: {match[1]}": match[2] for match in _BLOCK.finditer(memory)}
    rest = _BLOCK.sub("", memory).strip()
    return {**out, "memory": rest} if rest else out


def _state_behind(block: Any) -> list[Any]:
    state = _STATE.match(block.text) if isinstance(block, TextBlock) else None
    if state is None:
        return [block]
    return [TextBlock(text=state["message"]), TextBlock(text=f"\n\nCurrent state:\n{state['state']}")]
