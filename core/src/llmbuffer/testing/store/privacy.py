"""The promises of sealed stores and of tenants: what nobody without the key learns, and what no tenant does to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ...context import StableContext
from ...errors import ConflictError, CorruptStoreError, SealError, StoreError, UnknownSessionError
from ...messages import Message, ToolCall, ToolResult
from ...session import Session
from ...store import Compiled, Keyring, Store
from ...store.backend import Backend, Record, Reseals, Row
from ...store.books import Books
from ...store.records import decode_message, node_place
from ...store.sealed import key_number
from ...store.tenancy import envelope_for
from ..fakes import FakeClock
from .examples import StoreExamples, bytes_of

__all__ = ["PartsTenants", "Seals", "Told", "tell"]

KEY, NEW_KEY = bytes(range(3, 227, 7)), bytes(range(5, 229, 7))
PIECE = 8  # bytes


class Told(NamedTuple):
    """What was told to a store, and must not stand in it."""

    texts: tuple[str, ...]
    names: tuple[str, ...]

    def found_in(self, stored: bytes) -> list[str]:
        """The pieces of eight bytes of the texts, and the names that have fewer, that stand there."""
        said = [text.encode() for text in (*self.texts, *self.names)]
        pieces = {text[at : at + PIECE] for text in said for at in range(max(1, len(text) - PIECE + 1))}
        return sorted(repr(piece) for piece in pieces if piece in stored)


def tell(store: Store, tenant: str = "Umbrella-Holdings") -> Told:
    """Tell a store something of every kind, under names of every kind; the session is saved twice."""
    system, model = "Jupiter-7 clearance applies to all quotations.", "zq-model-9000"
    schema = {"type": "object", "properties": {"ledger_account_x": {"type": "string"}}}
    context = StableContext(model, system, [{"name": "wire_transfer_tool", "parameters": schema}])
    session = Session(context, store=store, session_id="session-of-agnes", routing_key="agnes-routing-7")
    call = ToolCall("call-91827", "wire_transfer_tool", '{"ledger_account_x":"DE44-5001"}')
    question, answer = "Transfer the Kowalski inheritance, please.", "Kowalski's Zürich money has left."
    session.append(Message("user", question, name="Agnes-Kowalski"))
    session.save()
    session.append([Message("assistant", [call]), Message("tool", [ToolResult("call-91827", answer)])])
    session.save()
    store.put("value-key-ω-4711", b"Zwiebelkuchen, still warm", ttl=1e9, price=12345.678, weight=777)
    store.take("lease-of-the-warmup", "worker-owner-13", 1e9)
    store.put_compiled(
        Compiled(context.fingerprint, "gemini", b"digest-of-it", handle="cachedContents/xyz123")
    )
    store.keep_original(session.id, "elided-one-5", Message("user", "What was elided, whole."))
    store.context(context.fingerprint)
    said = [system, question, answer, "wire_transfer_tool", "ledger_account_x", "DE44-5001", "Agnes-Kowalski"]
    said += ["Zwiebelkuchen, still warm", "cachedContents/xyz123", "What was elided, whole."]
    named = [model, tenant, session.id, "agnes-routing-7", "value-key-ω-4711", "lease-of-the-warmup"]
    named += ["worker-owner-13", "elided-one-5", context.fingerprint, "digest-of-it", "call-91827"]
    return Told(tuple(said), tuple(named))


class _Watched:
    """A back end that keeps every byte that it is given, and counts what is asked and answered."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.given: list[bytes] = []
        self.asked: list[tuple[str, int, int]] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._backend, name)

        def watched(*args: Any, **options: Any) -> Any:
            answer = method(*args, **options)
            if isinstance(answer, Iterator):
                answer = list(answer)
            given = b"\0".join(_leaves((args, tuple(options.values()))))
            self.given.append(given)
            self.asked.append((name, len(given), sum(map(len, _leaves(answer)))))
            return iter(answer) if isinstance(answer, list) and name != "page" else answer

        return watched


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each)
    else:
        yield str(value).encode()


