"""Rounds of kill -9: writers are killed, and all that they told has to be in the store."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from tests.nursery import Child, Nursery
from tests.store_writers import digest, session_in

from llmbuffer import Message, Session
from llmbuffer.messages import canonical
from llmbuffer.store import open_store

TAG = re.compile(rb"<([0-9a-f]{12})>")  # stands once in every message that a writer says
ORIGINAL = re.compile(rb"\b[0-9a-f]{16}\b")  # an id in a marker


class Save(NamedTuple):
    """What a writer says of a session that it saves: its digest, how often it was compacted, and its tags of all times."""

    digest: str
    epoch: int
    tags: frozenset[str]


class Told:
    """What writers of one store told, round for round: the last save of each session, and those that may be in or not."""

    def __init__(self) -> None:
        self.last: dict[str, Save] = {}
        self.begun: dict[str, tuple[Save, int]] = {}  # with the compactions since the save before
        self.forgotten: set[str] = set()
        self.acknowledged: set[str] = set()
        self.saves = self.compactions = 0

    def hear(self, line: str) -> None:
        """One line of a writer."""
        what, session_id, *rest = line.split()
        if what == "forgetting":
            self.forgotten.add(session_id)
        elif what == "saved":
            self._is_in(session_id)
            self.saves += 1
            self.acknowledged |= self.last[session_id].tags
        else:
            parent_id, now, epoch, *tags = rest
            before = self.last.get(session_id, self.last.get(parent_id, Save("", 0, frozenset())))
            save = Save(now, int(epoch), before.tags | set(tags))
            self.begun[session_id] = save, save.epoch - before.epoch

    def _is_in(self, session_id: str) -> None:
        self.last[session_id], compactions = self.begun.pop(session_id)
        self.compactions += compactions

    def check(self, url: str) -> None:
        """Every chain verifies, every session is one of those told, and every tag is in its messages or its originals."""
        with open_store(url) as store:
            assert store.verify() == ()
            there = {record.id for record in store.sessions()}
            assert there <= {*self.last, *self.begun}
            for session_id in sorted(there):
                self._check_session(session_in(store, session_id))
        assert {*self.last} - there <= self.forgotten, "a session vanished"
        for gone in {*self.last, *self.begun} - there:
            self.last.pop(gone, None)
            self.begun.pop(gone, None)

    def _check_session(self, session: Session) -> None:
        now = digest(session)
        if session.id in self.begun and self.begun[session.id][0].digest == now:
            self._is_in(session.id)
        self.begun.pop(session.id, None)
        last = self.last[session.id]
        assert now == last.digest, f"session {session.id} is not as it was saved"
        missing = last.tags - tags_of(session)
        assert not missing, f"session {session.id} lost {len(missing)} of {len(last.tags)} messages"


def tags_of(session: Session) -> set[str]:
    """The tags in its messages, in the originals that their markers name, and in the originals that those name."""
    tags, seen, left = set[str](), set[bytes](), list(session.messages)
    while left:
        text = canonical(left.pop())
        tags.update(tag.decode() for tag in TAG.findall(text))
        for name in set(ORIGINAL.findall(text)) - seen:
            seen.add(name)
            found = session.original(name.decode())
            left += [found] if isinstance(found, Message) else found
    return tags


def crash_round(
    nursery: Nursery,
    url: str,
    random: Random,
    count: int = 4,
    *,
    told: Told | None = None,
    server_crash: Callable[[], None] | None = None,
) -> int:
    """Kill writers at a random moment, and check that all that was acknowledged is there. Returns how much that was.

    ``told`` is what writers told in earlier rounds on the same store; it has to be there still. ``server_crash`` kills the
    server and starts it again: before that the writers say something, and after it they go on.
    """
    told = told if told is not None else Told()
    before = told.saves
    with nursery.writers(url, count, "crash") as running:
        lines = heard(running, random, random.randrange(1, 60))
        if server_crash is not None:
            server_crash()
            for process in running:
                process.stdin.write("go on\n")
                process.stdin.flush()
            lines += heard(running, random, random.randrange(1, 60))
        for process in running:
            process.kill()
        for process in running:
            lines += process.stdout.readlines()
            problems = process.stderr.read()
            assert process.wait() == -signal.SIGKILL, f"a writer ended by itself: {problems}"
    for line in lines:
        if line.endswith("\n") and line != "gone\n":  # the last one may be cut off
            told.hear(line)
    told.check(url)
    return told.saves - before


def heard(running: Sequence[Child], random: Random, count: int) -> list[str]:
    """So many lines of any of them."""
    lines = []
    for _ in range(count):
        pipe = random.choice(running).stdout
        lines.append(pipe.readline())
    return lines
