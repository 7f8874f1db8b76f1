"""A store in a real PostgreSQL server: the contract, what it survives, what its errors say, and who may use it at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.core.test_store_model import StoreAgainstDictionaries
from tests.postgres_server import Cutting, PostgresServer, as_whom, need_postgres, postgres
from tests.store_sharing import (
    CONTEXT,
    assert_closed_store_says_so,
    assert_threads_share,
    fill,
)

from llmbuffer import Message, Session
from llmbuffer.errors import ConflictError, CorruptStoreError, StoreError
from llmbuffer.store import Backend, Store, open_store
from llmbuffer.store.backend import ROOT, MissingNodeError, NodeRow, Record, Reseals, SessionRow
from llmbuffer.store.postgres import PostgresBackend
from llmbuffer.store.postgres.errors import UnsureError
from llmbuffer.testing import StoreContract
from llmbuffer.testing.store.privacy import tell

SETTINGS = "fsync = off\ndeadlock_timeout = 20ms"
_schemas = count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need_postgres()
    with postgres(settings=SETTINGS) as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A store that nobody has used."""
    return server.url(f"test_{next(_schemas)}")


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as store:
        yield store


@pytest.fixture
def admin(server: PostgresServer) -> Iterator[Any]:
    """A connection of the superuser."""
    with server.connect() as connection:
        yield connection


class TestPostgres(StoreContract):
    @pytest.fixture(autouse=True)
    def _server(self, server: PostgresServer) -> None:
        self.server = server

    def make(self, folder: Path) -> Backend:
        return PostgresBackend(self.server.url(self.schema(folder)))

    def schema(self, folder: Path) -> str:
        return f"of_{blake2b(str(folder).encode(), digest_size=8).hexdigest()}"

    again = make

    def at_rest(self, folder: Path) -> bytes:
        """The files of the tables and of their indexes; the log, too, belongs to all tests."""
        schema = self.schema(folder)
        query = """SELECT pg_relation_filepath(c.oid) FROM pg_class c LEFT JOIN pg_class t ON t.reltoastrelid = c.oid
            WHERE coalesce(t.relnamespace, c.relnamespace) = to_regnamespace(%s) AND c.relkind IN ('r', 'i', 't')"""
        with self.server.connect() as connection:
            connection.execute("CHECKPOINT")
            files = [self.server.data / path for (path,) in connection.execute(query, [schema]).fetchall()]
        assert len(files) >= 7
        return b"\0".join(file.read_bytes() for file in files)


def schema_of(store: Store) -> str:
    assert isinstance(store.backend, PostgresBackend)
    return f'"{store.backend.address.schema}"'


def asked(store: Store, query: str) -> Any:
    """A value that the server gives to a connection of the store."""
    assert isinstance(store.backend, PostgresBackend)
    found = store.backend._connections.repeated(lambda each: each.execute(query).fetchone())
    assert found is not None
    return found[0]


def no_pause(seconds: float) -> None:
    """Do not wait between attempts."""


