"""Changing text that programs put into prompts: a clock, and retrieved passages; drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from random import Random

from ..messages import Message
from ..snapshot import texts
from .recordings import Recording

__all__ = ["NOISE", "Noise"]

NOISE = ("clock", "retrieval")
_START = datetime(2026, 3, 1, 9, tzinfo=timezone.utc)
_SHORTEST, _LONGEST = 300, 800  # tokens of a passage


class Noise:
    """The changing text of one recording: for the call at ``index``, ``passages[index]`` as of the last user turn.

    A clock line shows 2026-03-01 09:00:00 at the first call and goes on with the time of the calls. Passages of 300 to
    800 tokens are cut from what the recording's tools returned (from what its users said where it has no tools); a new
    one is drawn when a user turn begins. The same seed and recording give the same text under every layout.
    """

    def __init__(self, recording: Recording, kinds: Iterable[str], seed: int, count: Callable[[str], int]) -> None:
        self.kinds = tuple(kinds)
        self.passages: list[str] = []
        if "retrieval" in self.kinds:
            self._draw(recording, Random(f"{seed}:{recording.id}"), count)

    def _draw(self, recording: Recording, random: Random, count: Callable[[str], int]) -> None:
        corpus = _corpus(recording)
        current: dict[int, str] = {}
        for call in recording.calls:
            if call.begins_turn:
                current[call.agent] = _passage(corpus, random, count)
            self.passages.append(current.get(call.agent, ""))

    def at(self, index: int, time: float) -> dict[str, str]:
        """The texts by name for the call at ``index``, ``time`` seconds after the first one."""
        found: dict[str, str] = {}
        if "retrieval" in self.kinds and self.passages[index]:
            found["retrieved"] = self.passages[index]
        if "clock" in self.kinds:
            found["clock"] = f"Current time: {_START + timedelta(seconds=int(time)):%Y-%m-%d %H:%M:%S}"
        return found


def _corpus(recording: Recording) -> str:
    messages = {id(message): message for call in recording.calls for message in (*call.new, call.reply)}.values()
    said = _joined(messages, "tool") or _joined(messages, "user")
    enough = _LONGEST * 16  # characters: no text has fewer than 16 in a passage's tokens, however plain it is
    return said if len(said) >= enough or not said else said * (enough // len(said) + 1)


def _joined(messages: Iterable[Message], role: str) -> str:
    return "\n".join(text for message in messages if message.role == role for text in texts(message))


def _passage(corpus: str, random: Random, count: Callable[[str], int]) -> str:
    """A stretch of the corpus of about as many tokens as drawn, and never fewer than 300 or more than 800."""
    wanted, start = random.randint(_SHORTEST, _LONGEST), random.random()
    length = wanted * 4
    passage = ""
    for _ in range(8):
        first = int(start * max(0, len(corpus) - length))
        passage = corpus[first : first + length]
        found = count(passage)
        if not found or abs(found - wanted) <= wanted // 50:
            break
        length = max(1, length * wanted // found)
    return passage
