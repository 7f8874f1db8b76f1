"""Random hosts whose members talk in one conversation, and what a plan for one of them has to say.

The host keeps what was said, each text once in the whole run, and hands a member its view of it: with ``by_reader``, the
reader's own messages are an assistant's and those of others a user's with a name; else all members are handed the same
messages. It appends, retries, edits and deletes; members come and go, change their prompts and have tools of their own.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from tests.properties.hosts import words_of

from llmbuffer.reconcile import Plan

__all__ = ["ACTS", "GroupHost", "View", "told"]

Item = dict[str, Any]
ACTS = ("say", "say", "say", "ask", "call", "edit", "delete", "retry", "joins", "leaves", "prompt", "tool")
COMMON = 8  # lines that all prompts have


class View(NamedTuple):
    """What the host hands over for one member."""

    member: str
    system: str
    tools: list[Item]
    messages: list[Item]


class GroupHost:
    """One conversation; ``act`` changes it, ``view`` is what one member is handed.

    ``lines`` are common to all prompts, ``own`` a member's own ones, ``tools`` the names of its tools.
    """

    def __init__(self, seed: int, *, by_reader: bool) -> None:
        self.random, self.by_reader, self.number = Random(seed), by_reader, 0
        self.lines = [self.text("common") for _ in range(COMMON)]
        self.said: list[Item] = []
        self.own: dict[str, list[str]] = {}
        self.tools: dict[str, list[str]] = {}
        self.gone: set[str] = set()
        for _ in range(2):
            self.joins()
        self.ask()

    def text(self, kind: str) -> str:
        self.number += 1
        return f"{kind}#{self.number}"

    @property
    def members(self) -> list[str]:
        return list(self.own)

    def act(self, kind: str) -> None:
        getattr(self, kind)()

    def joins(self) -> None:
        if len(self.own) < 4:
            name = f"m{len(self.own)}{self.number}"
            self.own[name] = [self.text("own")]
            self.tools[name] = [self.text("tool") for _ in range(self.random.randint(0, 2))]

    def leaves(self) -> None:
        if len(self.own) > 2:
            name = self.random.choice(self.members)
            del self.own[name], self.tools[name]

    def prompt(self) -> None:
        """A member's own line is another one from now on."""
        name = self.random.choice(self.members)
        self.gone.update(self.own[name])
        self.own[name] = [self.text("own")]

    def tool(self) -> None:
        self.tools[self.random.choice(self.members)].append(self.text("tool"))

    def ask(self) -> None:
        self.said.append({"who": "boss", "kind": "user", "text": f"{self.text('u')} is asked."})

    def say(self) -> None:
        name = self.random.choice(self.members)
        self.said.append({"who": name, "kind": "said", "text": f"{self.text('s')} is said."})

    def call(self) -> None:
        name = self.random.choice(self.members)
        said = {"who": name, "kind": "call", "text": self.text("r"), "id": f"c{self.number}"}
        self.said.append(said)

    def edit(self) -> None:
        each = self.random.choice(self.said)
        self.gone.update(words_of(each["text"]))
        each["text"] = f"{self.text('e')} was edited."

    def delete(self) -> None:
        if len(self.said) > 1:
            self.gone.update(words_of(self.said.pop(self.random.randrange(len(self.said)))["text"]))

    def retry(self) -> None:
        if len(self.said) > 1:
            self.gone.update(words_of(self.said.pop()["text"]))
            self.say()

    def view(self, member: str) -> View:
        lines = [*self.own[member], *self.lines]
        tools = [{"name": name.replace("#", "_"), "description": name} for name in self.tools[member]]
        messages = [item for said in self.said for item in self._shown(said, member)]
        return View(member, "\n".join(f"{line} is how it is." for line in lines), tools, messages)

    def _shown(self, said: Item, member: str) -> list[Item]:
        who, text = said["who"], said["text"]
        if said["kind"] == "user":
            return [{"role": "user", "content": text, "name": who}]
        if said["kind"] == "call":
            call = {"id": said["id"], "type": "function", "function": {"name": "look", "arguments": "{}"}}
            return [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": text, "tool_call_id": said["id"]},
            ]
        if self.by_reader and who != member:
            return [{"role": "user", "content": text, "name": who}]
        name = {} if self.by_reader else {"name": who}
        return [{"role": "assistant", "content": text, **name}]


def told(plan: Plan) -> tuple[list[str], list[str], list[str]]:
    """The words of the messages, of the system text, and of the tail."""
    return words_of(plan.messages), words_of(plan.system), words_of(plan.tail.text)
