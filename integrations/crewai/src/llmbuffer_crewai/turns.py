"""What CrewAI leaves out of a prompt, or writes anew: turns of ``agent.kickoff(list)``, and calls that were refused."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Any

import msgspec

from .hosting import FLAG, CrewHost
from .naming import goes_on

__all__ = ["Refusals", "Turns"]

_Message = dict[str, Any]
_AGENTS, _TURNS = 256, 256  # that are kept, of which the one used longest ago goes first
_HOST = CrewHost()


class _Turn(msgspec.Struct, frozen=True):
    """One request as it was sent, what its tools said, and the answer."""

    request: _Message
    traffic: tuple[_Message, ...]
    answer: str


class Turns:
    """Keeps the history of ``agent.kickoff(list)`` as it was sent.

    CrewAI sends a request inside of a text of its own (``Current Task: …``) and hands it over bare when it has become
    history, so each turn cuts the prompt at the last request. Here it stays as it was sent, and with ``whole`` so do the tool
    calls between the request and its answer, which CrewAI leaves out. Thread-safe.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Any, ...], _Turn] = OrderedDict()
        self._lock = Lock()

    def restored(self, agent: str, messages: Sequence[_Message], *, whole: bool) -> list[_Message]:
        """The messages with the turns that are known as they were sent."""
        request = _request(messages)
        start = _start(messages)
        if request is None or request <= start:
            return list(messages)
        out: list[_Message] = list(messages[:start])
        given = list(messages[start:request])
        index = 0
        while index < len(given):
            message = given[index]
            turn = self._find(agent, out[start:], message)
            index += 1
            if turn is None:
                out.append(message)
                continue
            out.append(turn.request)
            if whole and index < len(given) and _answers(turn, given[index]):
                out.extend(turn.traffic)
        return [*out, *messages[request:]]

    def remember(self, agent: str, messages: Sequence[_Message], answer: str) -> None:
        """Take in a turn that has ended: the messages as they were sent, and the answer."""
        request, start = _request(messages), _start(messages)
        if request is None:
            return
        bare = messages[request].get("content")
        if not isinstance(bare, str):
            return
        turn = _Turn(_bare(messages[request]), tuple(map(_bare, messages[request + 1 :])), answer)
        with self._lock:
            for said in _said(bare):
                key = (agent, _digest(messages[start:request]), said)
                self._known[key] = turn
                self._known.move_to_end(key)
            while len(self._known) > _AGENTS * _TURNS:
                self._known.popitem(last=False)

    def _find(self, agent: str, before: Sequence[_Message], message: _Message) -> _Turn | None:
        said = message.get("content")
        if message.get("role") != "user" or not isinstance(said, str):
            return None
        with self._lock:
            key = (agent, _digest(before), said.rstrip())
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)


def _answers(turn: _Turn, message: _Message) -> bool:
    told = message.get("content")
    return message.get("role") == "assistant" and isinstance(told, str) and goes_on(turn.answer, told)


def _bare(message: _Message) -> _Message:
    return {key: value for key, value in message.items() if key != FLAG}


def _start(messages: Sequence[_Message]) -> int:
    """Where the messages behind the leading system messages begin."""
    return next((i for i, each in enumerate(messages) if each.get("role") != "system"), len(messages))


def _request(messages: Sequence[_Message]) -> int | None:
    """The place of the request: the last message of the user's that CrewAI marks."""
    marked = (i for i, each in enumerate(messages) if each.get(FLAG) and each.get("role") == "user")
    return max(marked, default=None)


def _digest(messages: Sequence[_Message]) -> int:
    return hash(tuple(_HOST.leaves(message) for message in messages))


def _said(sent: str) -> list[str]:
    """What the user may have said, of a request as CrewAI writes it: what stands in one of its templates, and is bare.

    Memories stand behind it, with a title of CrewAI's own.
    """
    from crewai.utilities.i18n import I18N_DEFAULT

    found = []
    for name in ("native_task", "task_no_tools", "task"):
        begin, _, end = str(I18N_DEFAULT.slice(name)).partition("{input}")
        end = end.rstrip()
        if sent.startswith(begin) and sent.endswith(end):
            found.append(sent[len(begin) : len(sent) - len(end)].rstrip())
    title = str(I18N_DEFAULT.slice("memory")).partition("{memory}")[0]
    found += [each[: each.index(title)].rstrip() for each in found if title in each]
    return found


class Refusals:
    """Calls of tools that an agent does not own, and their errors, which the next prompts of the task go on with.

    CrewAI never hears of them, so they are put back where they happened. Bounded and thread-safe.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._held: OrderedDict[str, list[tuple[int, int, list[_Message]]]] = OrderedDict()
        self._limit, self._lock = limit, Lock()

    def add(self, key: str, messages: Sequence[_Message], exchange: Sequence[_Message]) -> None:
        """The exchange came behind these messages, as CrewAI handed them over."""
        with self._lock:
            self._held.setdefault(key, []).append((len(messages), _digest(messages), list(exchange)))
            self._held.move_to_end(key)
            while len(self._held) > self._limit:
                self._held.popitem(last=False)

    def restored(self, key: str, messages: Sequence[_Message]) -> list[_Message]:
        """The messages with the exchanges where they happened; those whose place is gone are left out."""
        with self._lock:
            held = list(self._held.get(key, ()))
        out, at = list[_Message](), 0
        for length, digest, exchange in held:
            if at <= length <= len(messages) and _digest(messages[:length]) == digest:
                out += [*messages[at:length], *exchange]
                at = length
        return [*out, *messages[at:]]
