"""Any order of steps leaves a store as a naive dictionary would be: a state machine for each back end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from llmbuffer import Message, Session, StableContext
from llmbuffer.errors import ConflictError, UnknownSessionError
from llmbuffer.store import Store, open_store
from llmbuffer.testing import FakeClock
from llmbuffer.tokens import EstimateCounter

WORDS = st.sampled_from(["a", "b", "c", "longer words"])
CONTEXTS = st.sampled_from([StableContext("gpt-5.5", text) for text in ("Be kind.", "Be brief.")])
OWNERS = st.sampled_from(["ann", "bob"])


class StoreAgainstDictionaries(RuleBasedStateMachine):
    """``said`` is what each stored session says; ``live`` what each open one says, and the revision that it saw."""

    scheme = "memory:"
    sessions = Bundle("sessions")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = FakeClock(100.0)
        self.store = self.opened()
        self.said: dict[str, tuple[str, ...]] = {}
        self.revisions: dict[str, int] = {}
        self.contexts: dict[str, StableContext] = {}
        self.values: dict[str, tuple[bytes, float]] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.number = 0

    def opened(self) -> Store:
        return open_store(self.scheme.format(folder=self.folder), clock=self.clock)

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    # Open sessions are pairs of a session and the revision that it saw last; 0 for one that was never saved.

    @rule(target=sessions, context=CONTEXTS)
    def begin(self, context: StableContext) -> list[object]:
        self.number += 1
        session_id = f"s{self.number}"
        return [Session(context, tokens=EstimateCounter(), session_id=session_id, store=self.store), 0]

    @rule(opened=sessions, words=st.lists(WORDS, max_size=3))
    def append(self, opened: list[object], words: list[str]) -> None:
        self.session(opened).append([Message("user", word) for word in words])

    @rule(opened=sessions)
    def save(self, opened: list[object]) -> None:
        session, seen = self.session(opened), opened[1]
        if self.revisions.get(session.id, 0) != seen:
            with pytest.raises(ConflictError):
                session.save()
            return
        session.save()
        opened[1] = self.revisions[session.id] = int(str(seen)) + 1
        self.said[session.id] = tuple(message.text for message in session.messages)
        self.contexts[session.id] = session.context

    @rule(target=sessions, opened=sessions)
    def fork(self, opened: list[object]) -> list[object]:
        return [self.session(opened).fork(), 0]

    @rule(target=sessions, data=st.data())
    @precondition(lambda self: self.said)
    def load(self, data: st.DataObject) -> list[object]:
        session_id = data.draw(st.sampled_from(sorted(self.said)))
        return [Session.load(self.store, session_id), self.revisions[session_id]]

    @rule(opened=consumes(sessions))
    def forget(self, opened: list[object]) -> None:
        session = self.session(opened)
        if session.id not in self.said:
            with pytest.raises(UnknownSessionError):
                self.store.forget(session.id)
            return
        self.store.forget(session.id)
        for stored in (self.said, self.revisions, self.contexts):
            del stored[session.id]

    @rule(key=WORDS, value=st.binary(max_size=4), ttl=st.none() | st.integers(1, 5))
    def put(self, key: str, value: bytes, ttl: int | None) -> None:
        self.store.put(key, value, ttl=ttl)
        self.values[key] = (value, float("inf") if ttl is None else self.clock() + ttl)

    @rule(key=WORDS)
    def drop(self, key: str) -> None:
        self.store.drop(key)
        self.values.pop(key, None)

    @rule(name=WORDS, owner=OWNERS, seconds=st.integers(1, 5))
    def take(self, name: str, owner: str, seconds: int) -> None:
        holder, until = self.leases.get(name, (owner, 0.0))
        free = holder == owner or until <= self.clock()
        assert self.store.take(name, owner, seconds) is free
        if free:
            self.leases[name] = (owner, self.clock() + seconds)

    @rule(name=WORDS, owner=OWNERS)
    def release(self, name: str, owner: str) -> None:
        held = self.leases.get(name, ("", 0.0))[0] == owner
        if held and self.leases[name][1] > self.clock():
            assert self.store.release(name, owner)
        else:
            self.store.release(name, owner)
        if held:
            del self.leases[name]

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        self.store.gc()

    @rule()
    def carry_over(self) -> None:
        """Into another store, which then holds the same."""
        with open_store("memory:", clock=self.clock) as other:
            other.import_(self.store.export())
            assert sorted(other.export()) == sorted(self.store.export())

    @invariant()
    def says_what_the_dictionary_says(self) -> None:
        assert {record.id for record in self.store.sessions()} == self.said.keys()
        for session_id, said in self.said.items():
            assert tuple(message.text for message in self.store.messages(session_id)) == said
        for context in self.contexts.values():
            assert self.store.context(context.fingerprint) == context
        for key in ("a", "b", "c", "longer words"):
            value, until = self.values.get(key, (b"", 0.0))
            assert self.store.get(key) == (value if until > self.clock() else None)

    @invariant()
    def is_whole(self) -> None:
        assert self.store.verify() == ()

    @staticmethod
    def session(opened: list[object]) -> Session:
        assert isinstance(opened[0], Session)
        return opened[0]


class SqliteAgainstDictionaries(StoreAgainstDictionaries):
    scheme = "sqlite:///{folder}/store.db"

    @rule()
    def open_again(self) -> None:
        """The process ends and another one goes on; open sessions keep the store that they have."""
        again = self.opened()
        assert sorted(again.export()) == sorted(self.store.export())
        again.close()


BOUNDS = {"deadline": None, "suppress_health_check": list(HealthCheck)}
TestMemory = StoreAgainstDictionaries.TestCase
TestMemory.settings = settings(max_examples=60, stateful_step_count=30, **BOUNDS)  # type: ignore[arg-type]
TestSqlite = SqliteAgainstDictionaries.TestCase
TestSqlite.settings = settings(max_examples=15, stateful_step_count=20, **BOUNDS)  # type: ignore[arg-type]
