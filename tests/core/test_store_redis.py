"""The Redis back end on a real server: the contract, what it survives, and what its errors say."""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import blake2b
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from tests.core.test_store_model import StoreAgainstDictionaries
from tests.redis_flips import spots
from tests.servers import RedisServer, free_port, need_redis, redis_server
from tests.store_sharing import (
    CONTEXT,
    assert_closed_store_says_so,
    assert_forked_processes_share,
    assert_threads_share,
    fill,
)

from llmbuffer import Message, Session
from llmbuffer.errors import ConflictError, CorruptStoreError, StoreError
from llmbuffer.store import Backend, Store, new_key, open_store
from llmbuffer.store.backend import ROOT, MissingNodeError, NodeRow, Record, SessionRow, StaleError
from llmbuffer.store.memory import MemoryBackend
from llmbuffer.store.redis import RedisBackend
from llmbuffer.testing import StoreContract
from llmbuffer.tokens import EstimateCounter


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    need_redis()
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


_numbers = count()


@pytest.fixture
def url(server: RedisServer) -> str:
    """A prefix of one test."""
    return f"{server.url}?prefix=t{next(_numbers)}:"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


class TestRedis(StoreContract):
    url: str

    @pytest.fixture(autouse=True)
    def _with(self, server: RedisServer) -> None:
        self.url = server.url

    def make(self, folder: Path) -> Backend:
        prefix = blake2b(str(folder).encode(), digest_size=8).hexdigest()
        return RedisBackend(f"{self.url}?prefix={prefix}:")

    again = make

    def at_rest(self, folder: Path) -> bytes:
        """All that stands under the prefix; the files of the server hold the other tests, too."""
        store = self.make(folder)
        assert isinstance(store, RedisBackend)
        with Store(store) as opened:
            return everything(opened)


def everything(store: Store) -> bytes:
    link = backend_of(store).link
    found = spots(link.client, link.address.prefix)
    return b"\0".join(each for spot in found for each in (spot.place.encode(), spot.stored))


def backend_of(store: Store) -> RedisBackend:
    assert isinstance(store.backend, RedisBackend)
    return store.backend


def client_of(store: Store) -> Any:
    """The client of the server itself, for what no store does."""
    return backend_of(store).link.client


def refused(url: str) -> str:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    return str(caught.value)


# Opening


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:secret@localhost:port/0", "no port that is a number"),
        ("redis://:secret@localhost/zero", "'zero' is no number of a database"),
        ("redis://:secret@localhost/0?colour=red", r"unknown options \['colour'\]; known are"),
        ("redis://localhost/0?ssl_cert_reqs=none&password=secret", r"unknown options \['ssl_cert_reqs'\]"),
        ("redis://:secret@localhost/0?timeout=never", "no number of seconds"),
        ("unix://:secret@host/socket", "names no socket"),
        ("unix://", "names no socket"),
    ],
)
def test_a_url_that_says_nothing_is_refused_without_its_password(url: str, words: str) -> None:
    with pytest.raises(StoreError, match=words) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


def test_the_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert "pip install 'llmbuffer[redis]>=1'" in refused("redis://:secret@localhost/0")


def test_no_password_is_shown(server: RedisServer, tmp_path: Path) -> None:
    with redis_server(tmp_path, "--requirepass", "secret", "--save", "") as locked:
        assert "give a user and a password" in refused(locked.url)
        assert "give a user and a password" in refused(locked.url.replace("//", "//:not-the-secret@"))
        with open_store(locked.url.replace("//", "//default:secret@")) as store:
            fill(store)
            assert repr(store.backend) == f"RedisBackend('{locked.url.replace('//', '//default@')}')"
            assert "secret" not in repr(store.verify())
        with open_store(f"unix://{locked.socket}?db=0&password=secret") as store:
            assert len(store.messages("s1")) == 2


