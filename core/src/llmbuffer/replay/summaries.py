"""The summaries that replayed compactions put in place of messages, and what a prompt of its own costs to make one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from ..chain import root
from ..compaction.summarize import INSTRUCTION
from ..messages import Message, canonical
from ..rules import CacheRules
from ..snapshot import Snapshot, message_tokens, texts
from .layouts import Aside, automatic_marks
from .recordings import Recording

__all__ = ["LENGTH", "Summaries", "fresh_aside", "fresh_prompt"]

LENGTH = 1_000  # tokens of a summary where none was recorded


class Summaries:
    """The texts of one session's summaries, in order: the recorded ones, then words of the session drawn by a seed.

    The n-th is the same text whatever made it necessary, so all ways that summarise pay for the same words.
    """

    def __init__(self, recording: Recording, seed: int, count: Callable[[str], int]) -> None:
        self._recorded = [fold.summary for fold in recording.folds]
        self._recording, self._seed, self._count = recording, seed, count
        self._words: list[str] = []
        self.made = 0

    def next(self) -> str:
        """The next text."""
        self.made += 1
        if self.made <= len(self._recorded):
            return self._recorded[self.made - 1]
        return self._drawn(Random(f"{self._seed}:{self._recording.id}:{self.made}"))  # noqa: S311 - figures must repeat

    def _drawn(self, random: Random) -> str:
        """About ``LENGTH`` tokens."""
        words = self._words = self._words or _words(self._recording)
        drawn = [random.choice(words) for _ in range(LENGTH)]
        while len(drawn) > 1 and self._count(" ".join(drawn)) > LENGTH:
            del drawn[-max(1, len(drawn) // 50) :]
        return " ".join(drawn)


def _words(recording: Recording) -> list[str]:
    said = (text for call in recording.calls for text in texts(call.reply))
    words = sorted({word for text in said for word in text.split() if word.isalpha()})
    return words or ["nothing"]


def fresh_prompt(messages: Sequence[Message], rules: CacheRules, count: Callable[[str], int]) -> Snapshot:
    """What a program sends that has messages summarised by a prompt of its own: the instruction, and they as one text.

    Nothing of it was sent before, so nothing is read.
    """
    said = "\n".join(f"[{message.role}] {text}" for message in messages for text in texts(message))
    asked = Message("user", f"{INSTRUCTION}\n\n{said}")
    head, content = root(b"summary"), canonical(asked)
    tip = root(b"asked").child(asked, content=content, wire=content, tokens=message_tokens(asked, count))
    marks = automatic_marks(rules, head, tip) if rules.match != "lookback" else ()
    return Snapshot(head, tip, b"summary", marks)


def fresh_aside(
    messages: Sequence[Message], summary: int, rules: CacheRules, count: Callable[[str], int]
) -> Aside:
    """The call that makes a summary of ``summary`` tokens from a prompt of its own."""
    return Aside(fresh_prompt(messages, rules, count), summary)