def started(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


# Opening


def refused(where: str) -> str:
    """What the error says; nothing of it shows a password, whichever way it is looked at."""
    with pytest.raises(StoreError) as caught:
        open_store(where)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    password = where.partition("://")[2].partition(":")[2].partition("@")[0]
    assert not password or password not in told
    return str(caught.value)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ann:s3cr3t@db/x?llmbuffer_schema=a-b", "'a-b' is no name for a schema"),
        ("postgresql://db/x?llmbuffer_schema=", "'' is no name for a schema"),
        ("postgresql://db/x?llmbuffer_schema=pg_mine", "no pg_ in front"),
        (f"postgresql://db/x?llmbuffer_schema={'x' * 64}", "at most 63"),
        ("postgresql://db/x?llmbuffer_vacuum=often", "'often' is unknown: use full or off"),
        ("postgresql://ann:s3cr3t@db/x?colour=red", "no PostgreSQL URL"),
        ("postgresql://ann:s3cr3t%zz@db/x", "no PostgreSQL URL"),
        ("postgresql://ann:s3cr3t@[db/x", "no PostgreSQL URL"),
        ("postgresql:ann", "no PostgreSQL URL"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_in_words(url: str, words: str) -> None:
    pytest.importorskip("psycopg")
    assert words in refused(url)


def test_a_server_that_is_not_there_is_asked_a_few_times() -> None:
    pytest.importorskip("psycopg")
    pauses, password = list[float](), "s3cr3t"
    with pytest.raises(StoreError, match="check that the server runs") as caught:
        PostgresBackend(f"postgresql://ann:{password}@127.0.0.1:1/x", pause=pauses.append)
    assert password not in "".join(traceback.format_exception(caught.value))
    assert 3 < len(pauses) < 20
    assert sum(pauses) < 10


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert "pip install 'llmbuffer[postgres]>=1'" in refused("postgresql://db/x")


def test_who_cannot_log_in_is_told_why(server: PostgresServer) -> None:
    assert "check user and password" in refused(server.url(password="wr0ng-one"))
    assert "create it first" in refused(server.url(database="nowhere"))
    assert "check user and password" in refused(server.url(user="nobody_known"))


def test_the_other_scheme_opens_the_same(server: PostgresServer, store: Store, url: str) -> None:
    fill(store)
    with open_store(url.replace("postgresql://", "postgres://")) as other:
        assert other.messages("s1") == store.messages("s1")
        assert server.password not in repr(other.backend)
        assert f"llm@127.0.0.1:{server.port}/postgres" in repr(other.backend)


def role(admin: Any, server: PostgresServer, setting: str = "") -> str:
    """A new user without rights; returns its name. Its password is that of the superuser."""
    name = f"role_{next(_schemas)}"
    admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{server.password}'")
    if setting:
        admin.execute(f"ALTER ROLE {name} SET {setting}")
    return name


def test_who_may_not_create_a_schema_is_told_what_to_ask_for(server: PostgresServer, admin: Any) -> None:
    user = role(admin, server)
    words = refused(server.url("mine", user=user))
    assert "permission denied for database" in words
    assert "AUTHORIZATION" in words
    admin.execute(f"CREATE SCHEMA mine AUTHORIZATION {user}")
    with open_store(server.url("mine", user=user)) as store:
        fill(store)
        assert store.verify() == ()
        assert store.forget("s1").vacuumed
    another = role(admin, server)
    assert "permission denied for schema" in refused(server.url("mine", user=another))


def test_tables_of_another_program_are_left_alone(server: PostgresServer, admin: Any) -> None:
    admin.execute("CREATE SCHEMA taken")
    admin.execute("CREATE TABLE taken.sessions (x int)")
    assert "tables of another program" in refused(server.url("taken"))
    assert admin.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'taken'").fetchone() == (1,)


def test_a_newer_schema_is_left_alone(store: Store, url: str, admin: Any) -> None:
    fill(store)
    admin.execute(f"UPDATE {schema_of(store)}.store_version SET version = 2")
    assert "has version 2, and this llmbuffer knows version 1: update" in refused(url)
    admin.execute(f"UPDATE {schema_of(store)}.store_version SET version = 1")
    with open_store(url) as again:
        assert len(again.messages("s1")) == 2


def test_processes_open_a_new_store_at_once(url: str) -> None:
    program = "import sys; from llmbuffer.store import open_store; s = open_store(sys.argv[1]); print(s.verify()); s.close()"
    command = [sys.executable, "-W", "error", "-c", program, url]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert [process.communicate()[0].strip() for process in running] == ["()"] * 6


def test_what_is_acknowledged_is_on_the_disk_whatever_the_default(server: PostgresServer, admin: Any) -> None:
    for setting, found in (("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")):
        user = role(admin, server, f"synchronous_commit = {setting}")
        admin.execute(f"CREATE SCHEMA of_{user} AUTHORIZATION {user}")
        with open_store(server.url(f"of_{user}", user=user)) as store:
            assert asked(store, "SELECT current_setting('synchronous_commit')") == found


# What a server says no to


def test_a_read_only_store_can_be_read(server: PostgresServer, store: Store, admin: Any) -> None:
    session = fill(store)
    user, schema = role(admin, server, "default_transaction_read_only = on"), schema_of(store)
    admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {user}")
    admin.execute(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO {user}")
    with open_store(server.url(schema.strip('"'), user=user)) as reading:
        loaded = Session.load(reading, "s1")
        assert loaded.messages == session.messages
        loaded.append(Message("user", "c"))
        with pytest.raises(StoreError, match="the server is read-only"):
            loaded.save()
        assert reading.verify() == ()
    assert "25006" in refused(server.url("not_there_yet", user=user))
    assert len(store.messages("s1")) == 2


def limit_files(pid: int, size: str) -> None:
    """Let a process of the server write files of so many bytes; its own user may do that, and root need not."""
    command = [shutil.which("prlimit") or "prlimit", f"--pid={pid}", f"--fsize={size}:"]
    subprocess.run(command, check=True, cwd="/", **as_whom())


@pytest.mark.skipif(shutil.which("prlimit") is None, reason="there is no prlimit here")
def test_a_full_disk_loses_nothing_that_was_acknowledged() -> None:
    """The system refuses to make a file longer in the middle of a page, as it does when the disk is full."""
    need_postgres()
    with ExitStack() as stack:
        server = stack.enter_context(postgres(settings=SETTINGS, initdb=["--wal-segsize=1"]))
        store = stack.enter_context(open_store(server.url()))
        session = fill(store)
        pid = asked(store, "SELECT pg_backend_pid()")
        limit_files(pid, str(2**21 + 100))

        def fill_the_disk() -> None:
            for _ in range(100):
                session.append(Message("user", os.urandom(50_000).hex()))
                session.save()

        with pytest.raises(StoreError, match=r"SQLSTATE 53100.*nothing was written; make room"):
            fill_the_disk()
        assert 20 < len(store.messages("s1")) == len(session.messages) - 1
        assert store.verify() == ()
        limit_files(pid, "unlimited")
        session.save()
        assert Session.load(store, "s1").messages == session.messages


def test_a_statement_that_takes_too_long_says_so(server: PostgresServer, store: Store, admin: Any) -> None:
    session, schema = fill(store), schema_of(store)
    user = role(admin, server, "statement_timeout = '50ms'")
    admin.execute(f"GRANT ALL ON SCHEMA {schema} TO {user}")
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user}")
    with open_store(server.url(schema.strip('"'), user=user)) as hasty:
        loaded = Session.load(hasty, "s1")
        loaded.append(Message("user", "c"))
        with admin.transaction():
            admin.execute(f"SELECT FROM {schema}.sessions FOR UPDATE")
            with pytest.raises(StoreError, match=r"57014.*statement_timeout"):
                loaded.save()
    assert store.messages("s1") == session.messages


def raising(admin: Any, store: Store, state: str, times: int) -> None:
    """Let so many writes of sessions fail; a sequence counts them, since it is not rolled back."""
    schema = schema_of(store)
    admin.execute(f"CREATE SEQUENCE {schema}.failures")
    admin.execute(f"""CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF nextval('{schema}.failures') <= {times} THEN RAISE EXCEPTION 'no' USING ERRCODE = '{state}'; END IF;
        RETURN NEW; END $$""")
    admin.execute(f"""CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON {schema}.sessions
        FOR EACH ROW EXECUTE FUNCTION {schema}.fail()""")


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_deadlocks_and_serialization_failures_are_tried_again(url: str, admin: Any, state: str) -> None:
    pauses: list[float] = []
    with Store(PostgresBackend(url, pause=pauses.append)) as store:
        raising(admin, store, state, 3)
        session = fill(store)
        assert store.messages("s1") == session.messages
        assert len(pauses) == 3


def test_it_is_not_tried_for_ever(url: str, admin: Any) -> None:
    pauses: list[float] = []
    with Store(PostgresBackend(url, pause=pauses.append)) as store:
        raising(admin, store, "40001", 1_000)
        with pytest.raises(StoreError, match="others were in the way, and nothing was written"):
            fill(store)
        assert 3 < len(pauses) < 20
        assert sum(pauses) < 10
        assert store.stats()[:4] == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("53100", StoreError, "make room"),
        ("53200", StoreError, "no memory left"),
        ("58030", StoreError, "check the server's disk"),
        ("XX001", CorruptStoreError, "restore the database"),
        ("XX002", CorruptStoreError, "REINDEX"),
        ("P0001", StoreError, "SQLSTATE P0001"),
    ],
)
def test_an_error_of_the_server_is_told_with_what_to_do(
    store: Store, admin: Any, state: str, kind: type[StoreError], words: str
) -> None:
    raising(admin, store, state, 1)
    with pytest.raises(kind, match=words) as caught:
        fill(store, "s1", "an unmistakable prompt")
    assert "unmistakable" not in f"{caught.value!r} {caught.value.__context__!r}"
    assert store.stats()[:4] == (0, 0, 0, 0)
    fill(store)
    assert store.verify() == ()


