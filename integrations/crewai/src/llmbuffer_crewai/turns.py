"""What CrewAI leaves out of a prompt, or writes anew: turns of ``agent.kickoff(list)``, and calls that were refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from functools import reduce
from itertools import accumulate, chain
from threading import Lock
from typing import Any, NamedTuple

import msgspec

from .hosting import FLAG, CrewHost
from .naming import Place, goes_on, let_go

__all__ = ["Refusals", "Turns", "Whose", "own"]

_Message = dict[str, Any]
_TURNS = 256  # of one conversation that are kept, of which the oldest goes first
_HOST = CrewHost()


class Whose(NamedTuple):
    """Who may be handed a turn again: an agent (its id, or its role) in a conversation; ``None``: nobody named that."""

    conversation: str | None
    agent: str


class _Turn(msgspec.Struct, frozen=True, eq=False):
    """One request as it was sent, but for what CrewAI recalled for it, what its tools said, and the answer."""

    key: tuple[Whose, int, str]  # whose, what stood before it, and what the user said
    place: Place
    request: _Message
    traffic: tuple[_Message, ...]
    answer: str

    @property
    def keys(self) -> tuple[Any, ...]:
        """By what it is found: by what was said, and by the very object that the program was given as the answer.

        Texts of one character are the same object for all.
        """
        return (self.key, (*self.key, id(self.answer))) if len(self.answer) > 1 else (self.key,)


class Turns:
    """Keeps the history of ``agent.kickoff(list)`` as it was sent.

    CrewAI sends a request inside of a text of its own (``Current Task: …``) and hands it over bare when it has become
    history, so each turn cuts the prompt at the last request. Here it stays as it was sent, but for memories, which CrewAI
    recalls anew for each request.

    With ``whole`` so do the tool calls between the request and its answer, which CrewAI leaves out. Two users may ask the
    same and be answered in the same words, so equal words prove nothing: a turn is whole where the history holds the very
    object that the program was given as its answer, or where the user named the conversation and the answer is the same.

    ``limit`` conversations are kept. Thread-safe.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._talks: OrderedDict[Place, list[tuple[_Turn, ...]]] = OrderedDict()
        self._known: dict[tuple[Any, ...], _Turn] = {}
        self._limit, self._lock = limit, Lock()

    def restored(self, whose: Whose, messages: Sequence[_Message], *, whole: bool) -> list[_Message]:
        """The messages with the turns that are known as they were sent."""
        request = _request(messages)
        start = _start(messages)
        if request is None or request <= start:
            return list(messages)
        out: list[_Message] = list(messages[:start])
        digest = 0
        for message, following in zip(messages[start:request], messages[start + 1 :], strict=False):
            found = self._found(whose, digest, message, following, whole=whole)
            digest = _digest(found, digest)
            out += found
        return [*out, *messages[request:]]

    def remember(self, place: Place, whose: Whose, messages: Sequence[_Message], answer: str) -> None:
        """Take in a turn that has ended: the messages as they were sent, and the answer as the program is given it."""
        request, start = _request(messages), _start(messages)
        if request is None:
            return
        sent = _bare(messages[request])
        if not isinstance(sent.get("content"), str):
            return
        digest, traffic = _digest(messages[start:request]), tuple(map(_bare, messages[request + 1 :]))
        with self._lock:
            kept = self._talks.setdefault(place, [])
            self._talks.move_to_end(place)
            turns = tuple(
                _Turn((whose, digest, said), place, {**sent, "content": text}, traffic, answer)
                for said, text in _said(sent["content"]).items()
            )
            kept.append(turns)
            self._known.update((key, turn) for turn in turns for key in turn.keys)
            self._drop(kept[:-_TURNS])
            del kept[:-_TURNS]
            while len(self._talks) > self._limit:
                self._drop(self._talks.popitem(last=False)[1])

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of the turns of a conversation; whether there were any."""
        with self._lock:
            gone = let_go(self._talks, conversation, member)
            for turns in gone:
                self._drop(turns)
        return bool(gone)

    def reset(self) -> None:
        """Let go of all turns."""
        with self._lock:
            self._talks.clear()
            self._known.clear()

    def __len__(self) -> int:
        return len(self._talks)

    def _drop(self, gone: Iterable[tuple[_Turn, ...]]) -> None:
        for turn in chain.from_iterable(gone):
            for key in turn.keys:
                if self._known.get(key) is turn:
                    del self._known[key]

    def _found(
        self, whose: Whose, digest: int, message: _Message, following: _Message, *, whole: bool
    ) -> list[_Message]:
        """What a message of the history was sent as, with the tool calls behind it."""
        said = message.get("content")
        if message.get("role") != "user" or not isinstance(said, str):
            return [message]
        told = following.get("content") if following.get("role") == "assistant" else None
        key = (whose, digest, said.rstrip())
        with self._lock:
            turn = self._known.get((*key, id(told))) or self._known.get(key)
            if turn is None:
                return [message]
            self._talks.move_to_end(turn.place)
        if not _proven(turn, told):
            return [{**message, "content": turn.request["content"]}]
        return [turn.request, *(turn.traffic if whole else ())]


def own(answer: str) -> str:
    """An equal text that is an object of its own, so that whoever holds it was given this very answer.

    >>> answer = "You are fine."
    >>> own(answer) == answer, own(answer) is answer
    (True, False)
    """
    return "".join((answer[:1], answer[1:]))


def _proven(turn: _Turn, told: Any) -> bool:
    """Whether the answer in a history is for certain that of the turn."""
    if not isinstance(told, str):
        return False
    if told is turn.answer and len(told) > 1:
        return True
    return turn.key[0].conversation is not None and goes_on(turn.answer, told)


def _bare(message: _Message) -> _Message:
    return {key: value for key, value in message.items() if key != FLAG}


def _start(messages: Sequence[_Message]) -> int:
    """Where the messages behind the leading system messages begin."""
    return next((i for i, each in enumerate(messages) if each.get("role") != "system"), len(messages))


def _request(messages: Sequence[_Message]) -> int | None:
    """The place of the request: the last message of the user's that CrewAI marks."""
    marked = (i for i, each in enumerate(messages) if each.get(FLAG) and each.get("role") == "user")
    return max(marked, default=None)


