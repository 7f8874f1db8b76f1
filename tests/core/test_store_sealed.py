"""Sealed stores: keys that are refused, bytes that were changed, keys that rotate, exports; nothing opens that should not."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.postgres_server import PostgresServer, need_postgres, postgres
from tests.servers import need_redis, redis_server

from llmbuffer import Message, Session
from llmbuffer.errors import CorruptStoreError, SealError, StoreError
from llmbuffer.store import Keyring, Store, new_key, open_store
from llmbuffer.store import ciphers as ciphers_module
from llmbuffer.store.backend import Record, Row, Table
from llmbuffer.store.ciphers import Cipher, padded, unpadded
from llmbuffer.store.envelope import Plain
from llmbuffer.store.memory import MemoryBackend
from llmbuffer.store.records import record_place
from llmbuffer.store.safe import HOME, Safe
from llmbuffer.store.sealed import key_number
from llmbuffer.store.sqlite import open_sqlite
from llmbuffer.store.tenancy import envelope_for
from llmbuffer.testing import FakeClock
from llmbuffer.testing.store.examples import saved
from llmbuffer.testing.store.privacy import tell
from llmbuffer.testing.store.sessions import KeepsSessions, SharesRows
from llmbuffer.testing.store.upkeep import Forgets
from llmbuffer.testing.store.values import KeepsValues, Leases

OLD, NEW = (new_key() for _ in range(2))
BOTH = Keyring({"old": OLD, "new": NEW}, current="new")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_000.0)


@pytest.fixture
def backend() -> Iterator[MemoryBackend]:
    backend = MemoryBackend()
    yield backend
    backend.close()


def opened(backend: Any, key: Any = OLD, tenant: str | None = None, clock: Any = None) -> Store:
    clock = clock or FakeClock(1_000.0)
    return Store(backend, envelope=envelope_for(backend, key, tenant, clock), clock=clock)


def bodies(store: Store) -> list[Row]:
    """All rows of a store's space."""
    tables: tuple[Table, ...] = ("nodes", "sessions", "records")
    backend = store.backend
    assert isinstance(backend, MemoryBackend)
    return [row for table in tables for row in backend.page(store.space, table, b"", 10_000)[0]]


# Keys


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (b"", "has 0 bytes"),
        (bytes(range(31)), "has 31 bytes"),
        (bytes(range(64)), "has 64 bytes"),
        (bytes(32), "32 zero bytes"),
        ("correct horse battery staple", "a passphrase is no key"),
        ("ab" * 16, "neither 64 hexadecimal digits"),
        (17, "is a int"),
        (Path("key"), "is a PosixPath"),
        (lambda: "short", "neither 64"),
    ],
)
def test_a_weak_key_is_refused_and_not_repeated(key: Any, words: str) -> None:
    with pytest.raises(SealError, match=words) as caught:
        open_store("memory:", key=key)
    assert not isinstance(key, str) or key not in str(caught.value)