class Seals(StoreExamples):
    """With a key, what is stored tells nothing without it, and nothing that was changed is served."""

    @pytest.fixture
    def opened(self, tmp_path: Path, clock: FakeClock) -> Iterator[Callable[..., Store]]:
        """Opens one back end as often as is asked, with a key, a tenant, or neither."""
        pytest.importorskip("cryptography")
        backend = self.make(tmp_path)

        def open_(key: Any = KEY, tenant: str | None = None, through: Any = backend) -> Store:
            return Store(through, envelope=envelope_for(through, key, tenant, clock), clock=clock)

        yield open_
        backend.close()

    def test_no_eight_bytes_of_what_was_said_stand_anywhere(
        self, opened: Callable[..., Store], tmp_path: Path
    ) -> None:
        """Neither in what the back end is given, nor in what lies there in the end; without a key all of it does."""
        sealed = opened(tenant="Umbrella-Holdings")
        watched = _Watched(sealed.backend)
        told = tell(opened(tenant="Umbrella-Holdings", through=watched))
        assert told.found_in(b"\0".join(watched.given)) == []
        assert told.found_in(self.at_rest(tmp_path)) == []
        assert sealed.forget("session-of-agnes").nodes == 3
        assert told.found_in(self.at_rest(tmp_path)) == []
        (tmp_path / "plain").mkdir()
        plain = self.make(tmp_path / "plain")
        watched = _Watched(plain)
        with Store(watched, clock=sealed.clock) as store:
            assert len(tell(store).found_in(b"\0".join(watched.given))) > 200
            stored = self.at_rest(tmp_path / "plain")
            assert stored == b"" or len(told.found_in(stored)) > 200

    def test_it_opens_with_its_key_and_with_no_other(self, opened: Callable[..., Store]) -> None:
        """At once, and in words that tell which fingerprints were found; nothing is written."""
        tell(opened())
        for key, words in ((None, "open it with key="), (NEW_KEY, "opens with a key of fingerprint")):
            with pytest.raises(SealError, match=words):
                opened(key)
        again = opened(KEY.hex())
        assert again.verify() == ()
        assert again.get("value-key-ω-4711") == b"Zwiebelkuchen, still warm"

    def test_a_plain_store_takes_no_key(self, opened: Callable[..., Store]) -> None:
        """Whether it was marked as plain, or is older than marks."""
        opened(None)
        with pytest.raises(SealError, match="not sealed"):
            opened()

    def test_values_that_changed_places_do_not_open(self, opened: Callable[..., Store]) -> None:
        """A sealed body under another key, one cut off, one with another pin, and one with a byte changed."""
        store = opened()
        store.put("a", b"1")
        store.put("b", b"2")
        mine, other = (
            store.backend.get(store.space, "value", store.envelope.name("value", key)) for key in ("a", "b")
        )
        assert mine is not None
        assert other is not None
        forged: list[Record] = [
            mine._replace(body=other.body),
            mine._replace(body=other.body, owner=other.owner),
            mine._replace(body=mine.body[:-1]),
            mine._replace(body=b""),
            mine._replace(pinned=True),
            mine._replace(expires=1e12),
            mine._replace(weight=9),
            *(mine._replace(body=_flipped(mine.body, at)) for at in range(len(mine.body))),
        ]
        for record in forged:
            store.backend.put(store.space, record)
            with pytest.raises(StoreError):
                store.get("a")
            assert [each.what for each in store.verify()] == ["record"]
        store.backend.put(store.space, mine)
        assert (store.get("a"), store.verify()) == (b"1", ())

    def test_sessions_work_as_in_a_plain_store(self, opened: Callable[..., Store]) -> None:
        """They load with the same bytes, share rows, meet conflicts, move elsewhere, and are forgotten."""
        store = opened()
        tell(store)
        session = Session.load(store, "session-of-agnes")
        assert bytes_of(Session.load(store, session.id).request("x")) == bytes_of(session.request("x"))
        fork = session.fork()
        fork.append(Message("user", "elsewhere"))
        before = store.stats().nodes
        fork.save()
        assert store.stats().nodes == before + 1
        late = Session.load(store, session.id)
        session.append(Message("user", "first"))
        session.save()
        late.append(Message("user", "second"))
        with pytest.raises(ConflictError):
            late.save()
        assert {each.id for each in store.sessions()} == {session.id, fork.id}
        store.forget(session.id)
        assert store.messages(fork.id) == fork.messages
        assert store.verify() == ()

    def test_values_count_by_their_sealed_weight(self, opened: Callable[..., Store]) -> None:
        """Also those that another process put; neither weight nor price is to be seen."""
        first, second = opened(), opened()
        for store in (first, second):
            store.books = Books(store.backend, store.space, "lru", 1_000, store.clock, store.shown)
        for key in ("pinned", "old", "newer"):
            first.put(key, b"x", weight=300, price=2.5, pinned=key == "pinned")
        second.put("newest", b"x", weight=300)
        assert set(second.keys()) == {"pinned", "newer", "newest"}
        stored = list(first.backend.weights(first.space, "value"))
        assert {(record.weight, record.price) for record in stored} == {(0, None)}
        assert {first.shown(record)[5:] for record in stored} == {
            (300, True, 2.5),
            (300, False, 2.5),
            (300, False, None),
        }

    def test_it_moves_to_another_key(self, opened: Callable[..., Store]) -> None:
        """All tenants with it; from then on the old key opens nothing, and names and digests are what they were."""
        both = Keyring({"old": KEY, "new": NEW_KEY}, current="new")
        whole, tenant = opened(), opened(tenant="Umbrella-Holdings")
        for store in (whole, tenant):
            tell(store)
        if not isinstance(whole.backend, Reseals):
            pytest.skip(f"{type(whole.backend).__name__} does not reseal: export, and import elsewhere")
        keys = {row.digest for row in whole.backend.nodes(tenant.space)}
        done = opened(both).rotate(rows=2)
        assert (done.number, done.left, done.rows > 10) == (2, 0, True)
        rows: list[Row] = [*whole.backend.nodes(tenant.space), *whole.backend.sessions(tenant.space)]
        rows += whole.backend.records(b"")
        assert {key_number(row.body) for row in rows} == {2}
        assert {row.digest for row in whole.backend.nodes(tenant.space)} == keys
        with pytest.raises(SealError, match="if it was rotated, the new one"):
            opened()
        for store in (opened(NEW_KEY), opened(NEW_KEY, "Umbrella-Holdings")):
            assert store.verify() == ()
            assert Session.load(store, "session-of-agnes").tip.depth == 3
            assert store.keys() == ("value-key-ω-4711",)
        assert opened(NEW_KEY).tenants() == ("Umbrella-Holdings",)


