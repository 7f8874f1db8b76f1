"""Changing text that programs put into prompts: a clock, and retrieved passages; drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from random import Random

from ..messages import Message
from ..snapshot import texts
from .recordings import Recording

__all__ = ["NOISE", "Noise", "moment"]

NOISE = ("clock", "retrieval")
_SHORTEST, _LONGEST = 300, 800  # tokens of a passage


def moment(time: float) -> datetime:
    """The hour that prompts show ``time`` seconds after the first call.

    >>> moment(75).isoformat()
    '2026-03-01T09:01:15+00:00'
    """
    return datetime(2026, 3, 1, 9, tzinfo=timezone.utc) + timedelta(seconds=int(time))


class Noise:
    """The changing text of one recording, drawn by a seed: the same under every layout.

    ``clock`` is a line that shows 2026-03-01 09:00:00 at the first call and goes on with the time of the calls.
    ``retrieval`` is a passage of 300 to 800 tokens (fewer where there is less text) cut from what the recording's tools
    returned, or from what its users said where it has no tools; a new one is drawn when a user turn begins.
    """

    def __init__(
        self, recording: Recording, kinds: Iterable[str], seed: int, count: Callable[[str], int]
    ) -> None:
        self._clock = "clock" in kinds
        self._passages: list[str] = []  # by call
        if "retrieval" in kinds:
            self._draw(recording, Random(f"{seed}:{recording.id}"), count)  # noqa: S311 - figures must repeat

    def _draw(self, recording: Recording, random: Random, count: Callable[[str], int]) -> None:
        corpus = _corpus(recording)
        current: dict[int, str] = {}
        for call in recording.calls:
            if call.begins_turn:
                current[call.agent] = _passage(corpus, random, count)
            self._passages.append(current.get(call.agent, ""))

    def at(self, index: int, time: float) -> dict[str, str]:
        """The texts by name for the call at ``index``, ``time`` seconds after the first one."""
        found = {"retrieved": self._passages[index]} if self._passages and self._passages[index] else {}
        if self._clock:
            found["clock"] = f"Current time: {moment(time):%Y-%m-%d %H:%M:%S}"
        return found


def _corpus(recording: Recording) -> str:
    messages = {id(message): message for call in recording.calls for message in (*call.new, call.reply)}
    said = _joined(messages.values(), "tool") or _joined(messages.values(), "user")
    enough = _LONGEST * 8  # characters; where there are fewer, they are said again
    return said * -(-enough // len(said)) if said else ""


def _joined(messages: Iterable[Message], role: str) -> str:
    return "\n".join(text for message in messages if message.role == role for text in texts(message))


def _passage(corpus: str, random: Random, count: Callable[[str], int]) -> str:
    """A stretch of the corpus that is about as long as drawn."""
    wanted, start = random.randint(_SHORTEST, _LONGEST), random.random()
    length, passage = wanted * 4, ""
    for _ in range(8):
        first = int(start * max(0, len(corpus) - length))
        passage = corpus[first : first + length]
        found = count(passage)
        if not found or (_SHORTEST <= found <= _LONGEST and abs(found - wanted) <= wanted // 50):
            break
        length = max(1, length * wanted // found)
    return passage
