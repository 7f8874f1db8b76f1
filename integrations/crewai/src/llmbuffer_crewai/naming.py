"""Which conversation a call belongs to: by crew, task and agent, and by where a prompt begins anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, NamedTuple, TypeVar

from llmbuffer.errors import MessageError

from .hosting import CrewHost

__all__ = ["Key", "Keys", "Place", "agent_name", "goes_on", "let_go", "task_name"]

V = TypeVar("V")

_HOST = CrewHost()
_TASKS = 4096  # whose names and lengths are kept; the one used longest ago goes first
_FINAL = "Final Answer:"  # before the answer, in CrewAI's format for models without native tool calls


class Place(NamedTuple):
    """Where something was said: in a conversation, by a member."""

    conversation: str | None
    member: str | None

    def meets(self, conversation: str, member: str | None) -> bool:
        """Whether it is in this conversation (and of this member).

        >>> Place("c", "ann").meets("c", None), Place("c", "ann").meets("c", "bob")
        (True, False)
        """
        return self.conversation == conversation and member in (None, self.member)


def let_go(kept: MutableMapping[Place, V], conversation: str, member: str | None) -> list[V]:
    """Take what is kept of a conversation (and of this member) out of a mapping, and give it back."""
    gone = [place for place in kept if place.meets(conversation, member)]
    return [kept.pop(place) for place in gone]


class Key(NamedTuple):
    """The names of a call: the ``conversation`` (``None``: found by what it begins with) and the ``member``, an agent."""

    conversation: str | None
    member: str | None
    task: str | None = None

    @property
    def place(self) -> Place:
        """The conversation and the member."""
        return Place(self.conversation, self.member)


def agent_name(agent: Any) -> str | None:
    """The role as it was written, before inputs were put in; the same for all copies of an agent."""
    found = getattr(agent, "_original_role", None) or getattr(agent, "role", None)
    return found if isinstance(found, str) and found else None


def task_name(task: Any) -> str | None:
    """The task's name; without one, its id."""
    found = getattr(task, "name", None) or getattr(task, "id", None)
    return None if found is None else str(found)


class _Talk:
    """One conversation: its last prompt, message by message, whether that was answered, and the answers so far."""

    __slots__ = ("answered", "answers", "said")

    def __init__(self) -> None:
        self.said: list[int] = []
        self.answers: list[str] = []
        self.answered = False

    def begins(self, said: list[int], texts: Sequence[str | None]) -> int:
        """How many messages of a prompt are this conversation's last prompt, which it goes on from; 0 if it does not."""
        length = len(self.said)
        if said[:length] != self.said:
            return 0
        if not self.answered:
            return length
        told = texts[length] if length < len(texts) else None
        return length if told is not None and goes_on(self.answers[-1], told) else 0


def _answer(message: dict[str, Any]) -> str | None:
    content = message.get("content")
    return content if message.get("role") == "assistant" and isinstance(content, str) else None


def goes_on(answer: str, told: str) -> bool:
    r"""Whether what a user tells of an answer is the answer, or what CrewAI made of it: what stands behind ``Final Answer:``.

    >>> goes_on("Thought: done\nFinal Answer: Rye.", "Rye."), goes_on("Rye.", "Wheat.")
    (True, False)
    """
    if answer == told or _FINAL not in answer:
        return answer == told
    final = answer.rpartition(_FINAL)[2].strip()
    return told.strip() in (final, final.removesuffix("```").rstrip())