class PartsTenants(StoreExamples):
    """One tenant cannot read, fork, overwrite, time or guess another's entries; with a key, and without."""

    @pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
    def parted(
        self, request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
    ) -> Iterator[list[Store]]:
        """The stores of two tenants; the first one has told something."""
        if request.param is not None:
            pytest.importorskip("cryptography")
        backend = self.make(tmp_path)
        stores = [
            Store(backend, envelope=envelope_for(backend, request.param, tenant, clock), clock=clock)
            for tenant in ("first-tenant", "second-tenant")
        ]
        tell(stores[0])
        yield stores
        backend.close()

    def test_nothing_of_another_tenant_is_found(self, parted: list[Store]) -> None:
        """Not by its names, nor by any list."""
        first, second = parted
        session = Session.load(first, "session-of-agnes")
        for read in (second.load, second.messages, second.forget):
            with pytest.raises(UnknownSessionError):
                read("session-of-agnes")
        fingerprint = session.context.fingerprint
        assert (second.get("value-key-ω-4711"), second.drop("value-key-ω-4711")) == (None, False)
        assert (second.sessions(), second.keys(), second.stats()[:6]) == ((), (), (0, 0, 0, 0, 0, 0))
        assert second.context(fingerprint) is None
        assert second.compiled(fingerprint, "gemini") is None
        assert second.original("session-of-agnes", "elided-one-5") is None
        assert second.holder("lease-of-the-warmup") is None
        assert len(list(second.export(plain=True))) == 1
        assert second.gc() == (0, 0)
        assert Session.load(first, session.id).messages == session.messages

    def test_nothing_of_another_tenant_is_overwritten(self, parted: list[Store]) -> None:
        """The same names are each tenant's own; a row that stands in another's space does not open."""
        first, second = parted
        told = second.get("value-key-ω-4711")
        assert told is None
        second.put("value-key-ω-4711", b"mine")
        assert second.take("lease-of-the-warmup", "somebody-else", 5)
        tell(second)
        second.forget("session-of-agnes")
        assert first.get("value-key-ω-4711") == b"Zwiebelkuchen, still warm"
        assert len(first.messages("session-of-agnes")) == 3
        assert first.verify() == ()

    def test_a_fork_of_another_tenants_session_shares_no_row(self, parted: list[Store]) -> None:
        """Rows of one space are no parents in another: who has a session in hand saves it whole."""
        first, second = parted
        fork = Session.load(first, "session-of-agnes").fork()
        second.save(fork, fork._saved)
        assert second.stats().nodes == 3
        ours = {row.digest for row in first.backend.nodes(first.space)}
        theirs = {row.digest for row in first.backend.nodes(second.space)}
        assert len(ours) == len(theirs) == 3
        assert first.envelope.sealed == ours.isdisjoint(theirs)

    def test_rows_of_another_tenant_do_not_open(self, parted: list[Store]) -> None:
        """Where sealed, also if somebody copies them in the back end."""
        first, second = parted
        if not first.envelope.sealed:
            pytest.skip("without a key, who writes into the back end writes what he likes")
        (tip, *_) = first.backend.sessions(first.space)
        rows = list(first.backend.nodes(first.space))
        copied = tip._replace(key=second.envelope.name("session", "session-of-agnes"), revision=1)
        first.backend.append(second.space, rows, copied, list(first.backend.records(first.space)))
        with pytest.raises(CorruptStoreError):
            second.load("session-of-agnes")
        with pytest.raises(CorruptStoreError):
            decode_message(second.envelope.unwrap(node_place(rows[0]), rows[0].body))
        assert second.sessions() == ()
        assert len(second.verify()) >= 4

    def test_a_name_of_another_tenant_costs_what_an_absent_one_costs(self, parted: list[Store]) -> None:
        """The same calls of the back end, with as many bytes in and out."""
        second = parted[1]
        watched = _Watched(second.backend)
        store = Store(watched, envelope=second.envelope, clock=second.clock)
        acts: list[Callable[[str], object]] = [
            store.get,
            store.drop,
            store.holder,
            lambda name: store.original(name, name),
            lambda name: store.compiled(name, "gemini"),
            store.context,
            lambda name: _refused(store.load, name),
            lambda name: _refused(store.forget, name),
        ]
        there = ["value-key-ω-4711", "session-of-agnes", "lease-of-the-warmup"]
        costs = []
        for name in there:
            for each in (name, name[:-1] + "~"):
                watched.asked.clear()
                for act in acts:
                    act(each)
                costs.append(list(watched.asked))
        assert [costs[0]] * len(costs) == costs if store.envelope.sealed else costs[::2] == costs[1::2]

    def test_a_routing_key_is_the_tenants_own(self, parted: list[Store]) -> None:
        """The same key of two tenants is two at the provider, and tells neither; it stays, and forks share it."""
        sent: list[str] = []
        for store in parted:
            session = Session(
                StableContext("gpt-5.5"), store=store, routing_key="agnes-routing-7", session_id="s"
            )
            session.save()
            again = Session.load(store, "s")
            keys = {each.request("x").body["prompt_cache_key"] for each in (session, again, again.fork())}
            assert len(keys) == 1
            sent += keys
        assert len(set(sent)) == 2
        assert not any("tenant" in key or "agnes" in key for key in sent)
        assert parted[0].routing_key("a") != parted[0].routing_key("b")


def _flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


def _refused(act: Callable[[str], object], name: str) -> None:
    with pytest.raises(UnknownSessionError):
        act(name)
