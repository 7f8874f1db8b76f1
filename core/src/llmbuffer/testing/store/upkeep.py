"""The promises about the whole: forgetting, finding damage, moving elsewhere, and being there again."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from ...context import StableContext
from ...errors import CorruptStoreError, StoreError, UnknownSessionError
from ...messages import Message
from ...plugins import get_dialect
from ...session import Session
from ...store import Compiled, Store
from ...store.backend import ROOT, SessionRow
from ..dialect.cases import converse, session_for
from ..fakes import FakeClock
from .examples import StoreExamples, bytes_of, saved

__all__ = ["Forgets", "Persists", "Transfers", "Verifies"]


class Forgets(StoreExamples):
    """What is deleted is gone, and nothing else is."""

    def test_forgetting_deletes_what_only_that_session_uses(self, store: Store) -> None:
        """Its own messages and context; a fork keeps what it shares."""
        session = saved(store, "shared", "own")
        other = Session(StableContext("gpt-5.5", "Another."), store=store, session_id="s2")
        other.append([Message("user", "shared"), Message("user", "kept")])
        other.save()
        gone = store.forget("s1")
        assert (gone.nodes, gone.records, gone.vacuumed) == (1, 1, True)
        assert [each.text for each in store.messages("s2")] == ["shared", "kept"]
        assert store.context(session.context.fingerprint) is None
        assert store.context(other.context.fingerprint) == other.context
        with pytest.raises(UnknownSessionError, match="'s1'"):
            store.forget("s1")
        assert [each.id for each in store.sessions()] == ["s2"]
        store.forget(other)
        assert store.sessions() == ()


class Verifies(StoreExamples):
    """Whatever is not as it was written is found, and never served."""

    def test_a_whole_store_has_no_findings(self, store: Store) -> None:
        """With something of every kind."""
        saved(store, "a", "b")
        store.put("v", b"1", ttl=5)
        store.take("l", "ann", 5)
        store.put_compiled(Compiled("b2:1", "gemini"))
        store.keep_original("s1", "m", Message("user", "x"))
        assert store.verify() == ()

    def test_values_that_changed_places_are_refused(self, store: Store) -> None:
        """A body under another's key, and one that was changed."""
        store.put("a", b"1")
        store.put("b", b"2")
        found = store.backend.get(b"", "value", b"b")
        assert found is not None
        store.backend.put(b"", found._replace(key=b"a"))
        with pytest.raises(CorruptStoreError, match="'a'"):
            store.get("a")
        assert [(each.what, each.name) for each in store.verify()] == [("record", "b'a'")]

    def test_a_half_written_session_is_found(self, store: Store) -> None:
        """One whose tip is not that of its messages."""
        saved(store, "a", "b")
        found = store.backend.history(b"", b"s1")
        assert found is not None
        row = SessionRow(b"s2", found[1][0].digest, 1, found[0].context, b"")
        body = msgspec.msgpack.encode(store.session_record(found[0]))
        store.backend.append(b"", [], store.session_body(row, body))
        assert [each.problem[:12] for each in store.verify()] == ["half written"]
        with pytest.raises(CorruptStoreError, match="2 messages, of which 1"):
            Session.load(store, "s2")
        assert Session.load(store, "s1").messages

    def test_a_node_that_is_not_its_digest_is_found(self, store: Store) -> None:
        """Though its check value is right."""
        row = store.node_row(ROOT, b"whatever", b"")
        forged = row._replace(digest=b"f" * 24)
        body = store.envelope.wrap(b"node" + forged.digest + ROOT, b"whatever")
        store.backend.append(b"", [forged._replace(body=body)], None)
        assert [(each.what, "digest" in each.problem) for each in store.verify()] == [("node", True)]


class Transfers(StoreExamples):
    """A store as lines, and back."""

    def test_what_is_exported_comes_back(self, store: Store, tmp_path: Path) -> None:
        """Into a store of the same kind; a second import adds nothing."""
        session = session_for(get_dialect("anthropic"), "claude-sonnet-5.5", store=store)
        list(converse(session, 1, dynamic=True))
        session.save()
        store.put("v", b"\x00\xff", ttl=50, pinned=True, price=2.5)
        store.put_compiled(Compiled("b2:1", "gemini", b"\xff"))
        store.keep_original(session.id, "m", Message("user", "x"))
        lines = list(store.export())
        (tmp_path / "other").mkdir()
        with Store(self.make(tmp_path / "other"), clock=store.clock) as other:
            assert other.import_(lines).sessions == 1
            assert sorted(other.export()) == sorted(lines)
            assert other.verify() == ()
            assert bytes_of(Session.load(other, session.id).request("x")) == bytes_of(session.request("x"))
            again = other.import_(lines)
            assert (again.nodes, again.sessions) == (0, 0)

    def test_a_damaged_export_is_refused_by_line(self, store: Store) -> None:
        """A changed message, another version, no JSON, nothing."""
        saved(store, "a secret")
        lines = list(store.export())
        changed = [line.replace("a secret", "a sacred") for line in lines]
        for bad, number in ((changed, 3), (lines[1:], 1), ([lines[0], "{"], 2)):
            with pytest.raises(StoreError, match=f"line {number} "):
                store.import_(bad)
        with pytest.raises(StoreError, match="empty"):
            store.import_([])
        store.forget("s1")
        saved(store, "another")
        with pytest.raises(StoreError, match="another tip"):
            store.import_(lines)


class Persists(StoreExamples):
    """What was saved is there when the store is opened again."""

    def test_everything_is_there_again(self, store: Store, tmp_path: Path, clock: FakeClock) -> None:
        """Also while the first one is still open."""
        session = saved(store, "a", "b")
        store.put("v", b"1")
        store.take("l", "ann", 5)
        with Store(self.again(tmp_path), clock=clock) as again:
            assert Session.load(again, "s1").messages == session.messages
            assert (again.get("v"), again.take("l", "bob", 5)) == (b"1", False)
            assert sorted(again.export()) == sorted(store.export())