class Keys:
    """Names conversations. Crews and their copies have ids of their own, so no two of them ever meet. Thread-safe.

    One task may be done again (a second kickoff, a guardrail that asks for another try): where a prompt does not go on from
    the last one of its task, another conversation begins. Of agents outside of tasks, ``limit`` conversations are kept, the one
    used longest ago goes first.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._talks: OrderedDict[tuple[str, int], _Talk] = OrderedDict()
        self._count = 0
        self._seen: OrderedDict[tuple[str, str | None], tuple[int | None, int, int]] = OrderedDict()
        self._done: set[str] = set()  # tasks' conversations whose last prompt was answered in words
        self._tasks: OrderedDict[str, str | None] = OrderedDict()
        self._lock = Lock()

    def of(self, messages: Sequence[dict[str, Any]], task: Any, agent: Any) -> Key:
        """The names of a call with these messages."""
        member = agent_name(agent)
        if agent is None:
            return Key(None, None)
        if task is None:
            return Key(self.name or self._talk(str(getattr(agent, "id", "")), messages), member)
        crew = getattr(getattr(agent, "crew", None), "id", None)
        place = f"{crew or getattr(agent, 'id', '')}/{getattr(task, 'id', '')}"
        first = next((each for each in messages if each.get("role") != "system"), None)
        begins = None if first is None else hash(_HOST.leaves(first))
        with self._lock:
            known, length, number = self._seen.get((place, member), (begins, 0, 0))
            again = len(messages) <= length and f"{place}/{number}" in self._done
            self._done.discard(f"{place}/{number}")
            if known != begins or len(messages) < length or again:
                number += 1
            self._seen[place, member] = (begins, len(messages), number)
            self._seen.move_to_end((place, member))
            while len(self._seen) > _TASKS:
                self._seen.popitem(last=False)
            conversation = f"{place}/{number}"
            self._tasks[conversation] = task_name(task)
            while len(self._tasks) > _TASKS:
                self._tasks.popitem(last=False)
        return Key(conversation, member, self._tasks[conversation])

    @contextmanager
    def named(self, conversation: str) -> Iterator[None]:
        """A block in which the conversations of agents have this name."""
        if not isinstance(conversation, str) or not conversation:
            raise MessageError(
                f"the conversation's name is {conversation!r}: give a text that no other conversation has"
            )
        token = _NAMED.set((*_NAMED.get(), (self, conversation)))
        try:
            yield
        finally:
            _NAMED.reset(token)

    @property
    def name(self) -> str | None:
        """What the user calls the conversation now; ``None`` outside of a block."""
        return next((name for keys, name in reversed(_NAMED.get()) if keys is self), None)

    def forget(self, conversation: str) -> bool:
        """Let go of a conversation of an agent; whether there was one. Its tasks' names are kept, since they are counted."""
        agent, _, number = conversation.rpartition("#")
        with self._lock:
            return number.isdecimal() and self._talks.pop((agent, int(number)), None) is not None

    def reset(self) -> None:
        """Let go of all conversations and tasks; no number is given twice."""
        with self._lock:
            for kept in (self._talks, self._seen, self._done, self._tasks):
                kept.clear()

    def answered(self, key: Key, answer: str) -> None:
        """What a conversation or a task went on with."""
        if key.task is not None and key.conversation is not None:
            with self._lock:
                self._done.add(key.conversation)
                if len(self._done) > _TASKS:
                    self._done.clear()
            return
        agent, _, number = (key.conversation or "").rpartition("#")
        with self._lock:
            talk = self._talks.get((agent, int(number))) if number.isdecimal() else None
            if talk is not None:
                talk.answers.append(answer)
                talk.answered = True

    def _talk(self, agent: str, messages: Sequence[dict[str, Any]]) -> str:
        """The conversation of an agent that goes on with these messages, or a new one.

        It is the one whose last prompt they begin with; else the one that has most of the same answers, since users may
        edit what stands before them.
        """
        rest = [each for each in messages if each.get("role") != "system"]
        said, texts = [hash(_HOST.leaves(each)) for each in rest], [_answer(each) for each in rest]
        answers = [text for text in texts if text]
        with self._lock:
            best: tuple[int, int, int] | None = None
            for (who, number), talk in self._talks.items():
                if who != agent:
                    continue
                begins = talk.begins(said, texts)
                common = sum(any(goes_on(text, each) for each in answers) for text in talk.answers)
                if begins or (answers and 2 * common >= len(talk.answers) > 0):
                    best = max(best or (0, 0, 0), (begins, common, number))
            if best is None:
                self._count += 1
                self._talks[agent, self._count] = _Talk()
                best = (0, 0, self._count)
            talk = self._talks[agent, best[2]]
            talk.said, talk.answered = said, False
            self._talks.move_to_end((agent, best[2]))
            while len(self._talks) > self._limit:
                self._talks.popitem(last=False)
        return f"{agent}#{best[2]}"

    def task(self, conversation: str | None) -> str | None:
        """The task that a conversation belongs to."""
        with self._lock:
            return None if conversation is None else self._tasks.get(conversation)


_NAMED: ContextVar[tuple[tuple[Keys, str], ...]] = ContextVar("llmbuffer_crewai_named", default=())
