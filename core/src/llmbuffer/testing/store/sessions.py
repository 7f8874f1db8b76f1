"""The promises about sessions: their bytes, the rows that they share, and what happens to two writers of one."""

from __future__ import annotations

from typing import Any

import pytest

from ...context import Segment, StableContext
from ...errors import ConflictError, UnknownSessionError
from ...messages import Message, Opaque, Text, ToolCall, ToolResult
from ...plugins import get_dialect
from ...session import Session
from ...store import Store
from ...store.backend import ROOT, MissingNodeError, NodeRow, SessionRow, StaleError
from ..dialect.cases import DYNAMIC, converse, session_for
from .examples import CONTEXT, DIALECTS, StoreExamples, bytes_of, saved

__all__ = ["GuardsTips", "KeepsSessions", "SharesRows"]

NODE = NodeRow(b"n" * 24, ROOT, b"body", b"note")


class KeepsSessions(StoreExamples):
    """A loaded session sends the bytes that the saved one would have sent."""

    @pytest.mark.parametrize(("dialect", "model"), DIALECTS)
    def test_the_next_request_has_the_same_bytes(self, store: Store, dialect: str, model: str) -> None:
        """At every point of a conversation with tools and dynamic text, in an open turn and between turns."""
        session = session_for(get_dialect(dialect), model, store=store)
        points = 0
        for request in converse(session, dynamic=True):
            points += 1
            self._same(store, session)
            assert bytes_of(request)
        self._same(store, session)
        assert points == 6

    @pytest.mark.parametrize(("dialect", "model"), DIALECTS)
    def test_forks_keep_their_bytes(self, store: Store, dialect: str, model: str) -> None:
        """A fork is saved beside its parent, under an id of its own, and goes on where it stood."""
        session = session_for(get_dialect(dialect), model, store=store)
        list(converse(session, 1))
        session.save()
        fork = session.fork("worker", task="Look closer.")
        list(converse(fork, 1, dynamic=True))
        self._same(store, fork)
        found = Session.load(store, fork.id)
        assert (found.name, found.parent_id, found.epoch) == ("worker", session.id, 0)
        self._same(store, session)

    def _same(self, store: Store, session: Session) -> None:
        session.save()
        found = Session.load(store, session.id)
        assert found.messages == session.messages
        asked: list[dict[str, Any]] = [{}, {"dynamic": {"clock": DYNAMIC, "more": "12:01"}}]
        for options in asked:
            for user in ("And now?", None):
                if user is None and not session.tip.depth:
                    continue
                wanted = session.request(user, **options)
                assert bytes_of(found.request(user, **options)) == bytes_of(wanted)
                assert found.request(user, **options).key == wanted.key

    def test_provider_content_comes_back_byte_for_byte(self, store: Store) -> None:
        """Signed reasoning, arguments as the model wrote them, results with pictures, empty content."""
        thinking = Opaque("any", b'{"type":"thinking", "thinking":"x","signature":"s"}')
        messages = [
            Message("user", "hello", name="Ann"),
            Message("assistant", [thinking, Text("see"), ToolCall("c1", "f", '{"b": 1e2,\n"a":1,"a":2')]),
            Message("tool", [ToolResult("c1", (Text("one"), Text("two")), is_error=True)]),
            Message.from_openai({"role": "assistant", "content": None, "refusal": "no"}),
            Message.from_openai({"role": "user", "content": [{"type": "text", "text": "parts"}]}),
        ]
        session = Session(CONTEXT, store=store, session_id="s1")
        session.append(messages)
        session.save()
        found = Session.load(store, "s1").messages
        assert found == tuple(messages) == store.messages("s1")
        assert [each._shape for each in found] == [each._shape for each in messages]
        assert [part.json for part in found[1].parts if isinstance(part, Opaque)] == [thinking.json]

    def test_a_planned_break_is_remembered(self, store: Store) -> None:
        """The epoch, and that what the cache depends on is frozen."""
        session = session_for(get_dialect("anthropic"), "claude-sonnet-5.5", store=store)
        list(converse(session, 1))
        session.thaw("try")
        session.save()
        assert (Session.load(store, session.id).epoch, Session.load(store, session.id)._frozen) == (1, False)

    def test_the_context_comes_with_it(self, store: Store) -> None:
        """Also the order of keys, and dynamic segments, which the fingerprint does not see."""
        tools = [{"name": "f", "parameters": {"type": "object", "b": 1, "a": 2}, "strict": True}]
        system = [Segment("policy", "Be kind.", "global", "long", True), Segment("clock", "12", "turn")]
        context = StableContext("gpt-5.5", system, tools, {"z": 1.0, "a": 2**70, "b": {"d": 1, "c": None}})
        session = Session(context, store=store, session_id="s1")
        session.save()
        found = Session.load(store, "s1").context
        assert found == context == store.context(context.fingerprint)
        assert list(found.params.items()) == list(context.params.items())
        assert (found.tools, found.segments, found.dynamic) == (
            context.tools,
            context.segments,
            context.dynamic,
        )

    def test_an_unknown_session_is_named(self, store: Store) -> None:
        """The error says which id was asked for."""
        with pytest.raises(UnknownSessionError, match="'nobody'"):
            Session.load(store, "nobody")