def test_one_database_holds_stores_under_prefixes(url: str, server: RedisServer) -> None:
    with open_store(url) as one, open_store(url.replace("prefix=", "prefix=other-")) as other:
        fill(one)
        assert (len(one.sessions()), other.sessions()) == (1, ())
    with open_store(url.replace("redis://", "valkey://")) as same:
        assert len(same.messages("s1")) == 2
    with open_store(url.replace("/0?", "/5?")) as elsewhere:
        assert elsewhere.sessions() == ()
        prefixes = {key.partition(b":")[0] for key in client_of(elsewhere).keys("*")}
        assert prefixes == {url.partition("prefix=")[2][:-1].encode()}
    assert "no database of this number" in refused(f"{server.url[:-1]}99999")


def test_a_newer_schema_is_left_alone(store: Store, url: str) -> None:
    fill(store)
    client_of(store).set(f"{url.partition('prefix=')[2]}schema", "2")
    assert "has schema version b'2', and this llmbuffer knows version b'1': update" in refused(url)
    assert len(store.messages("s1")) == 2


def certificate(folder: Path) -> tuple[Path, Path]:
    """A key, and a certificate for 127.0.0.1 that it signed itself."""
    pytest.importorskip("cryptography")
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    begin = dt.datetime.now(dt.timezone.utc) - dt.timedelta(days=1)
    named = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + dt.timedelta(days=2))
        .add_extension(named, critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "key.pem", folder / "certificate.pem"
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    paths[0].write_bytes(key.private_bytes(*form))
    paths[1].write_bytes(signed.public_bytes(form[0]))
    return paths


def test_certificates_are_checked(tmp_path: Path) -> None:
    need_redis()
    key, certified = certificate(tmp_path)
    port = str(free_port())
    files = ("--tls-cert-file", str(certified), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    with ExitStack() as stack:
        try:
            server = stack.enter_context(redis_server(tmp_path, "--tls-port", port, *files, "--save", ""))
        except RuntimeError as error:
            pytest.skip(f"this server was built without TLS: {error}")
        url = f"rediss://127.0.0.1:{port}/0"
        assert "ssl_ca_certs=path" in refused(url)
        with open_store(f"{url}?ssl_ca_certs={certified}") as store:
            fill(store)
        with open_store(server.url) as store:
            assert len(store.messages("s1")) == 2


# What the server refuses


def test_a_replica_can_be_read(store: Store, server: RedisServer) -> None:
    session = fill(store)
    client_of(store).replicaof("127.0.0.1", str(free_port()))
    try:
        session.append(Message("user", "c"))
        with pytest.raises(StoreError, match="nothing was written; this is a replica"):
            session.save()
        with pytest.raises(StoreError, match="give the URL of its primary"):
            store.put("k", b"v")
        with open_store(server.url + "?prefix=nothing:") as empty:
            assert empty.sessions() == ()
        assert len(store.messages("s1")) == 2
    finally:
        client_of(store).replicaof("NO", "ONE")
    session.save()
    assert len(store.messages("s1")) == 3


def test_a_full_memory_loses_nothing_that_was_acknowledged(store: Store) -> None:
    session = fill(store)
    client_of(store).config_set("maxmemory", "1mb")
    try:
        session.append(Message("user", "c"))
        with pytest.raises(StoreError, match="nothing was written; raise maxmemory"):
            session.save()
        assert len(store.messages("s1")) == 2
        assert store.verify() == ()
        store.forget("s1")
    finally:
        client_of(store).config_set("maxmemory", "0")
    assert store.sessions() == ()


@pytest.mark.parametrize("name", ["state", "links", "bodies", "loose", "sessions", "uses", "meta:context"])
def test_a_key_of_another_program_changes_nothing(store: Store, name: str) -> None:
    fill(store)
    keys, client = backend_of(store).keys(store.space), client_of(store)
    key = keys.of("context")[0] if name.startswith("meta") else getattr(keys, name)
    before = client.dump(key)
    client.delete(key)
    client.lpush(key, "something else")
    others = [each for each in (*keys.all, *keys.of("context")) if each != key]
    stored = [client.dump(each) for each in others]
    with pytest.raises(CorruptStoreError, match="another program has written"):
        fill(store, "s2", "x")
    assert [client.dump(each) for each in others] == stored
    assert store.verify()
    client.delete(key)
    if before is not None:
        client.restore(key, 0, before)
    assert store.verify() == ()


def test_a_user_without_permission_is_told(store: Store, url: str) -> None:
    client_of(store).acl_setuser(
        "reader", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@read"]
    )
    with pytest.raises(StoreError, match="the user of the URL may not do this"):
        open_store(url.replace("//", "//reader:secret@")).put("k", b"v")


def test_a_user_of_one_prefix_may_do_all_that_a_store_does(store: Store, url: str) -> None:
    """With the rule of docs/store.md."""
    rule = "~{prefix}* +@all -@admin -@dangerous +info +bgrewriteaof +config|get"
    assert rule.format(prefix="llmbuffer:") in (Path(__file__).parents[2] / "docs" / "store.md").read_text(
        "utf-8"
    )
    prefix = url.partition("prefix=")[2]
    client_of(store).execute_command(
        "ACL SETUSER", "few", "on", ">secret", *rule.format(prefix=prefix).split()
    )
    with open_store(url.replace("//", "//few:secret@")) as own:
        session = fill(own)
        own.put("k", b"v", ttl=5)
        assert own.take("lease", "ann", 5)
        assert Session.load(own, "s1").messages == session.messages
        assert own.stats().file_bytes > 0
        assert own.verify() == ()
        assert own.forget("s1").vacuumed
    with pytest.raises(StoreError, match="the user of the URL may not do this"):
        open_store(url.replace("//", "//few:secret@").replace("prefix=", "prefix=other-"))


def test_settings_that_lose_turns_are_findings(store: Store) -> None:
    client = client_of(store)
    assert store.verify() == ()
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        (finding,) = store.verify()
        assert (finding.what, finding.name) == ("file", repr(store.backend))
        assert "'allkeys-lru': it may drop keys" in finding.problem
    finally:
        client.config_set("maxmemory-policy", "noeviction")


def test_a_server_that_keeps_nothing_is_a_finding(tmp_path: Path) -> None:
    need_redis()
    with (
        redis_server(tmp_path, "--save", "", "--appendonly", "no") as server,
        open_store(server.url) as store,
    ):
        assert ["appendonly of the server is 'no'" in each.problem for each in store.verify()] == [True]
        fill(store, "s1", "a secret")
        assert store.forget("s1").vacuumed
        assert all(b"a secret" not in each.read_bytes() for each in tmp_path.glob("*.rdb"))


# Servers that go away, and answers that are lost


def test_a_server_that_is_gone_is_told_and_comes_back(tmp_path: Path) -> None:
    need_redis()
    with redis_server(tmp_path) as server, open_store(server.url) as store:
        session = fill(store)
        store.take("lease", "ann", 10**9)
        server.kill()
        session.append(Message("user", "c"))
        for step in (session.save, store.sessions, store.stats):
            with pytest.raises(StoreError, match="start the server, or check the URL"):
                step()
        assert {"start the server" in each.problem for each in store.verify()} == {True}
        server.start()
        session.save()
        assert [each.text for each in store.messages("s1")] == ["a", "b", "c"]
        assert store.holder("lease") is not None
        assert store.verify() == ()


class Proxy:
    """Between a client and the server; ``swallow`` so many answers: the connection is closed instead."""

    def __init__(self, port: int) -> None:
        self.swallow, self.asked = 0, b""
        self._target = ("127.0.0.1", port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._threads = [Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            self._threads.append(Thread(target=self._serve, args=(client,), daemon=True))
            self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            while data := client.recv(2**20):
                server.sendall(data)
                answer = server.recv(2**20)
                if self.swallow and b"EVAL" in data:
                    self.swallow -= 1
                    return
                client.sendall(answer)

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def proxy(server: RedisServer, store: Store) -> Iterator[Proxy]:
    fill(store, "warm")  # so that the server knows the scripts
    store.forget("warm")
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def through(proxy: Proxy, server: RedisServer, url: str) -> Iterator[Store]:
    with open_store(url.replace(str(server.port), str(proxy.port))) as store:
        fill(store, "before")
        yield store


def test_a_lost_answer_doubles_no_turn(through: Store, proxy: Proxy, store: Store) -> None:
    session = fill(through)
    for number in range(3):
        session.append(Message("user", f"{number}"))
        proxy.swallow = 1
        session.save()
        assert proxy.swallow == 0
    assert [each.text for each in store.messages("s1")] == ["a", "b", "0", "1", "2"]
    assert store.verify() == ()


def test_a_save_without_an_answer_is_saved_again_without_a_conflict(
    through: Store, proxy: Proxy, store: Store
) -> None:
    session = fill(through)
    session.append(Message("user", "c"))
    proxy.swallow = 2
    with pytest.raises(StoreError, match="may be in or not, and doing the same again doubles nothing"):
        session.save()
    session.save()
    session.append(Message("user", "d"))
    session.save()
    assert [each.text for each in store.messages("s1")] == ["a", "b", "c", "d"]


def test_a_sealed_save_without_an_answer_is_saved_again(proxy: Proxy, server: RedisServer, url: str) -> None:
    """Though its bytes are others when it is sealed once more."""
    pytest.importorskip("cryptography")
    key, direct = new_key(), f"{url}sealed:"
    with (
        open_store(direct.replace(str(server.port), str(proxy.port)), key=key) as through,
        open_store(direct, key=key) as store,
    ):
        fill(through, "before")
        session = fill(through)
        session.append(Message("user", "c"))
        proxy.swallow = 2
        with pytest.raises(StoreError, match="may be in or not"):
            session.save()
        session.name = "renamed"
        session.save()
        assert [each.text for each in store.messages("s1")] == ["a", "b", "c"]
        assert Session.load(store, "s1").name == "renamed"
        assert store.verify() == ()


def test_a_save_that_was_lost_and_is_in_is_no_conflict_of_another_writer(
    through: Store, proxy: Proxy, store: Store
) -> None:
    session = fill(through)
    session.append(Message("user", "c"))
    proxy.swallow = 2
    with pytest.raises(StoreError, match="may be in or not"):
        session.save()
    session.append(Message("user", "d"))
    with pytest.raises(StoreError, match="it is in, while this one is not: load the session") as caught:
        session.save()
    assert not isinstance(caught.value, ConflictError)
    assert [each.text for each in store.messages("s1")] == ["a", "b", "c"]


def test_a_real_conflict_behind_a_lost_answer_is_one(through: Store, proxy: Proxy, store: Store) -> None:
    session = fill(through)
    other = Session.load(store, "s1")
    for each in (other, session):
        each.append(Message("user", "the same words"))
    other.save()
    proxy.swallow = 1
    with pytest.raises(ConflictError):
        session.save()
    assert len(store.messages("s1")) == 3


def test_others_that_saved_after_a_lost_answer_are_no_conflict(
    through: Store, proxy: Proxy, store: Store
) -> None:
    session = fill(through)
    session.append(Message("user", "c"))
    proxy.swallow = 2
    with pytest.raises(StoreError, match="may be in or not"):
        session.save()
    other = Session.load(store, "s1")
    for number in range(9):
        other.append(Message("user", f"{number}"))
        other.save()
    with pytest.raises(StoreError, match="may be in or not; load the session and look") as caught:
        session.save()
    assert not isinstance(caught.value, ConflictError)
    assert len(store.messages("s1")) == 12


def test_what_a_lost_answer_removed_is_not_denied(through: Store, proxy: Proxy) -> None:
    through.take("lease", "ann", 10)
    through.release("lease", "ann")  # so that the server knows the script
    through.take("lease", "ann", 10)
    proxy.swallow = 1
    with pytest.raises(StoreError, match="whether this call removed it cannot be told"):
        through.release("lease", "ann")
    assert through.holder("lease") is None


def test_a_server_that_forgot_the_scripts_learns_them_again(store: Store) -> None:
    session = fill(store)
    client_of(store).script_flush()
    session.append(Message("user", "c"))
    session.save()
    assert len(store.messages("s1")) == 3


# Long appends, and sweeps beside them


def rows_of(store: Store, number: int, parent: bytes = ROOT, text: str = "x") -> list[NodeRow]:
    rows = []
    for each in range(number):
        rows.append(store.node_row(parent, b"%d %s" % (each, text.encode()), b"note"))
        parent = rows[-1].digest
    return rows


def test_ten_thousand_nodes_are_appended_whole(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read back, while another process sweeps between any two slices."""
    backend, rows = backend_of(store), rows_of(store, 10_000)
    session = SessionRow(b"s", rows[-1].digest, 1, b"c", b"body")
    asked = 0
    with open_store(url) as sweeping:
        run = backend.link.run_told

        def with_sweeps(*arguments: Any) -> Any:
            nonlocal asked
            asked += 1
            assert sweeping.gc().nodes == 0
            assert sweeping.sessions() == ()
            return run(*arguments)

        monkeypatch.setattr(backend.link, "run_told", with_sweeps)
        assert backend.append(b"", rows, session) == 10_000
        monkeypatch.undo()
    assert asked == 10
    assert backend.history(b"", b"s") == (session, rows)
    assert list(backend.nodes(b"")) == rows
    assert client_of(store).zcard(backend.keys(b"").guards) == 0
    assert backend.forget(b"", b"s")
    assert backend.sweep(b"", 0.0) == (10_000, 0)
    assert backend.size(b"")[:5] == (0, 0, 0, 0, 0)
    assert backend.check() == []


def test_a_long_append_that_fails_leaves_nothing_to_see(store: Store) -> None:
    backend, rows = backend_of(store), rows_of(store, 2_500)
    session = SessionRow(b"s", rows[-1].digest, 1, b"c", b"body")
    stranger = rows[-1]._replace(digest=b"o" * 24, parent=b"x" * 24)
    with pytest.raises(MissingNodeError):
        backend.append(b"", [*rows, stranger], session)
    assert list(backend.sessions(b"")) == []
    assert backend.check() == []
    assert backend.sweep(b"", 0.0) == (2_000, 0)
    backend.append(b"", rows[:1], session._replace(tip=rows[0].digest))
    with pytest.raises(StaleError):
        backend.append(b"", rows, session)
    assert backend.size(b"").nodes == 1


def test_what_a_writer_left_that_died_is_swept_when_its_time_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend, rows = backend_of(store), rows_of(store, 1_500)
    run = backend.link.run_told

    def once(*arguments: Any) -> Any:
        monkeypatch.setattr(backend.link, "run_told", dies)
        monkeypatch.setattr(backend.link, "run", dies)
        return run(*arguments)

    def dies(*arguments: Any) -> Any:
        raise StoreError("it died here")

    monkeypatch.setattr(backend.link, "run_told", once)
    with pytest.raises(StoreError, match="died here"):
        backend.append(b"", rows, SessionRow(b"s", rows[-1].digest, 1, b"c", b"body"))
    monkeypatch.undo()
    assert backend.sweep(b"", 0.0) == (0, 0)
    assert backend.size(b"").nodes == 1_000
    client, guards = client_of(store), backend.keys(b"").guards
    for member in client.zrange(guards, 0, -1):
        client.zadd(guards, {member: 1})  # an hour ago, by the server's clock
    assert backend.sweep(b"", 0.0) == (1_000, 0)
    assert backend.check() == []


def test_a_history_is_that_of_one_moment(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was forgotten, swept and written anew between two slices of it."""
    backend, rows = backend_of(store), rows_of(store, 2_500)
    backend.append(b"", rows, SessionRow(b"s", rows[-1].digest, 1, b"c", b"body"))
    other = rows_of(store, 3, text="other")
    walk = backend._walk

    def with_change(*arguments: Any) -> Any:
        found = walk(*arguments)
        monkeypatch.undo()
        backend.forget(b"", b"s")
        backend.sweep(b"", 0.0)
        backend.append(b"", other, SessionRow(b"s", other[-1].digest, 1, b"c", b"body"))
        return found

    monkeypatch.setattr(backend, "_walk", with_change)
    found = backend.history(b"", b"s")
    assert found is not None
    assert found[1] == other
    client_of(store).hdel(backend.keys(b"").links, other[0].digest)
    found = backend.history(b"", b"s")
    assert found is not None
    assert found[1] == other[1:]


def test_a_body_of_many_megabytes_is_kept(store: Store) -> None:
    session = Session(CONTEXT, store=store, session_id="s1", tokens=EstimateCounter())
    session.append([Message("user", "x" * 3_000_000 + str(number)) for number in range(4)])
    session.save()
    assert store.messages("s1") == session.messages
    assert store.verify() == ()


# Damage, forgetting, sharing


def test_a_flipped_byte_is_found_and_costs_what_stands_there(store: Store) -> None:
    fill(store, "s1", "one", "two")
    fill(store, "s2", "other")
    keys, client = backend_of(store).keys(store.space), client_of(store)
    digest = client.hget(keys.sessions, "s1")[16:40]
    body = bytearray(client.hget(keys.bodies, digest))
    body[3] ^= 1
    client.hset(keys.bodies, digest, bytes(body))
    assert [(each.what, each.name) for each in store.verify()] == [("node", digest.hex())]
    with pytest.raises(CorruptStoreError, match=digest.hex()[:12]):
        store.messages("s1")
    assert [each.text for each in store.messages("s2")] == ["other"]
    with open_store("memory:") as rescued:
        assert rescued.import_(list(store.export(skip_damaged=True))).sessions == 1


def test_what_was_forgotten_is_in_no_file_of_the_server(tmp_path: Path) -> None:
    need_redis()
    safe = ("--appendonly", "yes", "--appendfsync", "always", "--save", "3600 1")
    with redis_server(tmp_path, *safe) as server, open_store(server.url) as store:
        fill(store, "s1", "shared", "the secret word " * 50)
        fill(store, "s2", "shared", "another one")
        store.keep_original("s1", "m", Message("user", "the secret original"))
        client_of(store).bgsave()
        assert store.vacuum()
        assert b"secret" in contents(tmp_path)
        assert store.forget("s1").vacuumed
        assert b"secret" not in contents(tmp_path)
        assert b"another one" in contents(tmp_path)
        assert [each.text for each in store.messages("s2")] == ["shared", "another one"]


def test_a_sealed_store_shows_the_server_nothing(tmp_path: Path) -> None:
    need_redis()
    pytest.importorskip("cryptography")
    with redis_server(tmp_path) as server, open_store(server.url, key=new_key(), tenant="acme") as store:
        session = fill(store, "s1", "the secret word", "another")
        store.put("secret key", b"secret value")
        store.keep_original("s1", "m", Message("user", "the secret original"))
        assert store.messages("s1") == session.messages
        assert store.verify() == ()
        for word in (b"secret", b"another", b"acme", b"gpt-5.5", b"kind."):
            assert word not in contents(tmp_path)


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_vacuum_that_takes_too_long_says_so(url: str) -> None:
    backend = RedisBackend(url, patience=-1.0)
    assert backend.vacuum() is False
    backend.patience = 30.0
    assert backend.vacuum() is True
    backend.close()


def test_a_closed_store_says_so(store: Store) -> None:
    assert_closed_store_says_so(store)


def test_threads_share_a_store(store: Store) -> None:
    assert_threads_share(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_makes_its_own_connections(store: Store, url: str) -> None:
    fill(store)
    assert_forked_processes_share(url)


def test_bodies_are_replaced_page_by_page(store: Store) -> None:
    backend = backend_of(store)
    fill(store, "s1", *"abcdef")
    store.put("v", b"1")
    store.take("l", "ann", 5)
    seen = 0
    for table in ("nodes", "sessions", "records"):
        after = b""
        while True:
            rows, after = backend.page(b"", table, after, 2)
            seen += len(rows)
            assert backend.replace(b"", [(row, row.body + b"!") for row in rows]) == len(rows)
            assert backend.replace(b"", [(row, b"too late") for row in rows]) == 0
            if not after:
                break
    assert seen == 6 + 1 + 3
    assert backend.check() == []
    found = backend.history(b"", b"s1")
    assert found is not None
    bodies = [row.body for row in found[1]] + [row.body for row in backend.records(b"")]
    assert found[0].body.endswith(b"!")
    assert [body[-1:] for body in bodies] == [b"!"] * 9


# Any order of steps


class RedisAgainstDictionaries(StoreAgainstDictionaries):
    server: RedisServer

    def opened(self) -> Store:
        prefix = blake2b(str(self.folder).encode(), digest_size=8).hexdigest()
        return open_store(f"{self.server.url}?prefix={prefix}:", clock=self.clock)


def test_any_order_of_steps_leaves_what_dictionaries_hold(server: RedisServer) -> None:
    RedisAgainstDictionaries.server = server
    bounds = settings(
        max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(RedisAgainstDictionaries, settings=bounds)  # asserts after every step


NODES = [NodeRow(bytes([number]) * 24, bytes([number // 2]) * 24, b"body", b"n") for number in range(1, 10)]
KEYS = st.sampled_from([b"", b"k", b"\x00\xff"])
OWNERS = st.sampled_from([b"", b"o", b"\xff"])
TIMES = st.integers(0, 5).map(float)
RECORDS = st.builds(
    Record,
    st.sampled_from(["value", "context", "original"]),
    KEYS,
    st.sampled_from([b"", b"body", b"\xff" * 9]),
    OWNERS,
    st.none() | TIMES,
    st.integers(0, 2**40),
    st.booleans(),
    st.none() | st.floats(allow_nan=False) | st.integers(0, 9),
)
SESSIONS = st.builds(
    SessionRow,
    KEYS,
    st.sampled_from([ROOT, *(row.digest for row in NODES)]),
    st.integers(1, 4),
    KEYS,
    st.binary(max_size=3),
)
STEPS = st.one_of(
    st.tuples(
        st.just("append"),
        st.lists(st.sampled_from(NODES), max_size=5),
        st.none() | SESSIONS,
        st.lists(RECORDS, max_size=2),
    ),
    st.tuples(st.just("put"), RECORDS),
    st.tuples(st.just("claim"), RECORDS, TIMES),
    st.tuples(st.just("drop"), st.sampled_from(["value", "context"]), KEYS, st.none() | OWNERS),
    st.tuples(st.just("forget"), st.sampled_from([b"k", b"\x00\xff"])),
    st.tuples(st.just("sweep"), TIMES),
)


def outcome(backend: Backend, step: tuple[Any, ...]) -> object:
    try:
        return getattr(backend, step[0])(b"", *step[1:])
    except StaleError as stale:
        return "stale", stale.found
    except MissingNodeError:
        return "missing"


def held(backend: Backend) -> list[object]:
    """All that a back end says of itself, in an order that does not count."""
    nodes, sessions, records = backend.nodes(b""), list(backend.sessions(b"")), list(backend.records(b""))
    owned = [sorted(backend.records(b"", "value", owner), key=repr) for owner in (b"", b"o", b"\xff")]
    histories = [backend.history(b"", row.key) for row in sessions]
    weights = [list(backend.weights(b"", kind)) for kind in ("value", "context", "original")]
    size = backend.size(b"")[:5]
    return [sorted(nodes), sessions, sorted(records, key=repr), owned, histories, weights, size]


# A value and a context may have one key, and what becomes of the one is nothing to the other.
_ONE_KEY: list[tuple[Any, ...]] = [
    ("put", Record("context", b"k", b"")),
    ("put", Record("value", b"k", b"")),
    ("drop", "value", b"k", None),
    ("sweep", 0.0),
]


@given(steps=st.lists(STEPS, max_size=25))
@example(steps=_ONE_KEY)
@settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
def test_every_step_does_what_it_does_in_memory(server: RedisServer, steps: list[tuple[Any, ...]]) -> None:
    redis, memory = RedisBackend(f"{server.url}?prefix=steps{next(_numbers)}:"), MemoryBackend()
    for step in steps:
        assert outcome(redis, step) == outcome(memory, step), step
        assert held(redis) == held(memory), step
    assert redis.check() == []
    redis.close()