@pytest.mark.parametrize(
    "key", [b"0123456789abcdef" * 2, b"a passphrase that has 32 letters", bytes([7, 200]) * 16]
)
def test_a_key_that_can_be_guessed_is_warned_of(key: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with open_store("memory:", key=key) as store:
        store.put("k", b"v")
        assert store.get("k") == b"v"
    [line] = [record.getMessage() for record in caplog.records if record.name == "llmbuffer.store"]
    assert "can be guessed" in line
    assert key.decode("latin-1") not in line


def test_a_random_key_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    open_store("memory:", key=bytes.fromhex(OLD)).close()
    assert caplog.records == []


def test_a_key_may_be_written_in_many_ways(tmp_path: Path) -> None:
    raw, url = bytes.fromhex(OLD), f"sqlite:///{tmp_path}/a.db"
    texts = [OLD, OLD.upper(), base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()]
    ways: list[Any] = [raw, bytearray(raw), *texts, BOTH, lambda: raw, lambda: BOTH]
    with open_store(url, key=raw) as store:
        store.put("k", b"v")
    for way in ways:
        with open_store(url, key=way) as store:
            assert store.get("k") == b"v"


def test_a_passphrase_becomes_a_key_with_a_salt() -> None:
    for passphrase, salt, words in (
        ("long enough for it", b"short", "5 bytes"),
        ("short", bytes(16), "5 char"),
    ):
        with pytest.raises(SealError, match=words):
            Keyring.from_passphrase(passphrase, salt=salt)
    made = Keyring.from_passphrase("correct horse battery staple", salt=bytes(16))
    assert made.fingerprints != BOTH.fingerprints
    assert len(made.current_key) == 32


def test_a_keyring_shows_no_key() -> None:
    assert repr(BOTH) == "Keyring(['new', 'old'], current='new')"
    with pytest.raises(SealError, match=r"'newest' is not among \['old'\]"):
        Keyring({"old": OLD}, current="newest")


def test_a_plain_store_needs_no_cryptography_and_a_sealed_one_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from llmbuffer.store import open_store, new_key\n"
        "open_store('memory:').put('k', b'v')\n"
        "try: open_store('memory:', key=new_key())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "SealError sealing needs cryptography: pip install 'llmbuffer[crypto]>=1'\n"


# The cipher


@given(st.binary(max_size=5_000))
def test_padding_is_taken_away_again_and_is_short(body: bytes) -> None:
    stored = padded(body)
    assert unpadded(stored) == body
    assert len(body) < len(stored) <= max(32, (len(body) + 1) * 1.12 + 1)


@given(st.binary(max_size=200), st.binary(max_size=20), st.binary(max_size=20))
def test_a_sealed_value_opens_in_its_place_only(body: bytes, place: bytes, other: bytes) -> None:
    cipher = Cipher(bytes(32))
    sealed = cipher.seal(body, place)
    assert cipher.open(sealed, place) == body
    if other != place:
        with pytest.raises(ValueError, match="changed"):
            cipher.open(sealed, other)


def test_equal_values_are_sealed_to_other_bytes_and_keys_are_short_lived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ciphers_module, "_MOST_UNDER_ONE_KEY", 3)
    monkeypatch.setattr(ciphers_module, "_REMEMBERED", 2)
    cipher = Cipher(bytes(32))
    sealed = [cipher.seal(b"same", b"") for _ in range(12)]
    assert len(set(sealed)) == 12
    assert len({each[:12] for each in sealed}) == 4
    assert [cipher.open(each, b"") for each in sealed] == [b"same"] * 12


# What was changed


def read_all(store: Store) -> None:
    """Read the session that `tell` told, and the rest."""
    session = Session.load(store, "session-of-agnes")
    for key in map(str, store.keys()):
        store.get(key)
    store.compiled(session.context.fingerprint, "gemini")
    store.original(session.id, "elided-one-5")
    store.holder("lease-of-the-warmup")


def test_every_changed_byte_and_every_cut_is_refused(backend: MemoryBackend) -> None:
    store = opened(backend)
    tell(store)
    read_all(store)
    rows = bodies(store)
    assert len(rows) == 9
    for row in rows:
        bad = [
            row.body[:at] + bytes([row.body[at] ^ 128]) + row.body[at + 1 :] for at in range(len(row.body))
        ]
        bad += [row.body[:at] for at in (0, 1, 5, 17, 29, len(row.body) - 1)]
        for body in bad:
            changed = row._replace(body=body)
            assert backend.replace(b"", [(row, body)]) == 1
            with pytest.raises(StoreError):
                read_all(store)
            assert store.verify()
            assert backend.replace(b"", [(changed, row.body)]) == 1
    assert store.verify() == ()


def test_bodies_that_changed_places_are_refused(backend: MemoryBackend) -> None:
    store = opened(backend)
    tell(store)
    rows = bodies(store)
    for one in rows:
        for other in rows:
            if one is not other:
                backend.replace(b"", [(one, other.body)])
                with pytest.raises(CorruptStoreError):
                    read_all(store)
                backend.replace(b"", [(one._replace(body=other.body), one.body)])
    read_all(store)