class SharesRows(StoreExamples):
    """What two sessions both say is stored once, and a save writes what is new."""

    def test_a_save_writes_what_is_new(self, store: Store) -> None:
        """Of a long session, too; saving twice writes nothing."""
        session = saved(store, *map(str, range(300)))
        counted = []
        append = store.backend.append

        def spy(space: bytes, rows: Any, *rest: Any) -> int:
            counted.append((len(rows), append(space, rows, *rest)))
            return counted[-1][1]

        store.backend.append = spy  # type: ignore[method-assign, assignment]  # a spy
        session.append([Message("user", "one more"), Message("user", "and one")])
        session.save()
        session.save()
        fork = session.fork()
        fork.append(Message("user", "elsewhere"))
        fork.save()
        assert counted == [(2, 2), (0, 0), (1, 1)]

    def test_sessions_that_say_the_same_share_rows(self, store: Store) -> None:
        """Though nobody forked anything; and only as long as they say the same."""
        saved(store, "a", "b", "c")
        saved(store, "a", "b", "d", session_id="s2")
        saved(store, "b", session_id="s3")
        assert store.stats().nodes == 5
        assert [len(store.messages(each)) for each in ("s1", "s2", "s3")] == [3, 3, 1]

    def test_what_is_written_otherwise_shares_nothing(self, store: Store) -> None:
        """Messages that are equal and render to other bytes are two."""
        bare = {"role": "user", "content": "hi"}
        parts = {"role": "user", "content": [{"type": "text", "text": "hi"}]}
        for session_id, message in (("s1", bare), ("s2", parts)):
            session = Session(CONTEXT, store=store, session_id=session_id)
            session.append(message)
            session.save()
            assert Session.load(store, session_id).messages[0].to_openai() == message
        assert store.stats().nodes == 2


class GuardsTips(StoreExamples):
    """Two writers of one session: the second is told, and nothing vanishes."""

    def test_the_second_writer_gets_both_tips(self, store: Store) -> None:
        """What it wanted to write is not there; what the first wrote is; a fork saves the rest."""
        first = saved(store, "a")
        second = Session.load(store, "s1")
        first.append(Message("user", "first"))
        first.save()
        second.append(Message("user", "second"))
        before = store.stats()
        with pytest.raises(ConflictError) as caught:
            second.save()
        assert store.stats() == before
        tip = store.backend.session(b"", b"s1")
        assert tip is not None
        assert caught.value.theirs == tip.tip.hex() != caught.value.ours
        fork = second.fork()
        fork.save()
        assert [each.text for each in store.messages("s1")] == ["a", "first"]
        assert [each.text for each in store.messages(fork.id)] == ["a", "second"]

    def test_equal_turns_of_two_writers_do_not_melt_into_one(self, store: Store) -> None:
        """Two that append the same words have said them twice."""
        first = saved(store, "a")
        second = Session.load(store, "s1")
        for each in (first, second):
            each.append(Message("user", "same"))
        first.save()
        with pytest.raises(ConflictError):
            second.save()

    def test_an_id_is_taken_once(self, store: Store) -> None:
        """A new session does not overwrite a stored one, nor does a forgotten one come back."""
        first = saved(store, "a")
        with pytest.raises(ConflictError, match="is there already"):
            saved(store, "b")
        store.forget("s1")
        with pytest.raises(ConflictError, match="was forgotten") as caught:
            first.save()
        assert caught.value.theirs is None

    def test_a_fork_of_a_forgotten_session_is_written_whole(self, store: Store) -> None:
        """What it counted on being stored is stored again."""
        session = saved(store, "a", "b")
        fork = session.fork()
        store.forget("s1")
        fork.append(Message("user", "c"))
        fork.save()
        assert [each.text for each in store.messages(fork.id)] == ["a", "b", "c"]
        assert store.verify() == ()

    def test_a_write_is_whole_or_nothing(self, store: Store) -> None:
        """A stale session adds no rows; a missing parent sets no session; spaces see nothing of each other."""
        backend, row = store.backend, SessionRow(b"k", NODE.digest, 1, b"c", b"body")
        with pytest.raises(MissingNodeError):
            backend.append(b"", [NODE, NODE._replace(digest=b"o" * 24, parent=b"x" * 24)], row)
        with pytest.raises(StaleError):
            backend.append(b"", [NODE], row._replace(revision=2))
        assert backend.size(b"")[:4] == (0, 0, 0, 0)
        assert backend.append(b"", [NODE], row) == 1
        assert backend.append(b"other", [NODE], row) == 1
        assert backend.history(b"", b"k") == (row, [NODE])
        assert backend.forget(b"", b"k")
        assert backend.sweep(b"", 0.0) == (1, 0)
        assert backend.history(b"other", b"k") == (row, [NODE])
