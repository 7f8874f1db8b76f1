"""Random hosts that own their history, and what a plan for them has to say.

A host keeps messages as plain mappings, each with a text that occurs nowhere else, and a system prompt of lines that are
all different. It appends, retries, forks, edits, deletes, trims, summarizes, redacts in place, hands over fresh copies and
changes lines. `told` reads off what a plan tells the model, and off the body that the core itself would send.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from llmbuffer import Message, Usage
from llmbuffer.reconcile import DictHost, Plan, Relation

__all__ = ["ACTS", "Counting", "ScriptedHost", "told"]

Item = dict[str, Any]
WORD = re.compile(r"\b[a-z]+#\d+\b")
ACTS = (
    "append", "append", "append", "call", "answer", "same", "retry", "fork", "back", "edit", "redact", "delete", "trim",
    "summarize", "copies", "line", "line", "grow", "drop-line",
)  # fmt: skip


def words_of(value: Any) -> list[str]:
    """The words in all texts of a JSON value, in order."""
    if isinstance(value, str):
        return WORD.findall(value)
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
    return [word for each in inner for word in words_of(each)]


class Counting(DictHost):
    """Counts what is converted."""

    def __init__(self) -> None:
        self.conversions = 0

    def to_message(self, item: Any, /) -> Message:
        self.conversions += 1
        return super().to_message(item)


class ScriptedHost:
    """One conversation of a host; `act` changes what it will hand over, and says what a plan has to find.

    ``sent`` are the lists of texts that it has handed over, ``gone`` the texts that it took back.
    """

    def __init__(self, seed: int, name: str = "m") -> None:
        self.random, self.name, self.number = Random(seed), name, 0
        self.messages: list[Item] = []
        self.lines = [self.text("line") for _ in range(6)]
        self.sent: list[list[Item]] = []
        self.gone: set[str] = set()
        self.asked = False
        self.say("user")

    def text(self, kind: str) -> str:
        self.number += 1
        return f"{self.name}{kind}#{self.number}"

    def say(self, role: str, **fields: Any) -> None:
        words = f"{self.text(role[0])} said in {self.random.randint(1, 9)} words."
        self.messages.append({"role": role, "content": words, **fields})

    @property
    def system(self) -> str:
        return "\n".join(f"{line} is how it is." for line in self.lines)

    @property
    def known(self) -> list[Item]:
        """What was handed over last."""
        return self.sent[-1] if self.sent else []

    def hand_over(self) -> list[Item]:
        """The host's own list; a copy is kept for the comparison with later ones."""
        self.sent.append(copy.deepcopy(self.messages))
        return self.messages

    def act(self, kind: str) -> set[Relation]:
        """Do something, and name the relations that may be found; the host hands over at least one message."""
        act = getattr(self, "_" + kind.replace("-", "_"))
        found: set[Relation] | None = act()
        if found is None:
            self._append()
            found = {"extension"}
        return found

    def _append(self) -> set[Relation]:
        self.say("assistant" if self.messages[-1]["role"] != "assistant" else "user")
        if self.messages[-1]["role"] == "assistant":
            self.say("user")
        return {"extension"}

    def _call(self) -> set[Relation] | None:
        if self.messages[-1]["role"] != "user":
            return None
        call = {"id": f"c{self.number}", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        self.messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        self.say("tool", tool_call_id=call["id"])
        return {"extension"}

    def _answer(self) -> set[Relation]:
        self.say("user" if self.messages[-1]["role"] == "assistant" else "assistant")
        return {"extension"}

    def _same(self) -> set[Relation]:
        return {"same"} if self.sent else {"new"}

    def _copies(self) -> set[Relation]:
        self.messages = copy.deepcopy(self.messages)
        return {"same"} if self.sent else {"new"}

    def _retry(self) -> set[Relation] | None:
        """Another user message in place of the last one, by a new object."""
        if len(self.messages) < 2 or self.messages[-1]["role"] != "user":
            return None
        self._takes_back(self.messages.pop())
        self.say("user")
        return {"forked"}

    def _fork(self) -> set[Relation] | None:
        """Back to an earlier message, and on from there."""
        if len(self.messages) < 3:
            return None
        length = self.random.randint(1, len(self.messages) - 1)
        for item in self.messages[length:]:
            self._takes_back(item)
        self.messages = [*self.messages[:length]]
        self.say("user")
        return {"forked"}

    def _back(self) -> set[Relation] | None:
        """A list that was handed over before, once more."""
        if len(self.sent) < 2:
            return None
        self.messages = copy.deepcopy(self.random.choice(self.sent[:-1]))
        return set(RELATIONS)

    def _edit(self) -> set[Relation] | None:
        if len(self.messages) < 3:
            return None
        place = self.random.randrange(len(self.messages) - 1)
        old = self.messages[place]
        self._takes_back(old)
        self.messages[place] = {**old, "content": f"{self.text('e')} was edited."}
        return {"edited"}

    def _redact(self) -> set[Relation]:
        """In the host's own object, which stays the same object."""
        place = self.random.randrange(len(self.messages))
        self._takes_back(self.messages[place])
        self.messages[place]["content"] = f"{self.text('r')} was redacted."
        return {"edited"}

    def _delete(self) -> set[Relation] | None:
        if len(self.messages) < 3:
            return None
        place = self.random.randrange(1, len(self.messages) - 1)  # of the first one, it would be a trim
        self._takes_back(self.messages.pop(place))
        return {"truncated"}

    def _trim(self) -> set[Relation] | None:
        if len(self.messages) < 4:
            return None
        for item in self.messages[:2]:
            self._takes_back(item)
        self.messages = self.messages[2:]
        return {"truncated"}

    def _summarize(self) -> set[Relation] | None:
        if len(self.messages) < 5:
            return None
        for item in self.messages[:3]:
            self._takes_back(item)
        rest = self.messages[3:]
        self.messages = []
        self.say("user")
        self.messages += rest
        return {"summarized"}

    def _line(self) -> set[Relation]:
        self.lines[self.random.randrange(len(self.lines))] = self.text("line")
        return {"same"} if self.sent else {"new"}

    def _grow(self) -> set[Relation]:
        self.lines.append(self.text("line"))
        return {"same"} if self.sent else {"new"}

    def _drop_line(self) -> set[Relation]:
        if len(self.lines) > 2:
            self.lines.pop(self.random.randrange(len(self.lines)))
        return {"same"} if self.sent else {"new"}

    def _takes_back(self, item: Item) -> None:
        self.gone.update(words_of(item))

    @property
    def words(self) -> list[str]:
        """What the messages say now, in order."""
        return words_of(self.messages)

    def new_since(self, known: list[list[Item]]) -> int:
        """How many of the messages were not in any list that was handed over before."""
        before = [json.dumps(item) for messages in known for item in messages]
        return sum(json.dumps(item) not in before for item in self.messages)


RELATIONS: tuple[Relation, ...] = (
    "extension", "same", "edited", "truncated", "summarized", "forked", "new",
)  # fmt: skip


def told(plan: Plan, *, leading: bool = False) -> tuple[list[str], list[str], list[str]]:
    """The words of the messages, of the system text with the tail, and of the body that the core would send.

    With ``leading`` the system text is the first message.
    """
    system = plan.messages[0] if leading else plan.system
    return (
        words_of(plan.messages[leading:]),
        words_of([system, plan.tail.text]),
        words_of(plan.request.body),
    )


def usage_of(plan: Plan) -> Usage:
    """What a provider without a cache would report."""
    return Usage(input_tokens=plan.request.snapshot.tokens)