def test_an_old_body_does_not_open_under_a_new_revision(backend: MemoryBackend) -> None:
    """The whole old row does: a back end that goes back in time as a whole looks as it did then."""
    store = opened(backend)
    session = saved(store, "a")
    name = store.envelope.name("session", "s1")
    old = backend.session(b"", name)
    session.append(Message("user", "b"))
    session.save()
    new = backend.session(b"", name)
    assert old is not None
    assert new is not None
    for mixed in (new._replace(body=old.body), old._replace(revision=2), new._replace(tip=old.tip)):
        backend._in(b"").sessions[name] = mixed
        with pytest.raises(CorruptStoreError):
            store.load("s1")
    backend._in(b"").sessions[name] = old
    assert [each.text for each in store.messages("s1")] == ["a"]


def slots(backend: MemoryBackend) -> list[Record]:
    return list(backend.records(HOME, "seal"))


def test_a_changed_marker_or_key_is_refused(backend: MemoryBackend) -> None:
    saved(opened(backend), "a")
    for record in slots(backend):
        for at in range(len(record.body)):
            body = record.body[:at] + bytes([record.body[at] ^ 1]) + record.body[at + 1 :]
            backend.put(HOME, record._replace(body=body))
            with pytest.raises(StoreError):
                opened(backend)
            with pytest.raises(StoreError):
                opened(backend, None)
        # One who knows the format can make the check value right, and nothing more.
        inner = record.body[:-8]
        for at in range(len(inner)):
            forged = inner[:at] + bytes([inner[at] ^ 1]) + inner[at + 1 :]
            backend.put(HOME, record._replace(body=Plain().wrap(record_place(record), forged)))
            try:
                assert opened(backend).messages("s1")  # the version, or another one's way in
            except (StoreError, ValueError):
                continue
        backend.put(HOME, record)
    assert opened(backend).messages("s1")


def test_a_sealed_store_without_its_marker_is_no_new_store(backend: MemoryBackend) -> None:
    saved(opened(backend), "a")
    before = slots(backend)
    backend.drop(HOME, "seal", b"marker")
    for key in (OLD, NEW, None):
        with pytest.raises(CorruptStoreError, match="marker of the store is missing"):
            opened(backend, key)
    assert slots(backend) == [each for each in before if each.key != b"marker"]


def test_a_plain_store_without_a_marker_takes_no_key(backend: MemoryBackend) -> None:
    saved(Store(backend), "a")
    with pytest.raises(SealError, match="not sealed"):
        opened(backend)
    assert slots(backend) == []
    assert opened(backend, None).messages("s1")


def test_whoever_opens_first_makes_the_store(tmp_path: Path) -> None:
    """With one key, all get the same keys; with two, one of them is told."""
    url = f"sqlite:///{tmp_path}/a.db"
    open_store(f"sqlite:///{tmp_path}/b.db").close()  # loads what threads would otherwise load at once

    def open_(number: int) -> str:
        try:
            with open_store(url, key=OLD if number % 2 else NEW) as store:
                store.put(f"k{number}", b"v")
                return store.backend.get(HOME, "seal", b"marker").body.hex()  # type: ignore[union-attr]  # it is
        except SealError:
            return "refused"

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(open_, range(6)))
    assert len(set(found) - {"refused"}) == 1
    assert found.count("refused") == 3
    with open_store(url, key=OLD if found[0] == "refused" else NEW) as store:
        assert len(store.keys()) == 3
        assert store.verify() == ()
        assert len(list(store.backend.records(HOME, "seal"))) == 5


# Rotation


def numbers(store: Store) -> set[int | None]:
    return {key_number(row.body) for row in bodies(store)}


def test_who_had_not_seen_the_new_key_yet_loses_nothing(backend: MemoryBackend, clock: FakeClock) -> None:
    late = opened(backend, BOTH, clock=clock)
    saved(late, "a")
    whole = opened(backend, BOTH, clock=clock)
    assert whole.rotate().left == 0
    saved(late, "b", session_id="s2")
    late.put("v", b"1")
    assert numbers(whole) == {1, 2}
    assert (whole.messages("s2")[0].text, whole.get("v"), whole.verify()) == ("b", b"1", ())
    clock.advance(5)
    saved(late, "c", session_id="s3")
    done = whole.rotate()
    assert (done.number, done.left, numbers(whole)) == (3, 0, {3})
    assert late.messages("s3")[0].text == "c"
    assert late.verify() == whole.verify() == ()