def test_a_value_that_does_not_fit_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="does not fit its column"):
        store.backend.put(b"", Record("value", b"k", b"", weight=2**63))
    with pytest.raises(StoreError, match="larger than the server takes"):
        fill(store, os.urandom(5_000).hex())
    assert store.stats()[:4] == (0, 0, 0, 0)


# Lost connections


def test_a_connection_that_was_lost_is_opened_again(store: Store, admin: Any) -> None:
    session = fill(store)
    for act in (session.save, store.stats, lambda: store.messages("s1"), lambda: list(store.export())):
        ended = admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'llmbuffer'"
        ).fetchall()
        assert ended
        act()
    assert store.verify() == ()


@pytest.fixture
def cutting(server: PostgresServer) -> Iterator[Callable[..., Cutting]]:
    with ExitStack() as stack:

        def make(**options: Any) -> Cutting:
            proxy = Cutting(server.port, **options)
            stack.callback(proxy.close)
            return proxy

        yield make


def through(proxy: Cutting, url: str, server: PostgresServer) -> str:
    return url.replace(f":{server.port}/", f":{proxy.port}/")


@pytest.mark.parametrize("behind", [True, False], ids=["committed", "not committed"])
def test_a_save_whose_answer_was_lost_is_in_once(
    server: PostgresServer, store: Store, url: str, cutting: Callable[..., Cutting], behind: bool
) -> None:
    proxy = cutting(behind=behind)
    with Store(PostgresBackend(through(proxy, url, server), pause=no_pause)) as cut:
        session = fill(cut)
        assert proxy.cuts == 0
        proxy.cuts = 2
        session.append(Message("user", "c"))
        session.save()
        session.append(Message("user", "d"))
        session.save()
        assert proxy.cuts == 0
    assert [each.text for each in store.messages("s1")] == ["a", "b", "c", "d"]
    found = store.backend.session(b"", b"s1")
    assert found is not None
    assert found.revision == 3
    assert store.verify() == ()


