"""What a fork is told with its task: it inherits the cache of its parent, and need not inherit the role."""

from __future__ import annotations

from .errors import MessageError

__all__ = ["NEUTRAL", "task_text"]

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