def test_a_process_that_has_the_old_key_alone_is_told(backend: MemoryBackend, clock: FakeClock) -> None:
    old = opened(backend, OLD, clock=clock)
    saved(old, "a")
    opened(backend, BOTH, clock=clock).rotate()
    with pytest.raises(SealError, match="fingerprint"):
        old.messages("s1")
    with pytest.raises(SealError):
        old.sessions()
    clock.advance(5)
    with pytest.raises(SealError):
        old.put("v", b"1")
    assert {each.what for each in old.verify()} >= {"key", "node"}


def test_a_callable_is_asked_again_when_the_key_was_rotated(backend: MemoryBackend, clock: FakeClock) -> None:
    keys = [OLD]
    store = opened(backend, lambda: keys[-1], clock=clock)
    saved(store, "a")
    keys.append(NEW)
    opened(backend, BOTH, clock=clock).rotate()
    assert store.messages("s1")[0].text == "a"
    clock.advance(5)
    store.put("v", b"1")
    assert store.verify() == ()


class Breaking(MemoryBackend):
    """Breaks off at one write."""

    writes_left = 10**9

    def _write(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise StoreError("the server is gone")

    def append(self, *args: Any) -> int:
        self._write()
        return super().append(*args)

    def drop(self, *args: Any) -> bool:
        self._write()
        return super().drop(*args)

    def replace(self, space: bytes, rows: Sequence[tuple[Row, bytes]]) -> int:
        self._write()
        return super().replace(space, rows)


def test_a_rotation_that_breaks_off_leaves_a_whole_store(clock: FakeClock) -> None:
    broken = 0
    for writes in range(60):
        backend = Breaking()
        store = opened(backend, clock=clock)
        tell(store)
        tell(opened(backend, tenant="acme", clock=clock))
        rotating = opened(backend, BOTH, clock=clock)
        backend.writes_left = writes
        try:
            rotating.rotate(rows=3)
        except StoreError:
            broken += 1
        else:
            break
        finally:
            backend.writes_left = 10**9
        clock.advance(3_600)
        for tenant in (None, "acme"):
            whole = opened(backend, BOTH, tenant, clock)
            assert whole.verify() == ()
            read_all(whole)
        assert opened(backend, BOTH, clock=clock).rotate().left == 0
        assert opened(backend, NEW, "acme", clock).verify() == ()
    assert broken > 8


def test_one_process_rotates_at_a_time(backend: MemoryBackend, clock: FakeClock) -> None:
    store = opened(backend, clock=clock)
    backend.put(HOME, Record("lease", b"rotate", b"", b"somebody", expires=1_600.0))
    with pytest.raises(SealError, match="another process rotates"):
        store.rotate()
    clock.advance(600)
    assert store.rotate().number == 2


def test_two_that_rotate_at_once_to_two_keys_lose_neither_store_nor_values(
    backend: MemoryBackend, clock: FakeClock
) -> None:
    """Though the lease is there to keep them apart."""
    third = new_key()
    ring = {"old": OLD, "new": NEW, "third": third}
    saved(opened(backend, clock=clock), "a")
    one, two = (Safe(backend, Keyring(ring, current=name), clock) for name in ("new", "third"))
    assert (one.draw(), two.draw()) == (2, 3)
    one.rewrap()
    saved(opened(backend, Keyring(ring, current="new"), clock=clock), "b", session_id="s2")
    two.rewrap()
    store = opened(backend, third, clock=clock)
    assert len(store.sessions()) == 2
    assert store.verify() == ()
    with pytest.raises(SealError):
        opened(backend, NEW, clock=clock)


def test_rotation_is_for_whoever_has_the_whole_sealed_store(backend: MemoryBackend) -> None:
    with pytest.raises(SealError, match="without tenant="):
        opened(backend, tenant="acme").rotate()
    with open_store("memory:") as plain:
        for act in (plain.rotate, plain.tenants):
            with pytest.raises(SealError, match="opened without key="):
                act()


class Fixed:
    """A back end that cannot give rows new bodies."""

    def __init__(self, backend: MemoryBackend) -> None:
        for name in dir(backend):
            if not name.startswith("__") and name not in ("page", "replace"):
                setattr(self, name, getattr(backend, name))


def test_a_back_end_that_cannot_reseal_is_exported(backend: MemoryBackend) -> None:
    store = opened(Fixed(backend))
    saved(store, "a")
    with pytest.raises(SealError, match="export, and import"):
        store.rotate()
    with open_store("memory:", key=NEW) as other:
        assert other.import_(store.export(key=NEW), key=NEW).sessions == 1
        assert other.messages("s1") == store.messages("s1")


@pytest.fixture(params=["sqlite", "redis", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A store that nobody has used, which processes may share."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/a.db"
    elif request.param == "redis":
        need_redis()
        with redis_server(tmp_path) as server:
            yield server.url
    else:
        need_postgres()
        with postgres() as cluster:
            yield cluster.url("load")


def test_rotation_under_load_loses_nothing(url: str, tmp_path: Path) -> None:
    """Three processes write, fork and put, with the old key as their current one; rotations go to and fro."""
    open_store(url, key=OLD).close()
    stop = tmp_path / "stop"
    command = [sys.executable, "-m", "tests.seal_writers", url]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True, "cwd": Path(__file__).parents[2]}
    names = ("w0", "w1", "w2")
    running = [subprocess.Popen([*command, name, str(stop), OLD, NEW], **options) for name in names]
    try:
        first = [process.stdout.readline() for process in running if process.stdout is not None]
        for current in ("new", "old"):
            with open_store(url, key=Keyring({"old": OLD, "new": NEW}, current=current)) as store:
                assert store.rotate(rows=100).number > 1
        stop.touch()
        said = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
    assert [process.returncode for process in running] == [0, 0, 0]
    forks = [(line + out).split() for line, out in zip(first, said, strict=True)]
    with open_store(url, key=BOTH) as store:
        done = store.rotate()
        assert (done.left, done.vacuumed) == (0, True)
    with pytest.raises(SealError):
        open_store(url, key=OLD)
    with open_store(url, key=NEW, tenant="acme") as store:
        assert store.verify() == ()
        for name, ids in zip(names, forks, strict=True):
            turns = range(len(ids))
            assert len(turns) > 1
            assert [each.text for each in store.messages(name)] == [f"{name}-{turn}" for turn in turns]
            assert [store.get(f"{name}-{turn}") for turn in turns] == [b"%d" % turn for turn in turns]
            for turn, fork in enumerate(ids):
                assert store.messages(fork)[-1].text == f"fork {name}-{turn}"
        rows: list[Row] = [*store.backend.nodes(store.space), *store.backend.sessions(store.space)]
        rows += store.backend.records(store.space)
        assert {key_number(row.body) for row in rows} == {done.number}


# What stays on the disk


def on_disk(folder: Path) -> bytes:
    return b"\0".join(path.read_bytes() for path in sorted(folder.iterdir()))


def test_not_even_sealed_bytes_stay_of_what_was_forgotten_or_sealed_anew(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url, key=BOTH, tenant="acme") as store:
        for name in ("s1", "s2"):
            saved(store, *(f"{name} says {number}" * 40 for number in range(50)), session_id=name)
        rows: list[Any] = [*store.backend.nodes(store.space), *store.backend.sessions(store.space)]
        mine = store.backend.history(store.space, store.envelope.name("session", "s1"))
        assert mine is not None
        gone = [mine[0].body, *(row.body for row in mine[1])]
        assert all(row.body[5:37] in on_disk(tmp_path) for row in rows)
        assert store.forget("s1").vacuumed
        assert not any(body[5:37] in on_disk(tmp_path) for body in gone)
        with open_store(url, key=BOTH) as whole:
            assert whole.rotate().vacuumed
        assert not any(row.body[5:37] in on_disk(tmp_path) for row in rows)
        assert len(store.messages("s2")) == 50


# Exports


def test_an_export_in_the_clear_is_asked_for(backend: MemoryBackend) -> None:
    store = opened(backend)
    told = tell(store)
    with pytest.raises(SealError, match="plain=True"):
        store.export()
    plain = list(store.export(plain=True))
    with open_store("memory:") as other:
        other.import_(plain)
        assert other.messages("session-of-agnes") == store.messages("session-of-agnes")
        assert sorted(other.export()) == sorted(plain)
        sealed = list(other.export(key=BOTH))
    assert len(told.found_in("\n".join(plain).encode())) > 200
    assert told.found_in("\n".join(sealed).encode()) == []
    raw = b"".join(base64.b64decode(line) for line in sealed[1:])
    assert told.found_in(raw) == []
    again = opened(MemoryBackend(), NEW)
    again.import_(sealed, key=NEW)
    assert sorted(again.export(plain=True)) == sorted(plain)
    assert again.verify() == ()


def test_a_sealed_export_that_was_changed_is_refused(backend: MemoryBackend) -> None:
    store = opened(backend)
    saved(store, "a", "b", "c")
    lines = list(store.export(key=OLD))
    changed = lines[2][:-6] + ("A" if lines[2][-6] != "A" else "B") + lines[2][-5:]
    for bad in (
        [*lines[:2], changed, *lines[3:]],
        [*lines[:2], lines[3], lines[2], *lines[4:]],
        lines[:-1],
        lines[:3] + lines[4:],
        [*lines, lines[-1]],
        lines[:1],
        [lines[0], "not base64", *lines[1:]],
    ):
        with open_store("memory:") as other, pytest.raises(CorruptStoreError, match="export"):
            other.import_(bad, key=OLD)
    with open_store("memory:") as other:
        with pytest.raises(SealError, match="give the right key"):
            other.import_(lines, key=NEW)
        with pytest.raises(SealError, match="no sealed export"):
            other.import_(store.export(plain=True), key=OLD)
        with pytest.raises(StoreError, match="line 1"):
            other.import_(lines)
        assert other.stats().nodes == 0


# What any store promises, of a sealed one


class TestSealed(KeepsSessions, SharesRows, KeepsValues, Leases, Forgets):
    @pytest.fixture
    def store(self, tmp_path: Path, clock: FakeClock) -> Iterator[Store]:
        backend = open_sqlite(f"sqlite:///{tmp_path}/a.db")
        with Store(
            backend, envelope=envelope_for(backend, OLD, "acme", clock), capacity=1_000, clock=clock
        ) as store:
            yield store


# Real servers: what they write


def test_redis_learns_nothing(tmp_path: Path) -> None:
    """Neither its log (AOF), nor the dump of its memory (RDB), nor what a client can read."""
    need_redis()
    with redis_server(tmp_path) as server:
        import redis

        with redis.Redis.from_url(server.url) as client:
            with open_store(server.url, key=OLD, tenant="Umbrella-Holdings") as store:
                told = tell(store)
                client.save()
                stored = whole_folder(tmp_path)
                assert b"REDIS" in stored
                assert store.envelope.name("session", "session-of-agnes") in stored
                assert told.found_in(stored) == []
                assert told.found_in(b"\0".join(client.scan_iter("*"))) == []
            with open_store(f"{server.url}?prefix=plain:") as store:
                tell(store)
            client.save()
            assert len(told.found_in(whole_folder(tmp_path))) > 200


def test_postgres_learns_nothing() -> None:
    """Neither its tables nor its write-ahead log."""
    need_postgres()
    with postgres(
        initdb=["--wal-segsize=1"], settings="fsync = off\nmin_wal_size = 2MB\nmax_wal_size = 2MB"
    ) as server:
        with open_store(server.url("hidden"), key=OLD, tenant="Umbrella-Holdings") as store:
            told = tell(store)
            name = store.envelope.name("session", "session-of-agnes")
        stored = flushed(server)
        assert name in stored
        assert told.found_in(stored) == []
        with open_store(server.url("shown")) as store:
            tell(store)
        assert len(told.found_in(flushed(server))) > 200


def flushed(server: PostgresServer) -> bytes:
    """The files of the store's database, and the log."""
    with server.connect() as connection:
        connection.execute("CHECKPOINT")
        found = connection.execute(
            "SELECT oid FROM pg_database WHERE datname = current_database()"
        ).fetchone()
    assert found is not None
    return whole_folder(server.data / "base" / str(found[0])) + whole_folder(server.data / "pg_wal")


def whole_folder(folder: Path) -> bytes:
    """All bytes of all files, long runs of zeros cut short."""
    files = (path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())
    return re.sub(rb"\0{32,}", bytes(32), b"\0".join(files))