@pytest.mark.parametrize("behind", [True, False], ids=["committed", "not committed"])
def test_everything_else_whose_answer_was_lost_is_told_truly(
    server: PostgresServer, url: str, cutting: Callable[..., Cutting], behind: bool
) -> None:
    proxy = cutting(cuts=0, behind=behind)
    with Store(PostgresBackend(through(proxy, url, server), pause=no_pause)) as store:

        def cut(act: Callable[[], Any]) -> Any:
            proxy.cuts = 1
            result = act()
            assert proxy.cuts == 0
            return result

        cut(lambda: store.put("k", b"v"))
        assert store.get("k") == b"v"
        assert cut(lambda: store.take("l", "ann", 9)) is True
        assert cut(lambda: store.take("l", "bob", 9)) is False
        assert cut(lambda: store.release("l", "ann")) is True
        assert cut(lambda: store.drop("k")) is True
        assert cut(lambda: store.drop("k")) is False
        row = SessionRow(b"s", ROOT, 1, b"c", b"body")
        nodes = [NodeRow(b"n" * 24, ROOT, b"", b""), NodeRow(b"m" * 24, b"n" * 24, b"", b"")]
        assert cut(lambda: store.backend.append(b"", nodes, row)) == 2
        assert cut(lambda: store.backend.forget(b"", b"s")) is True
        assert cut(store.gc) == (2, 0)
        assert cut(store.gc) == (0, 0)


def test_a_lost_answer_is_no_conflict_though_another_writer_went_on(
    server: PostgresServer, store: Store, url: str, cutting: Callable[..., Cutting]
) -> None:
    """The other one saw our turn, since it was in: neither is lost, and we are told at the next save."""
    proxy = cutting(cuts=0)

    def meanwhile(seconds: float) -> None:
        if len(store.messages("s1")) == 3:
            other = Session.load(store, "s1")
            other.append(Message("user", "another's"))
            other.save()

    with Store(PostgresBackend(through(proxy, url, server), pause=meanwhile)) as cut:
        session = fill(cut)
        proxy.cuts = 1
        session.append(Message("user", "c"))
        session.save()
        assert [each.text for each in store.messages("s1")] == ["a", "b", "c", "another's"]
        session.append(Message("user", "d"))
        with pytest.raises(ConflictError):
            session.save()


def test_an_equal_save_of_another_writer_is_still_a_conflict(
    server: PostgresServer, store: Store, url: str, cutting: Callable[..., Cutting]
) -> None:
    """Ours did not come through; the other one says the same words, and has said them itself."""
    proxy = cutting(cuts=0, behind=False)

    def meanwhile(seconds: float) -> None:
        if len(store.messages("s1")) == 2:
            other = Session.load(store, "s1")
            other.append(Message("user", "c"))
            other.save()

    with Store(PostgresBackend(through(proxy, url, server), pause=meanwhile)) as cut:
        session = fill(cut)
        proxy.cuts = 1
        session.append(Message("user", "c"))
        with pytest.raises(ConflictError):
            session.save()
    assert len(store.messages("s1")) == 3