def _next(digest: int, message: _Message) -> int:
    return hash((digest, _HOST.leaves(message)))


def _digest(messages: Iterable[_Message], digest: int = 0) -> int:
    """Of messages behind others, whose digest is given."""
    return reduce(_next, messages, digest)


def _said(sent: str) -> dict[str, str]:
    """What the user may have said, of a request as CrewAI writes it, and how that is written without memories.

    It is what stands in one of CrewAI's templates. Memories stand behind it, with a title of CrewAI's own.
    """
    from crewai.utilities.i18n import I18N_DEFAULT

    title = str(I18N_DEFAULT.slice("memory")).partition("{memory}")[0]
    found: dict[str, str] = {}
    for name in ("native_task", "task_no_tools", "task"):
        begin, _, end = str(I18N_DEFAULT.slice(name)).partition("{input}")
        end = end.rstrip()
        if sent.startswith(begin) and sent.endswith(end):
            said = sent[len(begin) : len(sent) - len(end)]
            found[said.rstrip()] = sent
            if title in said:
                said = said[: said.index(title)].rstrip()
                found[said] = begin + said + end
    return found


class Refusals:
    """Calls of tools that an agent does not own, and their errors, which the next prompts of the task go on with.

    CrewAI never hears of them, so they are put back where they happened. Bounded and thread-safe.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._held: OrderedDict[Place, list[tuple[int, int, list[_Message]]]] = OrderedDict()
        self._limit, self._lock = limit, Lock()

    def add(self, place: Place, messages: Sequence[_Message], exchange: Sequence[_Message]) -> None:
        """The exchange came behind these messages, as CrewAI handed them over."""
        with self._lock:
            held = self._held.setdefault(place, [])
            held.append((len(messages), _digest(messages), list(exchange)))
            del held[:-_TURNS]
            self._held.move_to_end(place)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)

    def restored(self, place: Place, messages: Sequence[_Message]) -> list[_Message]:
        """The messages with the exchanges where they happened; those whose place is gone are left out."""
        with self._lock:
            held = list(self._held.get(place, ()))
        digests = list(accumulate(messages, _next, initial=0)) if held else []
        out, at = list[_Message](), 0
        for length, digest, exchange in held:
            if at <= length <= len(messages) and digests[length] == digest:
                out += [*messages[at:length], *exchange]
                at = length
        return [*out, *messages[at:]]

    def forget(self, conversation: str, member: str | None = None) -> bool:
        """Let go of what was refused in a conversation; whether there was anything."""
        with self._lock:
            return bool(let_go(self._held, conversation, member))

    def reset(self) -> None:
        """Let go of all that was refused."""
        with self._lock:
            self._held.clear()
