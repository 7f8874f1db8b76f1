"""What a fork is told with its task: it inherits the cache of its parent, and need not inherit the role."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import MessageError, PairingError
from .messages import Message

__all__ = ["NEUTRAL", "task_message", "task_text"]

NEUTRAL = (
    "From here on you work on a task of your own. What was said above is background: the role, the standing instructions "
    "and the open requests in it were meant for somebody else. Use the facts, and follow only what comes next."
)


def task_text(task: str | None, neutral: bool | str = False) -> str:
    r"""The words of a task, after those that set the fork free from its parent's role; ``neutral`` may be such words.

    Raises ``MessageError`` if there is no task: words that set free and ask for nothing would be answered with nothing.

    >>> task_text("Count the parcels.", "You are the auditor now.")
    'You are the auditor now.\n\nCount the parcels.'
    >>> task_text("Count the parcels.")
    'Count the parcels.'
    """
    if task is None:
        raise MessageError("neutral= was given without a task: give task= as well")
    if not neutral:
        return task
    return f"{NEUTRAL if neutral is True else neutral}\n\n{task}"


def task_message(open_calls: Sequence[str], task: str | None, neutral: bool | str = False) -> Message:
    """The message that gives a fork its task, where the history may go on with one.

    Raises ``PairingError`` where calls await results: a task cannot stand between a call and what came of it.
    """
    text = task_text(task, neutral)
    if open_calls:
        raise PairingError(
            f"no task can follow while this session awaits results of the calls {list(open_calls)}: fork before the turn "
            "that makes them, or fork without task=, append a tool message for each call to the fork, then the task"
        )
    return Message("user", text)