@pytest.mark.parametrize("behind", [True, False], ids=["committed", "not committed"])
def test_a_save_that_was_left_in_doubt_can_be_made_again(
    server: PostgresServer, store: Store, url: str, cutting: Callable[..., Cutting], behind: bool
) -> None:
    proxy = cutting(cuts=0, behind=behind)
    with Store(PostgresBackend(through(proxy, url, server), pause=no_pause)) as cut:
        session = fill(cut)
        session.append(Message("user", "c"))
        proxy.cuts = 1_000
        with pytest.raises(UnsureError, match="in whole or not at all"):
            session.save()
        proxy.cuts = 0
        session.save()
        session.append(Message("user", "d"))
        session.save()
    assert [each.text for each in store.messages("s1")] == ["a", "b", "c", "d"]
    assert store.verify() == ()


def test_a_server_that_goes_in_the_middle_is_told_and_waited_for(server: PostgresServer, url: str) -> None:
    def back(seconds: float) -> None:
        if seconds == 0.5:
            server.start()

    with Store(PostgresBackend(url, pause=no_pause)) as one, Store(PostgresBackend(url, pause=back)) as two:
        session, other = fill(one), fill(two, "s2")
        stream = two.backend.sessions(b"")
        assert next(stream)
        server.stop()
        session.append(Message("user", "c"))
        with pytest.raises(StoreError, match="check that the server runs"):
            session.save()
        assert "check that the server runs" in one.backend.check()[0]
        other.append(Message("user", "d"))
        other.save()
        session.save()
        assert one.messages("s1") == session.messages
        assert two.messages("s2") == other.messages
        assert one.verify() == ()
        assert next(stream).key == b"s2"  # it came with the first one
        with pytest.raises(StoreError, match="check that the server runs"):
            next(stream)


# Many at once


def until(admin: Any, query: str) -> None:
    """Ask until it is true; each question takes the server's time."""
    for _ in range(20_000):
        if admin.execute(query).fetchone() == (True,):
            return
    raise AssertionError(query)


WAITING = """SELECT count(*) = {count} FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND a.application_name = 'llmbuffer'"""


def test_a_sweep_waits_for_an_append_that_found_its_parent(
    server: PostgresServer, store: Store, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fork of a forgotten session: its beginning has no session any more when it is appended to."""
    session = fill(store)
    fork = session.fork()
    fork.append(Message("user", "c"))
    store.backend.forget(b"", b"s1")
    record = Record("context", b"held", b"")
    with server.connect() as holding, holding.transaction():
        values = ("''", "'context'", "'held'", "''", "''", "NULL", "0", "false", "NULL")
        holding.execute(
            f"INSERT INTO {schema_of(store)}.records (space, kind, key, body, owner, expires, weight, pinned, price) "
            f"VALUES ({', '.join(values)})"
        )
        append = store.backend.append

        def held(space: bytes, rows: Any, session: Any, records: Any = ()) -> int:
            """It waits for the record when all else is done."""
            return append(space, rows, session, [*records, record])

        monkeypatch.setattr(store.backend, "append", held)
        appending = started(fork.save)
        until(admin, WAITING.format(count=1))
        sweeping = started(store.gc)
        until(admin, WAITING.format(count=2))
        assert admin.execute(f"SELECT count(*) FROM {schema_of(store)}.nodes").fetchone() == (2,)
    appending.join()
    sweeping.join()
    assert [each.text for each in store.messages(fork.id)] == ["a", "b", "c"]
    assert store.verify() == ()


@pytest.mark.parametrize("saves", [False, True])
def test_an_append_waits_for_a_sweep_and_sees_what_it_removed(
    server: PostgresServer, store: Store, admin: Any, saves: bool
) -> None:
    """A save adds again what is missing; it is not tried beside the bare append, which may come after it."""
    session = fill(store)
    fork = session.fork()
    fork.append(Message("user", "c"))
    tip = store.backend.session(b"", b"s1")
    assert tip is not None
    store.backend.forget(b"", b"s1")
    store.backend.put(b"", Record("value", b"old", b"", expires=0.0))
    missing: list[BaseException] = []

    def append() -> None:
        try:
            store.backend.append(b"", [NodeRow(b"n" * 24, tip.tip, b"", b"")], None)
        except MissingNodeError as error:
            missing.append(error)

    with server.connect() as holding, holding.transaction():
        holding.execute(f"SELECT FROM {schema_of(store)}.records WHERE kind = 'value' FOR UPDATE")
        sweeping = started(store.gc)  # it has removed the nodes, and waits for the value
        until(admin, WAITING.format(count=1))
        writing = started(fork.save if saves else append)
        until(admin, WAITING.format(count=2))
    for thread in (sweeping, writing):
        thread.join()
    assert len(missing) == (not saves)
    fork.save()
    assert [each.text for each in store.messages(fork.id)] == ["a", "b", "c"]
    assert store.verify() == ()


def read_and_leave(connection: Any, query: str) -> None:
    connection.execute(query)
    connection.execute("ROLLBACK")


def test_a_real_deadlock_is_resolved(server: PostgresServer, store: Store, admin: Any) -> None:
    """We hold a record and wait for the session, another client holds the session and waits for the record."""
    fill(store)
    schema, done = schema_of(store), list[bool]()
    for key in (b"1", b"2"):
        store.backend.put(b"", Record("original", key, b"", owner=b"s1"))
    with server.connect() as first, server.connect() as second:
        first.execute("SET deadlock_timeout = '1min'")  # it began to wait before us, so we are to find it
        first.execute("BEGIN")
        first.execute(f"SELECT FROM {schema}.sessions FOR UPDATE")
        with second.transaction():
            second.execute(f"SELECT FROM {schema}.records WHERE key = '2' FOR UPDATE")
            forgetting = started(lambda: done.append(store.backend.forget(b"", b"s1")))
            until(admin, WAITING.format(count=1))
            query = f"SELECT FROM {schema}.records WHERE key = '1' FOR UPDATE"
            waiting = started(partial(read_and_leave, first, query))
            until(admin, "SELECT count(*) = 2 FROM pg_locks WHERE NOT granted")
        forgetting.join()
        waiting.join()
    assert done == [True]
    assert "deadlock detected" in server.log()
    assert store.sessions() == ()


def test_one_of_many_takes_a_lease(store: Store) -> None:
    taken: list[tuple[str, bool]] = []

    def take(owner: str) -> None:
        taken.extend((name, store.take(name, owner, 9)) for name in "abcde")

    threads = [started(partial(take, str(number))) for number in range(8)]
    for thread in threads:
        thread.join()
    assert sorted(name for name, mine in taken if mine) == list("abcde")
    assert len(taken) == 40


def test_a_closed_store_says_so(store: Store) -> None:
    assert_closed_store_says_so(store)


def test_threads_share_a_store(store: Store) -> None:
    assert_threads_share(store)
    assert isinstance(store.backend, PostgresBackend)
    assert len(store.backend._connections._idle) <= 4


def test_a_history_is_that_of_one_moment(store: Store, url: str) -> None:
    session = fill(store)

    def write() -> None:
        for turn in range(60):
            session.append(Message("user", str(turn)))
            session.save()

    writing, lengths = started(write), []
    with open_store(url) as reading:
        while writing.is_alive():
            lengths.append(len(Session.load(reading, "s1").messages))
    writing.join()
    assert lengths == sorted(lengths)
    assert len(store.messages("s1")) == 62


PROGRAM = """
import os, sys
from llmbuffer import Message, Session
from llmbuffer.store import open_store
store = open_store(sys.argv[1])
session = Session.load(store, "s1")
stream = store.backend.sessions(b"")
next(stream)
child = os.fork()
if child == 0:
    del stream
    fork = session.fork()
    fork.append(Message("user", "from the child"))
    fork.save()
    store.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
assert status == 0, status
assert len(list(stream)) == 1
session.append(Message("user", "from the parent"))
session.save()
assert store.verify() == ()
print(sorted(store.messages(record.id)[-1].text for record in store.sessions()))
store.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_opens_its_own(store: Store, url: str) -> None:
    fill(store)
    fill(store, "s2")
    command = [sys.executable, "-W", "error", "-c", PROGRAM, url]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "['b', 'from the child', 'from the parent']", run.stderr
    assert "Warning" not in run.stderr


# Rows, a few at a time


def test_a_long_history_is_saved_in_parts(store: Store) -> None:
    """Of many rows, and of large ones; all of it or nothing."""
    session = fill(store, "s1", *map(str, range(2_500)), *(os.urandom(500_000).hex() for _ in range(5)))
    assert store.messages("s1") == session.messages
    assert store.stats().nodes == 2_505
    assert store.verify() == ()


def test_streams_are_of_one_moment_and_may_be_left(store: Store) -> None:
    for number in range(3):
        fill(store, f"s{number}", *(f"{number}-{turn}" for turn in range(300)))
    rows = store.backend.nodes(b"")
    first = next(rows)
    fill(store, "later")
    store.put("v", b"1")
    assert len([first, *rows]) == 900
    left = store.backend.records(b"")
    assert next(left).kind == "context"
    del left
    assert isinstance(store.backend, PostgresBackend)
    idle = store.backend._connections._idle
    assert [each.info.transaction_status for each in idle] == [0] * len(idle)
    assert store.context(CONTEXT.fingerprint) == CONTEXT


def test_a_parent_that_is_missing_is_told(store: Store, admin: Any) -> None:
    fill(store, "s1", "a", "b", "c")
    admin.execute(f"DELETE FROM {schema_of(store)}.nodes WHERE id = 2")
    assert [row.parent for row in store.backend.nodes(b"")] == [ROOT, b""]
    with pytest.raises(CorruptStoreError, match="3 messages, of which 1"):
        store.messages("s1")
    assert next((each.what, "missing" in each.problem) for each in store.verify()) == ("node", True)
    admin.execute(f"DELETE FROM {schema_of(store)}.nodes")
    assert [row.tip for row in store.backend.sessions(b"")] == [b""]


def test_bodies_can_be_changed_a_page_at_a_time(store: Store) -> None:
    backend = store.backend
    assert isinstance(backend, Reseals)
    for number in range(7):
        fill(store, f"s{number}", "shared", f"own {number}")
    store.put("v", b"1")
    for table, there in (("nodes", 8), ("sessions", 7), ("records", 2)):
        found, after = [], b""
        while True:
            page, after = backend.page(b"", table, after, 3)  # type: ignore[arg-type]
            found += page
            if not after:
                break
        assert len(set(found)) == there
        wanted = [(row, b"new" + row.body) for row in found]
        assert backend.replace(b"", [*wanted[1:], (wanted[0][0]._replace(body=b"stale"), b"x")]) == there - 1
        left = backend.page(b"", table, b"", 100)[0]  # type: ignore[arg-type]
        assert sorted(row.body for row in left) == sorted(
            [wanted[0][0].body, *(body for _, body in wanted[1:])]
        )


# Any order of steps


class PostgresAgainstDictionaries(StoreAgainstDictionaries):
    server: PostgresServer

    def opened(self) -> Store:
        schema = f"of_{blake2b(str(self.folder).encode(), digest_size=8).hexdigest()}"
        return open_store(self.server.url(schema), clock=self.clock)


def test_any_order_of_steps_leaves_what_dictionaries_hold(server: PostgresServer) -> None:
    PostgresAgainstDictionaries.server = server
    bounds = settings(
        max_examples=6, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
    )
    run_state_machine_as_test(PostgresAgainstDictionaries, settings=bounds)  # asserts after every step


# Vacuum, and damage


def in_the_files(server: PostgresServer, admin: Any, secret: bytes) -> bool:
    admin.execute("CHECKPOINT")
    files = (path for path in (server.data / "base").rglob("*") if path.is_file())
    return any(secret in path.read_bytes() for path in files)


def test_what_was_forgotten_is_in_no_table_file(server: PostgresServer, store: Store, admin: Any) -> None:
    fill(store, "s1", "shared", "the hidden word " * 50, os.urandom(3_000).hex() + "the long hidden word")
    fill(store, "s2", "shared", "another unmistakable one")
    store.keep_original("s1", "m", Message("user", "the hidden original"))
    assert in_the_files(server, admin, b"hidden word")
    assert store.forget("s1").vacuumed
    assert not in_the_files(server, admin, b"hidden")
    assert in_the_files(server, admin, b"another unmistakable one")


def test_neither_a_dump_nor_the_log_of_a_sealed_store_tells_anything() -> None:
    """Of what was told to it; of a store without a key both do."""
    need_postgres()
    pytest.importorskip("cryptography")
    with postgres(settings=SETTINGS, initdb=["--wal-segsize=1"]) as server, server.connect() as admin:
        now = "SELECT pg_walfile_name(pg_current_wal_lsn())"
        for key, pieces in ((os.urandom(32), range(1)), (None, range(200, 10_000))):
            admin.execute("SELECT pg_switch_wal()")
            [first] = admin.execute(now).fetchone()
            with open_store(server.url(), key=key) as store:
                told = tell(store)
                [last] = admin.execute(now).fetchone()
                files = [path for path in (server.data / "pg_wal").iterdir() if first <= path.name <= last]
                log = b"".join(path.read_bytes() for path in files)
                for stored in (server.dump(), log):
                    assert len(told.found_in(stored)) in pieces, told.found_in(stored)
            admin.execute("DROP SCHEMA llmbuffer CASCADE")


def test_a_reader_keeps_a_vacuum_from_finishing(store: Store, admin: Any, server: PostgresServer) -> None:
    fill(store)
    fill(store, "s2", "c")
    with server.connect() as reading, reading.transaction():
        reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reading.execute("SELECT 1")
        assert not store.forget("s1").vacuumed
        assert not store.vacuum()
    assert store.vacuum()


def test_a_table_that_is_held_keeps_a_vacuum_from_finishing(
    store: Store, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbuffer.store.postgres import upkeep as postgres_upkeep

    monkeypatch.setattr(postgres_upkeep, "_VACUUM_TIME", "10ms")
    fill(store)
    with server.connect() as holding, holding.transaction():
        holding.execute(f"LOCK TABLE {schema_of(store)}.nodes IN ROW SHARE MODE")
        assert not store.vacuum()
    assert store.vacuum()
    assert asked(store, "SELECT current_setting('lock_timeout')") == "30s"


def test_a_vacuum_can_be_left_to_the_keeper_of_the_database(store: Store, url: str) -> None:
    fill(store)
    with open_store(f"{url}&llmbuffer_vacuum=off") as other:
        gone = other.forget("s1")
        assert (gone.nodes, gone.records, gone.vacuumed) == (2, 1, False)
    assert store.vacuum()


def test_who_does_not_own_the_tables_cannot_vacuum(server: PostgresServer, store: Store, admin: Any) -> None:
    fill(store)
    user, schema = role(admin, server), schema_of(store)
    admin.execute(f"GRANT ALL ON SCHEMA {schema} TO {user}")
    admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user}")
    admin.execute(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {user}")
    with open_store(server.url(schema.strip('"'), user=user)) as guest:
        fill(guest, "s2")
        gone = guest.forget("s2")
        assert (gone.nodes, gone.vacuumed) == (0, False)
        assert guest.verify() == ()


def test_the_storage_is_looked_at(store: Store, admin: Any) -> None:
    fill(store)
    admin.execute("CREATE EXTENSION IF NOT EXISTS amcheck")
    assert store.verify() == ()
    schema = schema_of(store)
    admin.execute(f"ALTER TABLE {schema}.records SET UNLOGGED")
    admin.execute(
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [f"{schema}.nodes_pkey"]
    )
    found = " | ".join(finding.problem for finding in store.verify())
    assert "index nodes_pkey: it is not valid" in found
    assert "records is not logged" in found
    admin.execute(f"DROP TABLE {schema}.records")
    assert "records is gone" in str(store.verify())
    with pytest.raises(CorruptStoreError, match="a table of the store is gone"):
        store.put("v", b"1")


def is_readable(store: Store, number: int) -> bool:
    """Whether it loads, and then says what it said."""
    try:
        assert store.messages(f"s{number}")[0].text.startswith(f"unmistakable {number} ")
    except CorruptStoreError:
        return False
    return True


def test_a_corrupt_page_costs_what_stands_in_it() -> None:
    need_postgres()
    with postgres(settings=SETTINGS, initdb=["--data-checksums"]) as server, server.connect() as admin:
        with open_store(server.url()) as store:
            for number in range(30):
                fill(store, f"s{number}", f"unmistakable {number} " + "x" * 1_500)
            [file] = admin.execute("SELECT pg_relation_filepath('llmbuffer.nodes')").fetchone()
        server.stop()
        path = server.data / file
        whole = bytearray(path.read_bytes())
        whole[whole.index(b"unmistakable 15 ")] ^= 1
        path.write_bytes(whole)
        server.start()
        with open_store(server.url()) as damaged:
            assert any("invalid page" in finding.problem for finding in damaged.verify())
            with pytest.raises(CorruptStoreError, match="restore the database"):
                list(damaged.export())
            lost = sum(not is_readable(damaged, number) for number in range(30))
            assert 1 <= lost <= 8
            with open_store("memory:") as rescued:
                assert rescued.import_(list(damaged.export(skip_damaged=True))).sessions == 30 - lost


def test_a_table_that_was_cut_off_costs_what_stood_there() -> None:
    need_postgres()
    with postgres(settings=SETTINGS) as server, server.connect() as admin:
        with open_store(server.url()) as store:
            for number in range(30):
                fill(store, f"s{number}", f"unmistakable {number} " + "x" * 1_500)
            [file] = admin.execute("SELECT pg_relation_filepath('llmbuffer.nodes')").fetchone()
        server.stop()
        path = server.data / file
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2 // 8_192 * 8_192])
        server.start()
        with open_store(server.url()) as damaged:
            assert damaged.verify()
            lost = sum(not is_readable(damaged, number) for number in range(30))
            assert 1 <= lost <= 29
            with pytest.raises(CorruptStoreError):
                list(damaged.export())
            with open_store("memory:") as rescued:
                assert rescued.import_(list(damaged.export(skip_damaged=True))).sessions == 30 - lost
